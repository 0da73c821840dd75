//! The shape of the project as ARCHITECTURE.md draws it, held by tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, MetadataCommand};

/// Which of our crates a crate may use. `cli` composes and may use all; `e2e` runs the program.
const ALLOWED: [(&str, &[&str]); 10] = [
    ("spec", &[]),
    ("plan", &["spec"]),
    ("provider", &["spec"]),
    ("pki", &["spec"]),
    ("image", &[]),
    ("sys", &[]),
    ("stacks", &["spec", "pki"]),
    ("engine", &["plan", "provider", "spec", "stacks", "pki"]),
    ("providers", &["provider", "sys", "spec"]),
    ("agent", &["spec", "sys"]),
];

fn root() -> PathBuf {
    // Asked at run time: checkouts that share a target folder may share this program too.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this");
    Path::new(&folder).parent().unwrap().to_owned()
}

#[test]
fn crates_depend_only_in_the_allowed_direction() {
    let metadata =
        MetadataCommand::new().manifest_path(root().join("Cargo.toml")).no_deps().exec().unwrap();
    let mut seen = BTreeSet::new();
    for package in &metadata.packages {
        let Some(name) = package.name.strip_prefix("bivouac-") else { continue };
        seen.insert(name.to_owned());
        if name == "cli" || name == "e2e" {
            continue;
        }
        let allowed = ALLOWED.iter().find(|(crate_name, _)| *crate_name == name);
        let allowed =
            allowed.unwrap_or_else(|| panic!("crate `{name}` is not in the architecture")).1;
        let ours = package
            .dependencies
            .iter()
            .filter(|dependency| dependency.kind == DependencyKind::Normal);
        for dependency in ours.filter_map(|dependency| dependency.name.strip_prefix("bivouac-")) {
            assert!(
                allowed.contains(&dependency),
                "crate `{name}` must not use crate `{dependency}`"
            );
        }
    }
    for (name, _) in ALLOWED {
        assert!(
            seen.contains(name),
            "crate `{name}` is in the architecture and not in the workspace"
        );
    }
}

/// Source lines outside tests of a folder, with their places.
fn source_lines(folder: &Path) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("tests") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]\nmod").next().unwrap();
                lines.extend(code.lines().enumerate().map(|(number, line)| {
                    (format!("{}:{}", path.display(), number + 1), line.to_owned())
                }));
            }
        }
    }
    assert!(!lines.is_empty(), "{} has no source", folder.display());
    lines
}

fn code_of(line: &str) -> &str {
    line.split("//").next().unwrap()
}

/// What in a node knows what runs there: programs of their own, which ask the API of what they guard, or lead to.
const INSIDERS: [&str; 2] = ["crates/agent/src/guard/", "crates/agent/src/load_balance/"];

#[test]
fn a_provider_never_knows_a_stack() {
    for folder in
        ["crates/provider/src", "crates/providers/src", "crates/sys/src", "crates/agent/src"]
    {
        for (place, line) in source_lines(&root().join(folder)) {
            if INSIDERS.iter().any(|insider| place.contains(insider)) {
                continue;
            }
            let code = code_of(&line).to_lowercase();
            for word in ["kubernetes", "kubelet", "apiserver", "incus", "solana"] {
                assert!(!code.contains(word), "{place} knows the stack word `{word}`: {line}");
            }
        }
    }
}

#[test]
fn a_stack_never_knows_a_provider() {
    for (place, line) in source_lines(&root().join("crates/stacks/src")) {
        let code = code_of(&line);
        for word in ["LinuxProvider", "overlayfs_upper", "docker"] {
            assert!(!code.contains(word), "{place} knows the provider word `{word}`: {line}");
        }
    }
}

/// Probes: places that ask again after a short wait, because the kernel has no event for what they wait for. Each has a
/// deadline, or goes on for as long as its process does.
const PROBES: [(&str, &str); 10] = [
    (
        "crates/agent/src/guard/health.rs",
        "a member that is asked at an interval for as long as it lives",
    ),
    ("crates/agent/src/guard/memory.rs", "memory that is looked at in the same way"),
    (
        "crates/agent/src/ground/resolver/relay.rs",
        "a node that lacks memory or files, until it has some",
    ),
    ("crates/agent/src/load_balance/peers.rs", "a neighbour that is gone, until it is back"),
    ("crates/agent/src/load_balance/watch.rs", "an API that is gone, until it is back"),
    ("crates/engine/src/kubeconfig.rs", "kubectl's lock of a kubeconfig file"),
    ("crates/agent/src/client.rs", "a socket that is not there yet"),
    ("crates/sys/src/filesystem/lock.rs", "a file lock with a deadline"),
    ("crates/sys/src/mount/disk.rs", "the lock of a disk that the kernel still writes out"),
    ("crates/sys/src/cgroup/removal.rs", "a version 1 control group becoming empty"),
];

#[test]
fn nothing_sleeps_to_synchronize() {
    let mut probing = BTreeSet::new();
    for (name, _) in ALLOWED {
        for (place, line) in source_lines(&root().join("crates").join(name).join("src")) {
            if !code_of(&line).contains("thread::sleep") {
                continue;
            }
            let probe = PROBES.iter().find(|(path, _)| place.contains(path));
            let probe =
                probe.unwrap_or_else(|| panic!("{place} sleeps: wait on the event instead"));
            probing.insert(probe.0);
        }
    }
    assert_eq!(probing.len(), PROBES.len(), "a probe is gone from the code: take it off the list");
}
