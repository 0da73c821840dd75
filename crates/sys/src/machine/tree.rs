//! The folders of `/sys` that tell of processors and NUMA nodes, read and rendered with less of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::cpus::{Cpus, parse_list, render_list, restrict};
use super::proc;

/// What is to be written, by path.
pub(super) type Files = BTreeMap<PathBuf, Entry>;

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A file with this content.
    Text(String),
    /// A symbolic link.
    Link(String),
}

/// Files that say which processors there are. `possible` is not among them: programs size what they share with the kernel by it.
const LISTS: [&str; 3] = ["online", "present", "enabled"];

/// Files that are taken as they are.
const PLAIN: [&str; 2] = ["possible", "kernel_max"];

/// Folders that are taken as they are: they tell of the machine, not of one processor.
const FOLDERS: [&str; 2] = ["vulnerabilities", "smt"];

/// `/sys/devices/system/cpu` as it is at `real`, with only these processors.
pub(super) fn processors(real: &Path, keep: &Cpus) -> Files {
    let mut files = Files::new();
    for name in LISTS.iter().filter(|name| real.join(name).exists()) {
        files.insert(name.into(), Entry::Text(render_list(keep)));
    }
    for name in ["offline", "isolated"] {
        files.insert(name.into(), Entry::Text("\n".to_owned()));
    }
    for name in PLAIN {
        copy(&mut files, real, Path::new(name), keep);
    }
    for folder in FOLDERS {
        copy_folder(&mut files, real, Path::new(folder), keep);
    }
    for cpu in keep {
        let own = PathBuf::from(format!("cpu{cpu}"));
        for name in ["online", "cpu_capacity"] {
            copy(&mut files, real, &own.join(name), keep);
        }
        for name in ["cpuinfo_max_freq", "cpuinfo_min_freq"] {
            copy(&mut files, real, &own.join("cpufreq").join(name), keep);
        }
        copy_folder(&mut files, real, &own.join("topology"), keep);
        for cache in names(&real.join(&own).join("cache"), "index") {
            copy_folder(&mut files, real, &own.join("cache").join(cache), keep);
        }
    }
    files
}

/// `/sys/devices/system/node` as it is at `real`: one NUMA node with these processors and this many KiB of memory.
pub(super) fn memory(real: &Path, keep: &Cpus, total: u64) -> Files {
    let mut files = Files::new();
    let list = |name: &str| {
        parse_list(&fs::read_to_string(real.join(name).join("cpulist")).unwrap_or_default())
    };
    let nodes = names(real, "node");
    let with_processors = nodes.iter().find(|name| !list(name).is_disjoint(keep));
    let Some(node) = with_processors.or(nodes.first()) else { return files };
    let number = node.trim_start_matches("node").to_owned();
    for name in ["online", "has_cpu", "has_memory", "has_normal_memory"] {
        if real.join(name).exists() {
            files.insert(name.into(), Entry::Text(format!("{number}\n")));
        }
    }
    copy(&mut files, real, Path::new("possible"), keep);
    let own = PathBuf::from(node);
    let mut text = |name: &str, content| files.insert(own.join(name), Entry::Text(content));
    text("cpulist", render_list(keep));
    text("distance", "10\n".to_owned());
    let read = |name: &str| fs::read_to_string(real.join(&own).join(name)).ok();
    if let Some(meminfo) = read("meminfo") {
        text("meminfo", proc::limit_memory(&meminfo, total));
    }
    if let Some(all) = read("cpumap") {
        // All bits that the map is wide: the processors may be of several NUMA nodes.
        let ones: String =
            all.chars().map(|c| if c.is_ascii_hexdigit() { 'f' } else { c }).collect();
        text("cpumap", restrict("cpumap", &ones, keep));
    }
    for size in names(&real.join(&own).join("hugepages"), "hugepages") {
        copy_folder(&mut files, real, &own.join("hugepages").join(size), keep);
    }
    for cpu in keep {
        let link = Entry::Link(format!("../../cpu/cpu{cpu}"));
        files.insert(own.join(format!("cpu{cpu}")), link);
    }
    files
}

