//! Disks of nodes: a file for each, with an ext4 file system in it that holds all that the node writes.
//!
//! ```text
//! NODE/disk.ext4 ── loop device ── mounted in the node's mount namespace only ── upper/ work/ data/ of the node
//! ```
//!
//! The mount and the device go with the last process of the node, whatever became of bivouac. The file takes the room of what is
//! written to it. Logs stay outside: they are bounded, and are read when the disk is full or the node does not run.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};
use std::time::Duration;

use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Class, ClusterName, NodeName, Problem};
use bivouac_sys::mount::Disk;
use camino::{Utf8Path, Utf8PathBuf};

use super::folder::{self, NodeFolder};
use super::order::Boot;
use super::problem::{OrProblem as _, failed};

/// How long the kernel may take to write out what a node left.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first Linux that makes a loop device in one call.
const KERNEL: (u32, u32) = (5, 8);

const MAKE: &str = "mkfs.ext4";
const CHECK: &str = "e2fsck";
const GROW: &str = "resize2fs";

/// All blocks have this size, and so the file is a multiple of it.
const BLOCK: u64 = 4096;

/// What `e2fsck` says when it found nothing, or mended what it found.
const CLEAN: [i32; 2] = [0, 1];

/// How many lines of what a tool says are kept.
const LAST_LINES: usize = 5;

/// Why nodes cannot have disks on this machine. `release` is that of the kernel, and these are file systems that nodes can keep in files.
pub(super) fn refusal(release: &str, file_systems: &BTreeSet<String>) -> Option<Problem> {
    let missing = [MAKE, CHECK, GROW].into_iter().find(|tool| find(tool).is_none());
    lacking(release, file_systems, missing)
}

fn lacking(
    release: &str,
    file_systems: &BTreeSet<String>,
    missing: Option<&str>,
) -> Option<Problem> {
    let unfit = |message: String, help: &str| {
        Some(Problem::new(Class::Unfit, "provider.linux.no_disks", message).help(help))
    };
    if !file_systems.contains("ext4") {
        let message = "the kernel has no loop devices, or no ext4".to_owned();
        return unfit(message, "load the modules with `modprobe -a loop ext4`");
    }
    if version(release).is_some_and(|found| found < KERNEL) {
        let (major, minor) = KERNEL;
        let message = format!("the kernel is Linux {release}, and disks need {major}.{minor}");
        return unfit(message, "leave `resources.disk` out, or use a newer kernel");
    }
    let tool = missing?;
    unfit(format!("there is no `{tool}`"), "install it with `apt-get install e2fsprogs`")
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The disk of a node that does not run, as large as it is to be: made when there is none. `None` for a node without one.
pub(super) fn ensure(boot: &Boot) -> Result<Option<Disk>, Problem> {
    let (folder, label) = (&boot.folder, super::names::label(&boot.cluster, &boot.node));
    let path = folder.disk();
    let size = boot.resources.disk.map(|size| size.0 / BLOCK * BLOCK);
    let disk = match (size, path.exists()) {
        (None, false) => return Ok(None),
        (None, true) => return Err(stays(&label, "has its data on a disk, and keeps it")),
        (Some(_), false) if folder.upper().exists() => {
            return Err(stays(&label, "was made without a disk of its own, and gets none"));
        }
        (Some(size), false) => {
            make(folder, &label, size)?;
            open(&path, &label)?
        }
        (Some(_), true) => open(&path, &label)?,
    };
    let size = size.unwrap_or_default();
    let message = || format!("the disk of node {label} cannot be made larger");
    let now = disk.size().or_problem("disk", message())?;
    if size < now {
        let what = format!("has a disk of {}, which cannot become {}", Bytes(now), Bytes(size));
        return Err(stays(&label, &what));
    }
    let growing = folder.disk_growing();
    if size > now || growing.exists() {
        // Whoever is killed meanwhile leaves this, and all of it is done again.
        fs_err::write(&growing, "").or_problem("disk", message())?;
        disk.extend(size).or_problem("disk", message())?;
        run(CHECK, &["-f", "-y", path.as_str()], &CLEAN, message())?;
        run(GROW, &[path.as_str()], &[0], message())?;
        fs_err::remove_file(&growing).or_problem("disk", message())?;
    }
    Ok(Some(disk))
}

/// Mounts the disk where only this process and the node see it, and gives the folder with what the node writes. Without a disk that is
/// the node's own folder.
pub(super) fn mount(boot: &Boot, disk: Option<&Disk>) -> Result<NodeFolder, Problem> {
    let Some(disk) = disk else { return Ok(boot.folder.clone()) };
    let target = boot.folder.disk_mounted();
    folder::ensure(&target)?;
    let label = super::names::label(&boot.cluster, &boot.node);
    let message = format!("the disk of node {label} cannot be mounted");
    disk.mount(&target).or_problem("disk", message).map_err(|problem| {
        problem.help(format!("look at it with `e2fsck -f {}`", boot.folder.disk()))
    })?;
    Ok(NodeFolder(target))
}

/// Waits until the kernel is done with the disk of a node whose processes are gone.
pub(super) fn wait_until_free(
    folder: &NodeFolder,
    cluster: &ClusterName,
    node: &NodeName,
) -> Result<(), Problem> {
    let path = folder.disk();
    if !path.exists() {
        return Ok(());
    }
    open(&path, &super::names::label(cluster, node)).map(drop)
}

fn open(path: &Utf8Path, label: &str) -> Result<Disk, Problem> {
    let opened = Disk::open(path, PATIENCE);
    opened.or_problem("disk", format_args!("the disk of node {label} cannot be used"))
}

/// What is there under the name is whole.
fn make(folder: &NodeFolder, label: &str, size: u64) -> Result<(), Problem> {
    let (new, path) = (folder.disk_new(), folder.disk());
    let message = || format!("the disk of node {label} cannot be made");
    let create = || -> std::io::Result<File> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.set_len(size)?;
        Ok(file)
    };
    let file = create().or_problem("disk", message())?;
    // The file is empty already, and what is not written at once is written when it is used. Nothing is kept for root: pods are root, too.
    let extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";
    let block = BLOCK.to_string();
    let arguments = ["-q", "-F", "-m", "0", "-b", &block, "-E", extended, new.as_str()];
    run(MAKE, &arguments, &[0], message())?;
    file.sync_all().and_then(|()| std::fs::rename(&new, &path)).or_problem("disk", message())
}

