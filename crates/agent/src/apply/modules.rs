//! Kernel modules. One that cannot be loaded may be built in, or not be needed by this kernel: never an error.

use std::fs;
use std::process::{Command, Stdio};

use super::Applied;

const MODPROBE: [&str; 2] = ["/sbin/modprobe", "/usr/sbin/modprobe"];

/// Loads the module where it is absent and can be loaded.
pub(super) fn ensure_module(name: &str, applied: &mut Applied) {
    if is_present(name) {
        return;
    }
    let Some(modprobe) = MODPROBE.into_iter().find(|path| fs::exists(path).unwrap_or(false)) else {
        return;
    };
    // Quiet: the node image may hold no modules at all, and then the host has loaded what it has.
    let mut command = Command::new(modprobe);
    command.args(["--quiet", "--", name]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        applied.changes.push(format!("module {name}"));
    }
}

fn is_present(name: &str) -> bool {
    // The kernel writes `-` as `_`.
    let name = name.replace('-', "_");
    let loaded = fs::read_to_string("/proc/modules").unwrap_or_default();
    loaded.lines().any(|line| line.split(' ').next() == Some(name.as_str()))
        || fs::exists(format!("/sys/module/{name}")).unwrap_or(false)
}
