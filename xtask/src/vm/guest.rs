//! The part that runs in the guest: one step after another, then off. A step can be a restart of the guest.

use std::fs;
use std::process::Command;
use std::time::Instant;

const SHARE: &str = "/share";
const BINARY: &str = "/usr/local/bin/bivouac";
/// The step that restarts the guest.
pub(super) const RESTART: &str = "restart";

/// Runs the steps, says how each ended, writes the exit code and switches the guest off; or restarts it, and goes on then.
pub(crate) fn serve() -> Result<(), String> {
    let code = match steps() {
        Ok(End::Restart) => {
            return crate::check(
                "systemctl reboot",
                Command::new("systemctl").arg("reboot").status(),
            );
        }
        Ok(End::Done { failed }) => i32::from(failed > 0),
        Err(error) => {
            eprintln!("{error}");
            2
        }
    };
    write("code", &code.to_string())?;
    // At once: its disks are thrown away.
    let off = Command::new("systemctl").args(["poweroff", "--force", "--force"]).status();
    crate::check("systemctl poweroff", off)
}

/// How the steps of this start of the guest ended.
enum End {
    Restart,
    Done { failed: usize },
}

/// What was begun, a line each: `good`, `failed`, or nothing when the guest went down in the middle of it.
#[derive(Debug, Default)]
struct Progress(Vec<&'static str>);

impl Progress {
    fn parse(text: &str) -> Self {
        let known = |line: &str| ["good", "failed"].into_iter().find(|word| *word == line);
        Self(text.lines().map(|line| known(line).unwrap_or_default()).collect())
    }

    fn text(&self) -> String {
        self.0.iter().map(|line| format!("{line}\n")).collect()
    }

    fn begin(&mut self) -> Result<(), String> {
        self.0.push("");
        write("progress", &self.text())
    }

    fn end(&mut self, is_good: bool) -> Result<(), String> {
        self.0.pop();
        self.0.push(if is_good { "good" } else { "failed" });
        write("progress", &self.text())
    }

    fn failed<'a>(&self, steps: &[&'a str]) -> Vec<&'a str> {
        let ended = steps.iter().zip(&self.0).filter(|(_, how)| **how != "good");
        ended.map(|(step, _)| *step).collect()
    }
}

fn read(name: &str) -> Result<String, String> {
    fs::read_to_string(format!("{SHARE}/{name}")).map_err(|error| format!("{name}: {error}"))
}

fn write(name: &str, content: &str) -> Result<(), String> {
    fs::write(format!("{SHARE}/{name}"), content).map_err(|error| format!("{name}: {error}"))
}

/// Goes on with what no start of the guest has begun yet.
fn steps() -> Result<End, String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers");
    let controllers =
        controllers.map_err(|error| format!("no control groups version 2: {error}"))?;
    println!("Linux {}, cgroup v2 with {}", kernel.trim(), controllers.trim());
    let steps = read("steps")?;
    let steps: Vec<&str> = steps.lines().collect();
    let mut progress = Progress::parse(&read("progress").unwrap_or_default());
    if progress.0.is_empty() {
        fs::copy(format!("{SHARE}/bivouac"), BINARY)
            .map_err(|error| format!("{BINARY}: {error}"))?;
    }
    let patience = read("patience")?;
    for step in steps.iter().skip(progress.0.len()) {
        progress.begin()?;
        if *step == RESTART {
            progress.end(true)?;
            println!("==> {step}");
            return Ok(End::Restart);
        }
        progress.end(run(step, patience.trim()))?;
    }
    let failed = progress.failed(&steps);
    if !failed.is_empty() {
        println!("failed: {}", failed.join(", ").replace('\t', " "));
    }
    Ok(End::Done { failed: failed.len() })
}

/// Whether it ended well.
fn run(step: &str, patience: &str) -> bool {
    let (mut words, name) = (step.split('\t'), step.replace('\t', " "));
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words).current_dir("/root").env("BIVOUAC", BINARY);
    command.env("BIVOUAC_E2E_PATIENCE", patience);
    println!("==> {name}");
    let started = Instant::now();
    let outcome = crate::check(&name, command.status());
    let seconds = started.elapsed().as_secs();
    match &outcome {
        Ok(()) => println!("==> {name}: good, {seconds} s"),
        Err(error) => println!("==> {error}, {seconds} s"),
    }
    outcome.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_down_in_the_middle_has_failed_and_is_not_begun_again() {
        let mut progress = Progress::parse("good\n\n");
        assert_eq!(progress.text(), "good\n\n");
        progress.0.push("failed");
        assert_eq!(progress.failed(&["one", "two", "three", "four"]), ["two", "three"]);
    }
}
