//! What a cluster could leave behind on the host, before and after.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::{Ground, Provider, Run, SOON, wait_until};

/// What goes with a network namespace, whenever the kernel comes to it.
const LATE: [&str; 5] = ["links", "addresses", "IPv4 routes", "IPv6 routes", "network namespaces"];

/// Parameters that Kubernetes, or routing for it, would change.
const PARAMETERS: [&str; 14] = [
    "fs/inotify/max_user_instances",
    "fs/inotify/max_user_watches",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "net/ipv4/conf/all/forwarding",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/default/forwarding",
    "net/ipv4/ip_forward",
    "net/ipv6/conf/all/forwarding",
    "net/ipv6/conf/default/forwarding",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
];

const FILES: &str = "files";

/// The host at one moment: what there is of each kind, a line each.
#[derive(Debug, PartialEq, Eq)]
pub struct HostSnapshot(BTreeMap<&'static str, Vec<String>>);

impl HostSnapshot {
    /// Looks at the host and at the folder of a ground; and at its engine, whose own traces on the host are not looked at then.
    ///
    /// # Panics
    /// When something cannot be looked at.
    #[must_use]
    pub fn take(ground: &Ground) -> Self {
        let mut kinds = BTreeMap::from([
            (FILES, files(ground)),
            ("temporary files", temporary_files(ground)),
            ("links", ip(&["-oneline", "link", "show"])),
            ("addresses", addresses()),
            ("IPv4 routes", ip(&["-4", "route", "show", "table", "all"])),
            ("IPv6 routes", ip(&["-6", "route", "show", "table", "all"])),
            ("routing rules", ip(&["rule", "show"])),
            ("parameters", PARAMETERS.iter().map(|name| parameter(name)).collect()),
        ]);
        match ground.setting().provider {
            Provider::Linux => kinds.extend([
                ("mounts", mounts()),
                ("nftables rules", lines(Run::new("nft").args(["--stateless", "list", "ruleset"]))),
                ("control groups", control_groups()),
                ("network namespaces", network_namespaces()),
                ("processes", processes(ground)),
            ]),
            Provider::Docker | Provider::Compose => kinds.extend(ground.engine().kinds()),
        }
        Self(kinds)
    }

    /// Looks again, and compares. The kernel takes namespaces and links away some time after their last process has ended; all else
    /// is as it was at once.
    ///
    /// # Panics
    /// When anything differs, with all that does.
    #[track_caller]
    pub fn expect_nothing_left(&self, ground: &Ground) {
        let left = Self::take(ground).differences(self);
        let is_late = |line: &String| LATE.iter().any(|kind| line.starts_with(kind));
        assert!(left.iter().all(is_late), "the host is not as it was:\n{}", left.join("\n"));
        wait_until("the host is as it was", SOON, || {
            let left = Self::take(ground).differences(self);
            if left.is_empty() { Ok(()) } else { Err(format!("\n{}", left.join("\n"))) }
        });
    }

    /// What differs from `before`, a line each.
    #[must_use]
    pub fn differences(&self, before: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        for (kind, now) in &self.0 {
            let then = before.0.get(kind).map_or(&[][..], Vec::as_slice);
            differences.extend(
                now.iter()
                    .filter(|one| !then.contains(one))
                    .map(|one| format!("{kind}: new: {one}")),
            );
            differences.extend(
                then.iter()
                    .filter(|one| !now.contains(one))
                    .map(|one| format!("{kind}: gone: {one}")),
            );
        }
        differences
    }
}

fn ip(arguments: &[&str]) -> Vec<String> {
    lines(Run::new("ip").args(arguments))
}

fn addresses() -> Vec<String> {
    ip(&["-oneline", "address", "show"]).iter().map(|line| without_lifetimes(line)).collect()
}

fn lines(command: Run) -> Vec<String> {
    command.success().stdout().lines().map(|line| line.trim_end().to_owned()).collect()
}

/// All but the first three fields, which are numbers that the kernel gives anew.
fn mounts() -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("the mount table is there");
    table.lines().map(|line| line.splitn(4, ' ').last().unwrap_or_default().to_owned()).collect()
}

