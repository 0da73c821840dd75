//! Which node images nodes run on, asked of the kernel: any mount of any process may name a root file system.

use std::collections::BTreeSet;
use std::fs;

use camino::Utf8Path;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_found_as_a_whole_path() {
        let table = "1 2 0:3 / / rw - overlay overlay rw,lowerdir=/store/a/rootfs:/x,upperdir=/u\n";
        assert!(names(table, "/store/a/rootfs"));
        assert!(!names(table, "/store/a/root"));
    }
}
