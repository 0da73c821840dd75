//! The part that runs in the guest: one step after another, then off.

use std::fs;
use std::process::Command;
use std::time::Instant;

const SHARE: &str = "/share";
const BINARY: &str = "/usr/local/bin/bivouac";

/// Runs the steps, says how each ended, writes the exit code and switches the guest off.
pub(crate) fn serve() -> Result<(), String> {
    let code = match steps() {
        Ok(failed) => i32::from(failed > 0),
        Err(error) => {
            eprintln!("{error}");
            2
        }
    };
    fs::write(format!("{SHARE}/code"), code.to_string())
        .map_err(|error| format!("code: {error}"))?;
    // At once: its disks are thrown away.
    let off = Command::new("systemctl").args(["poweroff", "--force", "--force"]).status();
    crate::check("systemctl poweroff", off)
}

fn read(name: &str) -> Result<String, String> {
    fs::read_to_string(format!("{SHARE}/{name}")).map_err(|error| format!("{name}: {error}"))
}

/// Counts those that failed.
fn steps() -> Result<usize, String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let controllers =
        controllers.map_err(|error| format!("no control groups version 2: {error}"))?;
    println!("Linux {}, cgroup v2 with {}", kernel.trim(), controllers.trim());
    fs::copy(format!("{SHARE}/bivouac"), BINARY).map_err(|error| format!("{BINARY}: {error}"))?;
    let patience = read("patience")?;
    let mut failed = Vec::new();
    for step in read("steps")?.lines() {
        let mut words = step.split('\t');
        let name = step.replace('\t', " ");
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).current_dir("/root").env("BIVOUAC", BINARY);
        command.env("BIVOUAC_E2E_PATIENCE", patience.trim());
        println!("==> {name}");
        let started = Instant::now();
        let outcome = crate::check(&name, command.status());
        let seconds = started.elapsed().as_secs();
        match outcome {
            Ok(()) => println!("==> {name}: good, {seconds} s"),
            Err(error) => {
                println!("==> {error}, {seconds} s");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", "));
    }
    Ok(failed.len())
}
