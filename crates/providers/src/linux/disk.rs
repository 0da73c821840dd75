//! Disks of nodes: a file for each, with an ext4 file system in it that holds all that the node writes.
//!
//! ```text
//! NODE/disk.ext4 ── loop device ── mounted in the node's mount namespace only ── upper/ work/ data/ of the node
//! ```
//!
//! The mount and the device go with the last process of the node, whatever became of bivouac. The file takes the room of what is
//! written to it. Logs stay outside: they are bounded, and are read when the disk is full or the node does not run.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::process::{Command, Stdio};
use std::time::Duration;

use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Class, ClusterName, NodeName, Problem};
use bivouac_sys::mount::Disk;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::io::Errno;

use super::folder::{self, NodeFolder};
use super::order::Boot;
use super::problem::{OrProblem as _, failed};
use super::record::NodeRecord;

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

/// What a record says of the disk until the one that is wanted is there: the one that is there. A node without data gets what is wanted.
pub(super) fn noted(
    folder: &NodeFolder,
    record: Option<&NodeRecord>,
    wanted: Option<Bytes>,
) -> Option<Bytes> {
    match std::fs::metadata(folder.disk()) {
        Ok(file) => record.and_then(|own| own.made.resources.disk).or(Some(Bytes(file.len()))),
        Err(_) if folder.upper().exists() => None,
        Err(_) => wanted,
    }
}