/// Links from each processor to its NUMA node, for the tree of processors.
pub(super) fn link_nodes(cpus: &mut Files, memory: &Files) {
    let links: Vec<(PathBuf, Entry)> = memory
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Link(_)))
        .filter_map(|(path, _)| {
            let (node, cpu) = (path.parent()?, path.file_name()?);
            let target = format!("../../node/{}", node.display());
            Some((Path::new(cpu).join(node), Entry::Link(target)))
        })
        .collect();
    cpus.extend(links);
}

/// Names in a folder with this beginning and a number, in order.
fn names(folder: &Path, start: &str) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let is_one = |name: &String| {
        let rest = name.strip_prefix(start).unwrap_or_default();
        rest.ends_with(|c: char| c.is_ascii_digit()) || rest.ends_with("kB")
    };
    let mut names: Vec<String> = names.filter(is_one).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names
}

/// What cannot be read is left out: which files there are depends on kernel and processor.
fn copy(files: &mut Files, real: &Path, path: &Path, keep: &Cpus) {
    let Ok(text) = fs::read_to_string(real.join(path)) else { return };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    files.insert(path.to_owned(), Entry::Text(restrict(&name, &text, keep)));
}

fn copy_folder(files: &mut Files, real: &Path, folder: &Path, keep: &Cpus) {
    for entry in fs::read_dir(real.join(folder)).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) && entry.file_name() != "uevent" {
            copy(files, real, &folder.join(entry.file_name()), keep);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, content) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    fn text(files: &Files, path: &str) -> String {
        match files.get(Path::new(path)) {
            Some(Entry::Text(text)) => text.clone(),
            other => panic!("{path} is {other:?} of {files:#?}"),
        }
    }

    #[test]
    fn a_machine_of_two_sockets_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let (cpu, node) = (dir.path().join("cpu"), dir.path().join("node"));
        write(&cpu, &[("online", "0-3\n"), ("present", "0-3\n"), ("possible", "0-7\n")]);
        for number in 0..4 {
            let socket = number / 2;
            let map = format!("{:x}\n", 3 << (socket * 2));
            write(
                &cpu.join(format!("cpu{number}")),
                &[
                    ("topology/core_id", "0\n"),
                    ("topology/physical_package_id", &format!("{socket}\n")),
                    ("topology/core_siblings", &map),
                    ("cache/index0/shared_cpu_map", &map),
                    ("cache/index0/size", "32K\n"),
                    ("power/control", "auto\n"),
                ],
            );
        }
        for number in 0..2 {
            write(
                &node.join(format!("node{number}")),
                &[
                    ("cpulist", &format!("{}-{}\n", number * 2, number * 2 + 1)),
                    ("cpumap", &format!("{:02x}\n", 3 << (number * 2))),
                    ("meminfo", &format!("Node {number} MemTotal: 4194304 kB\n")),
                    ("distance", "10 20\n"),
                ],
            );
        }
        write(&node, &[("online", "0-1\n"), ("possible", "0-1\n")]);

        let keep = Cpus::from([0, 1, 2]);
        let mut cpus = processors(&cpu, &keep);
        let nodes = memory(&node, &keep, 1_048_576);
        link_nodes(&mut cpus, &nodes);
        assert_eq!(text(&cpus, "online"), "0-2\n");
        assert_eq!(text(&cpus, "possible"), "0-7\n");
        assert_eq!(text(&cpus, "cpu2/topology/core_siblings"), "4\n");
        assert_eq!(text(&cpus, "cpu1/cache/index0/shared_cpu_map"), "3\n");
        assert_eq!(text(&cpus, "cpu1/cache/index0/size"), "32K\n");
        assert!(!cpus.keys().any(|path| path.starts_with("cpu3") || path.ends_with("control")));
        assert_eq!(cpus[Path::new("cpu2/node0")], Entry::Link("../../node/node0".into()));
        assert_eq!(text(&nodes, "online"), "0\n");
        assert_eq!(text(&nodes, "node0/cpulist"), "0-2\n");
        assert_eq!(text(&nodes, "node0/cpumap"), "07\n");
        assert_eq!(text(&nodes, "node0/distance"), "10\n");
        assert_eq!(text(&nodes, "node0/meminfo"), "Node 0 MemTotal: 1048576 kB\n");
        assert_eq!(nodes[Path::new("node0/cpu2")], Entry::Link("../../cpu/cpu2".into()));
        assert!(!nodes.keys().any(|path| path.starts_with("node1")));
        assert!(memory(&dir.path().join("absent"), &keep, 1).is_empty());
    }
}
