//! Which node images nodes run on, asked of the kernel: any mount of any process may name a root file system.

use std::collections::BTreeSet;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

/// Whether a mount in any mount namespace of this machine names the folder.
pub(crate) fn in_use(folder: &Utf8Path) -> bool {
    mounts().iter().any(|mounts| names(mounts, folder.as_str()))
}

/// The mount tables of all mount namespaces that have a process.
pub(crate) fn mounts() -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut tables = Vec::new();
    let Ok(processes) = fs::read_dir("/proc") else { return tables };
    for process in processes.flatten() {
        let path = process.path();
        // Processes come and go, and some are not ours to see.
        let Ok(namespace) = fs::read_link(path.join("ns/mnt")) else { continue };
        if seen.insert(namespace)
            && let Ok(table) = fs::read_to_string(path.join("mountinfo"))
        {
            tables.push(table);
        }
    }
    tables
}

/// As a whole path, not as the beginning of a longer name.
pub(crate) fn names(mounts: &str, folder: &str) -> bool {
    mounts.match_indices(folder).any(|(start, _)| {
        let next = mounts[start + folder.len()..].chars().next();
        next.is_none_or(|letter| matches!(letter, ' ' | ',' | ':' | '/' | '\n'))
    })
}

/// Whether a mount namespace of this machine has the folder itself mounted somewhere, as a bind mount has it. A table names
/// such a folder by its file system and the path in that, which is not the folder's own where file systems are mounted.
pub(crate) fn is_mounted(folder: &Utf8Path) -> bool {
    let Ok(own) = fs::read_to_string("/proc/self/mountinfo") else { return true };
    // Not to be found: better too careful.
    let Some((device, root)) = place(&own, folder) else { return true };
    mounts().iter().any(|table| {
        table.lines().filter_map(Mount::parse).any(|mount| {
            mount.device == device && (mount.root == root || mount.root.starts_with(&root))
        })
    })
}

/// The file system that the folder is on, and where in it.
fn place<'a>(table: &'a str, folder: &Utf8Path) -> Option<(&'a str, Utf8PathBuf)> {
    // Of mounts on one another the last one counts.
    let mount = table
        .lines()
        .filter_map(Mount::parse)
        .filter(|mount| folder.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.as_str().len())?;
    let below = folder.strip_prefix(&mount.point).ok()?;
    let root = if below.as_str().is_empty() { mount.root } else { mount.root.join(below) };
    Some((mount.device, root))
}

/// A line of `mountinfo`, as proc_pid_mountinfo(5) has it.
struct Mount<'a> {
    /// `major:minor`.
    device: &'a str,
    root: Utf8PathBuf,
    point: Utf8PathBuf,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(' ').skip(2);
        let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { device, root: unescape(root), point: unescape(point) })
    }
}

/// The kernel writes what would break its table in octal.
fn unescape(path: &str) -> Utf8PathBuf {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    let plain = escapes.iter().fold(path.to_owned(), |path, (from, to)| path.replace(from, to));
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_placed_in_its_file_system() {
        let table = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /home rw - ext4 /dev/b rw\n\
                     3 1 8:1 /data /my\\040disk rw - ext4 /dev/a rw\n";
        let placed = |folder: &str| {
            place(table, folder.into()).map(|(device, root)| (device, root.into_string()))
        };
        assert_eq!(placed("/var/lib/x"), Some(("8:1", "/var/lib/x".to_owned())));
        assert_eq!(placed("/home/me/x"), Some(("8:2", "/me/x".to_owned())));
        assert_eq!(placed("/homes"), Some(("8:1", "/homes".to_owned())));
        assert_eq!(placed("/my disk/x"), Some(("8:1", "/data/x".to_owned())));
        assert_eq!(placed("/my disk"), Some(("8:1", "/data".to_owned())));
    }

    #[test]
    fn a_folder_is_found_as_a_whole_path() {
        let table = "1 2 0:3 / / rw - overlay overlay rw,lowerdir=/store/a/rootfs:/x,upperdir=/u\n";
        assert!(names(table, "/store/a/rootfs"));
        assert!(!names(table, "/store/a/root"));
    }
}