/// The disk of a node that does not run, as large as it is to be: made when there is none. `None` for a node without one.
pub(super) fn ensure(boot: &Boot) -> Result<Option<Disk>, Problem> {
    let (folder, label) = (&boot.folder, super::names::label(&boot.cluster, &boot.node));
    let path = folder.disk();
    let size = boot.resources.disk.map(|size| size.0 / BLOCK * BLOCK);
    let size = match (size, path.exists()) {
        (None, false) => return Ok(None),
        (Some(_), false) if folder.upper().exists() => {
            let what = "was made without a disk of its own, and gets none";
            return Err(stays(boot, what, "leave `resources.disk` out"));
        }
        (Some(size), false) => {
            make(folder, &label, size)?;
            Some(size)
        }
        (size, true) => size,
    };
    let disk = open(&path, &label)?;
    let now = disk.file_system_size().or_remedy(&path, unusable(&label))?;
    let keep = || format!("write `disk: {}` or more", Bytes(now));
    let Some(size) = size else {
        return Err(stays(boot, "has its data on a disk, and keeps it", &keep()));
    };
    if size < now {
        let what = format!("has a disk of {}, which cannot become {}", Bytes(now), Bytes(size));
        return Err(stays(boot, &what, &keep()));
    }
    let (growing, message) =
        (folder.disk_growing(), || format!("the disk of node {label} cannot be made larger"));
    // A file can be larger than its file system, where somebody was killed or had no room.
    if size != disk.size().or_remedy(&path, message())? || growing.exists() {
        // Whoever is killed meanwhile leaves this, and all of it is done again.
        std::fs::write(&growing, "")
            .or_problem("disk", message())
            .map_err(|problem| problem.help(room(&path)))?;
        run(CHECK, &["-f", "-y", path.as_str()], &disk, &path, message())?;
        disk.set_size(size).or_remedy(&path, message())?;
        run(GROW, &[path.as_str()], &disk, &path, message())?;
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
    disk.mount(&target).or_remedy(&boot.folder.disk(), message)?;
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
    Disk::open(path, PATIENCE).or_remedy(path, unusable(label))
}

fn unusable(label: &str) -> String {
    format!("the disk of node {label} cannot be used")
}

/// What is there under the name is whole.
fn make(folder: &NodeFolder, label: &str, size: u64) -> Result<(), Problem> {
    let (new, path) = (folder.disk_new(), folder.disk());
    let message = || format!("the disk of node {label} cannot be made");
    let disk = Disk::create(&new, size, PATIENCE).or_remedy(&new, message())?;
    // The file is empty already, and what is not written at once is written when it is used. Nothing is kept for root: pods are root, too.
    let extended = "nodiscard,lazy_itable_init=1,lazy_journal_init=1";
    let block = BLOCK.to_string();
    let arguments = ["-q", "-F", "-m", "0", "-b", &block, "-E", extended, new.as_str()];
    run(MAKE, &arguments, &disk, &new, message())?;
    disk.sync().or_remedy(&new, message())?;
    fs_err::rename(&new, &path).or_problem("disk", message())
}

/// Runs a tool on a disk to its end. It keeps the disk locked, even when it outlives this process.
fn run(
    tool: &str,
    arguments: &[&str],
    disk: &Disk,
    path: &Utf8Path,
    message: String,
) -> Result<(), Problem> {
    let Some(program) = find(tool) else {
        let problem = failed("disk", message).help("install it with `apt-get install e2fsprogs`");
        let causes = vec![format!("there is no `{tool}`")];
        return Err(Problem { class: Class::Unfit, causes, ..problem });
    };
    let mut command = Command::new(program);
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    disk.lend(&mut command).or_remedy(path, &message)?;
    let output = command.output().or_problem("disk", &message)?;
    let success: &[i32] = if tool == CHECK { &CLEAN } else { &[0] };
    if output.status.code().is_some_and(|code| success.contains(&code)) {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let help = match tool {
        _ if text.contains("No space left on device") => room(path),
        MAKE => format!("look at the host's disk with `df -h {path}` and `dmesg`"),
        _ => check(path),
    };
    let mut problem = failed("disk", message).help(help);
    problem.causes.push(format!("`{tool} {}`: {}", arguments.join(" "), output.status));
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    problem.causes.extend(last.iter().map(|line| (*line).to_owned()));
    Err(problem)
}

/// Errors with the next step.
trait OrRemedy<T> {
    /// A failure of the disk at this path.
    fn or_remedy(self, path: &Utf8Path, message: impl Display) -> Result<T, Problem>;
}

impl<T> OrRemedy<T> for bivouac_sys::Result<T> {
    fn or_remedy(self, path: &Utf8Path, message: impl Display) -> Result<T, Problem> {
        self.map_err(|error| {
            let errno = error.errno().map(Errno::from_raw_os_error);
            let help = remedy(error.call(), error.object(), errno, path);
            failed("disk", message).because(&error).help(help)
        })
    }
}

/// What there is to do when a call fails. Without a number, time was up.
fn remedy(call: &str, object: &str, errno: Option<Errno>, path: &Utf8Path) -> String {
    let load = |module: &str| format!("load the module with `modprobe {module}`");
    match (call, errno) {
        ("lock", None) => format!(
            "run the same command again when it is free: `losetup -j {path}` and `fuser -v {path}` say who has it"
        ),
        ("attach", None) => "run the same command again".to_owned(),
        (_, Some(Errno::NOSPC | Errno::DQUOT)) => room(path),
        (_, Some(Errno::FBIG)) => {
            "write a smaller `resources.disk`: the host's file system has no files of that size"
                .to_owned()
        }
        ("mount", Some(Errno::NODEV)) => load("ext4"),
        ("attach", _) => load("loop"),
        _ if object.starts_with("/dev/loop") => load("loop"),
        _ => check(path),
    }
}

fn room(path: &Utf8Path) -> String {
    format!(
        "free some of the host's disk, `df -h {path}` says what there is; then run the same command again"
    )
}

fn check(path: &Utf8Path) -> String {
    format!("look at it with `e2fsck -f {path}`")
}

/// Where a tool is. Whoever is root by `su` may have no `sbin` in its path.
fn find(tool: &str) -> Option<Utf8PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').filter(|folder| !folder.is_empty());
    let mut places = folders.chain(["/usr/sbin", "/sbin"]).map(|one| Utf8Path::new(one).join(tool));
    places.find(|place| place.is_file())
}

fn stays(boot: &Boot, what: &str, keep: &str) -> Problem {
    let (cluster, node) = (&boot.cluster, &boot.node);
    let message = format!("node {} {what}", super::names::label(cluster, node));
    Problem::usage("provider.linux.disk_stays", message).help(format!(
        "{keep}; or remove the node and its data with `bivouac node remove --cluster {cluster} {node}`"
    ))
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

    fn disk(dir: &tempfile::TempDir) -> (Utf8PathBuf, Disk) {
        let path = Utf8PathBuf::try_from(dir.path().join("disk")).unwrap();
        let disk = Disk::create(&path, 1 << 20, PATIENCE).unwrap();
        (path, disk)
    }

    #[test]
    fn a_tool_that_fails_says_why_and_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let (path, disk) = disk(&dir);
        let run = |tool: &str, arguments: &[&str]| {
            run(tool, arguments, &disk, &path, "it fails".to_owned()).unwrap_err()
        };
        let problem = run("ls", &["/absent"]);
        assert_eq!(problem.code, "provider.linux.disk");
        assert!(problem.causes[0].starts_with("`ls /absent`: exit"), "{problem:?}");
        assert!(problem.causes[1].contains("No such file"), "{problem:?}");
        assert_eq!(problem.help, Some(format!("look at it with `e2fsck -f {path}`")));
        let problem = run("sh", &["-c", "echo No space left on device; false"]);
        assert!(problem.help.unwrap().starts_with("free some of the host's disk"));
        let problem = run("no-such-tool", &[]);
        assert_eq!(
            (problem.class, &*problem.causes[0]),
            (Class::Unfit, "there is no `no-such-tool`")
        );
    }

    #[test]
    fn calls_that_fail_are_told_with_what_mends_them() {
        let dir = tempfile::tempdir().unwrap();
        let (path, disk) = disk(&dir);
        let told = |result: bivouac_sys::Result<()>| {
            result.or_remedy(&path, "it fails").unwrap_err().help.unwrap()
        };
        let locked = told(Disk::open(&path, Duration::ZERO).map(drop));
        assert!(locked.contains(&format!("`losetup -j {path}`")), "{locked}");
        let empty = told(disk.file_system_size().map(drop));
        assert_eq!(empty, format!("look at it with `e2fsck -f {path}`"));
        for (call, object, errno, wanted) in [
            ("open", "/dev/loop-control", Errno::NOENT, "modprobe loop"),
            ("attach", "disk to /dev/loop0", Errno::INVAL, "modprobe loop"),
            ("mount", "disk on folder", Errno::NODEV, "modprobe ext4"),
            ("mount", "disk on folder", Errno::INVAL, "e2fsck"),
            ("resize", "disk", Errno::FBIG, "smaller `resources.disk`"),
            ("sync", "disk", Errno::NOSPC, "free some of the host's disk"),
        ] {
            let help = remedy(call, object, Some(errno), &path);
            assert!(help.contains(wanted), "{help}");
        }
    }

    #[test]
    fn a_record_tells_of_the_disk_that_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let folder = NodeFolder(dir.path().to_owned().try_into().unwrap());
        let wanted = Some(Bytes(2 << 20));
        assert!(!folder.has_data());
        assert_eq!(noted(&folder, None, wanted), wanted);
        std::fs::create_dir(folder.upper()).unwrap();
        assert_eq!(noted(&folder, None, wanted), None);
        std::fs::remove_dir(folder.upper()).unwrap();
        drop(Disk::create(folder.disk(), 1 << 20, PATIENCE).unwrap());
        assert!(folder.has_data());
        for wanted in [wanted, None] {
            assert_eq!(noted(&folder, None, wanted), Some(Bytes(1 << 20)));
        }
    }
}