/// An address without the time that it is valid for.
fn without_lifetimes(line: &str) -> String {
    line.split(" valid_lft").next().unwrap_or_default().trim_end_matches(['\\', ' ']).to_owned()
}

/// Whether a control group is that of a cluster which is not the tests', and so may change meanwhile.
fn is_of_another(group: &str) -> bool {
    let below = group.split("/bivouac/").skip(1);
    below.into_iter().any(|name| !name.starts_with("e2e-"))
}

/// Those in whose path bivouac is named, of all hierarchies.
fn control_groups() -> Vec<String> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), &mut |path, is_folder| {
        let text = path.to_string_lossy();
        if is_folder && text.contains("bivouac") && !is_of_another(&text) {
            found.push(text.into_owned());
        }
    });
    found.sort();
    found
}

/// Those that a process, a name or a mount keeps alive.
fn network_namespaces() -> Vec<String> {
    let mut found: Vec<String> = process_folders()
        .into_iter()
        .filter_map(|process| fs::metadata(process.join("ns/net")).ok())
        .map(|namespace| namespace.ino().to_string())
        .collect();
    let named = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    found.extend(named.map(|entry| entry.path().to_string_lossy().into_owned()));
    found.sort();
    found.dedup();
    found
}

/// Those of bivouac: by their program, their control group, or the ground's folder on their command line.
fn processes(ground: &Ground) -> Vec<String> {
    let folder = ground.folder().to_string_lossy().into_owned();
    let describe = |process: PathBuf| {
        let program = fs::read_link(process.join("exe")).unwrap_or_default();
        let (command, groups) = (text(&process, "cmdline"), text(&process, "cgroup"));
        let group = groups.lines().find(|group| group.contains("/bivouac/"));
        let is_ours = group.is_some()
            || program.file_name().is_some_and(|name| name == "bivouac")
            || program.starts_with(&folder)
            || command.contains(&folder);
        let (place, group) = (process.display(), group.unwrap_or_default());
        is_ours.then(|| format!("{place} {}in {group}", command.replace('\0', " ")))
    };
    process_folders().into_iter().filter_map(describe).collect()
}

fn text(process: &Path, file: &str) -> String {
    String::from_utf8_lossy(&fs::read(process.join(file)).unwrap_or_default()).into_owned()
}

/// All processes but those of clusters which are not the tests'.
fn process_folders() -> Vec<PathBuf> {
    let all = fs::read_dir("/proc").expect("/proc is there").flatten().map(|entry| entry.path());
    let is_process = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()))
    };
    let of_another = |path: &PathBuf| text(path, "cgroup").lines().any(is_of_another);
    all.filter(|path| is_process(path) && !of_another(path)).collect()
}

fn parameter(name: &str) -> String {
    let value = fs::read_to_string(Path::new("/proc/sys").join(name))
        .unwrap_or_else(|_| "absent".to_owned());
    format!("{name} = {}", value.trim())
}

/// The kubeconfig file, and all of the state folder. What kubectl keeps in the home folder is its own.
fn files(ground: &Ground) -> Vec<String> {
    let mut found: Vec<String> = fs::read_to_string(ground.kubeconfig())
        .into_iter()
        .map(|text| format!("kubeconfig:\n{text}"))
        .collect();
    let state = ground.state();
    if state.exists() {
        found.push(state.to_string_lossy().into_owned());
    }
    walk(&state, &mut |path, _| found.push(path.to_string_lossy().into_owned()));
    found.sort();
    found
}

fn temporary_files(ground: &Ground) -> Vec<String> {
    let entries = fs::read_dir(ground.temporary()).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    // Other programs that it calls put theirs there, too.
    let mut found: Vec<String> = names.filter(|name| name.contains("bivouac")).collect();
    found.sort();
    found
}

/// Calls `visit` with everything below a folder, and whether it is a folder. What goes away meanwhile is passed over.
fn walk(folder: &Path, visit: &mut impl FnMut(&Path, bool)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        visit(&path, is_folder);
        if is_folder {
            walk(&path, visit);
        }
    }
}
