//! Files of a node.
//!
//! What is written arrives in pieces, each with its length before it (4 bytes, the lowest first), and an empty piece at the end:
//! input that merely stops is not mistaken for a whole file.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

use bivouac_spec::Problem;
use bivouac_sys::namespace::{Namespace, enter};
use camino::Utf8Path;

use super::super::order::{Answer, FileOrder};
use super::super::problem::OrProblem as _;
use super::Reports;

/// Writes a file of root's under another name first, so that there is never half a file.
pub(super) fn put(order: &FileOrder) -> Result<(), Problem> {
    enter_files(order)?;
    let (node, path) = (&order.node.node, &order.path);
    let new = path.with_file_name(format!(
        ".{}.new-{}",
        path.file_name().unwrap_or_default(),
        std::process::id()
    ));
    let written = receive(&new, order.mode).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // What is told is why it failed; it may not even have been made.
        let _ = std::fs::remove_file(&new);
    }
    written.or_problem("put", format_args!("{path} of node {node} cannot be written"))
}

fn receive(path: &Utf8Path, mode: u32) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    // The mode at creation has the umask taken off.
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    let mut input = io::stdin().lock();
    loop {
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let length = u64::from(u32::from_le_bytes(length));
        if length == 0 {
            return file.sync_all();
        }
        let copied = io::copy(&mut input.by_ref().take(length), &mut file)?;
        if copied < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Copies a file to standard output.
pub(super) fn get(order: &FileOrder, reports: &mut Reports) -> Result<u8, Problem> {
    enter_files(order)?;
    let message = format!("{} of node {} cannot be read", order.path, order.node.node);
    let mut file = File::open(&order.path)
        .and_then(|file| {
            let folder = file.metadata()?.is_dir();
            if folder { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
        })
        .or_problem("get", &message)?;
    reports.answer(Answer::Started)?;
    let mut output = io::stdout().lock();
    io::copy(&mut file, &mut output).and_then(|_| output.flush()).or_problem("get", &message)?;
    Ok(0)
}

fn enter_files(order: &FileOrder) -> Result<(), Problem> {
    let node = order.node.open()?;
    enter(&node, &[Namespace::Mount]).or_problem(
        "enter",
        format_args!(
            "node {} of cluster {} cannot be entered",
            order.node.node, order.node.cluster
        ),
    )
}
