//! Bringing data into a node.

use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write};
use std::process::{ExitCode, Stdio};

use bivouac_spec::Problem;
use bivouac_spec::node::config::Environment;
use bivouac_spec::node::stream::Answer;
use bivouac_sys::process::{ChildSetup, Signal};
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{MemfdFlags, memfd_create};

use super::LEFT;
use super::view::{View, relative};
use crate::logs::last_line;
use crate::options::Places;
use crate::processes::{command, describe};

/// What is brought.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The folders, by absolute paths: nothing stays of what was in them, and of the tar nothing else is taken.
    pub paths: Vec<Utf8PathBuf>,
    /// How many bytes come. An archive that ends between two files does not look short.
    pub size: Option<u64>,
}

/// Replaces folders of this node by those in a tar on standard input, which `save` made. Nothing but the agent may run in the node. Says
/// on standard error what went wrong: a [`Answer::Problem`]; then the folders are neither what they were nor what they were to be, and it can
/// be done again. Call it in a process with a single thread.
#[must_use]
pub fn restore(places: &Places, request: &RestoreRequest) -> ExitCode {
    let Err(problem) = replace(places, request, &mut io::stdin().lock()) else {
        return ExitCode::SUCCESS;
    };
    let code = ExitCode::from(problem.class.exit_code());
    // Nobody may be left to hear it.
    let _ = io::stderr().lock().write_all(Answer::Problem(problem).line().as_bytes());
    code
}

fn replace(places: &Places, request: &RestoreRequest, input: &mut dyn Read) -> Result<(), Problem> {
    let view = View::open(places.runtime.join("data"), &request.paths)?;
    for path in &view.paths {
        empty(&view, path).map_err(|error| failed(&error))?;
    }
    extract(&view, request.size, input).map_err(|error| failed(&error))
}

/// Removes what is in a folder, but for what the node keeps and for folders where something is mounted in the node: they would be
/// unmounted.
fn empty(view: &View, folder: &Utf8Path) -> io::Result<()> {
    for entry in view.root.join(folder).read_dir_utf8()? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if LEFT.iter().any(|left| relative(Utf8Path::new(left)) == path) {
            continue;
        }
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
        } else if view.mounted.contains(&path) && !view.own.contains(&path) {
            // Its own files are below what is mounted on it, where nobody sees them.
        } else if is_kept(view, &path) {
            empty(view, &path)?;
        } else {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Whether a folder stays because of itself or of something in it.
fn is_kept(view: &View, path: &Utf8Path) -> bool {
    let left = LEFT.iter().map(|left| relative(Utf8Path::new(left)));
    let mounted = view.mounted.iter().map(Utf8PathBuf::as_path);
    left.chain(mounted).any(|kept| kept.starts_with(path))
}

fn extract(view: &View, size: Option<u64>, input: &mut dyn Read) -> io::Result<()> {
    let arguments = [
        "tar",
        "--extract",
        "--numeric-owner",
        "--same-owner",
        "--same-permissions",
        "--xattrs",
        "--xattrs-include=*",
        "--directory",
        view.root.as_str(),
        "--",
    ];
    // The archive may have more than is asked for.
    let paths = view.paths.iter().map(|path| path.as_str());
    let arguments: Vec<String> = arguments.into_iter().chain(paths).map(str::to_owned).collect();
    let mut command = command(&arguments, &Environment::new());
    let mut errors = File::from(memfd_create("errors", MemfdFlags::CLOEXEC)?);
    command.stdin(Stdio::piped()).stderr(errors.try_clone()?);
    let parent_death_signal = Some(Signal::KILL);
    ChildSetup { parent_death_signal, ..ChildSetup::default() }.apply(&mut command);
    let mut tar = command.spawn()?;
    let copied = match tar.stdin.take() {
        Some(mut archive) => io::copy(input, &mut archive),
        None => Ok(0),
    };
    let status = tar.wait()?;
    if !status.success() {
        // Why it did not read to the end is what it says itself.
        let mut said = Vec::new();
        errors.rewind()?;
        errors.take(64 << 10).read_to_end(&mut said)?;
        let line = last_line(&said).map(|line| format!(": {line}")).unwrap_or_default();
        return Err(io::Error::other(format!("tar {}{line}", describe(status))));
    }
    match (copied?, size) {
        (copied, Some(size)) if copied != size => {
            Err(io::Error::other(format!("only {copied} of {size} bytes came")))
        }
        _ => Ok(()),
    }
}

fn failed(error: &dyn std::error::Error) -> Problem {
    Problem::failed("agent.restore.failed", "the data of the node cannot be restored")
        .because(error)
}