/// Runs a tool to its end.
fn run(tool: &str, arguments: &[&str], success: &[i32], message: String) -> Result<(), Problem> {
    let Some(path) = find(tool) else {
        let problem = failed("disk", message).help("install it with `apt-get install e2fsprogs`");
        let causes = vec![format!("there is no `{tool}`")];
        return Err(Problem { class: Class::Unfit, causes, ..problem });
    };
    let mut command = Command::new(path);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    let output = command.output().or_problem("disk", &message)?;
    if output.status.code().is_some_and(|code| success.contains(&code)) {
        return Ok(());
    }
    let mut problem = failed("disk", message);
    problem.causes.push(format!("`{tool} {}`: {}", arguments.join(" "), output.status));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    problem.causes.extend(last.iter().map(|line| (*line).to_owned()));
    Err(problem)
}

/// Where a tool is. Whoever is root by `su` may have no `sbin` in its path.
fn find(tool: &str) -> Option<Utf8PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').filter(|folder| !folder.is_empty());
    let mut places = folders.chain(["/usr/sbin", "/sbin"]).map(|one| Utf8Path::new(one).join(tool));
    places.find(|place| place.is_file())
}

fn stays(label: &str, what: &str) -> Problem {
    let problem = Problem::usage("provider.linux.disk_stays", format!("node {label} {what}"));
    problem.help("write the size that it had, or remove the node and make another")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_mends_it() {
        let ext4 = BTreeSet::from(["ext4".to_owned()]);
        let told = |release: &str, file_systems: &BTreeSet<String>, tool| {
            lacking(release, file_systems, tool).map(|problem| problem.help.unwrap())
        };
        assert_eq!(told("6.18.44-fc", &ext4, None), None);
        assert_eq!(told("5.8.0", &ext4, None), None);
        assert_eq!(told("unknown", &ext4, None), None);
        assert!(told("5.4.0-99-generic", &ext4, None).unwrap().contains("newer kernel"));
        assert!(told("6.1.0", &BTreeSet::new(), None).unwrap().contains("modprobe"));
        assert!(told("6.1.0", &ext4, Some(MAKE)).unwrap().contains("e2fsprogs"));
    }

    #[test]
    fn a_tool_that_fails_says_why() {
        let problem = run("ls", &["/absent"], &[0], "it fails".to_owned()).unwrap_err();
        assert_eq!(problem.code, "provider.linux.disk");
        assert!(problem.causes[0].starts_with("`ls /absent`: exit"), "{problem:?}");
        assert!(problem.causes[1].contains("No such file"), "{problem:?}");
        let problem = run("no-such-tool", &[], &[0], "it fails".to_owned()).unwrap_err();
        assert_eq!(
            (problem.class, &*problem.causes[0]),
            (Class::Unfit, "there is no `no-such-tool`")
        );
    }
}
