//! Services and tasks, put together.

use bivouac_spec::node::{Limits, Probe, Restart, Run, Service, Stop, Task};

/// A service with a command, which is ready when the probe says so.
pub(super) fn service(name: &str, command: Vec<String>, ready: Option<Probe>) -> Service {
    Service {
        name: name.to_owned(),
        command,
        environment: Default::default(),
        after: Vec::new(),
        ready,
        restart: Restart::default(),
        stop: Stop::default(),
        limits: Limits::default(),
        oom_score: None,
        watch: Vec::new(),
    }
}

/// A task that runs a script of the shell with arguments, and reads these files.
pub(super) fn task(
    name: &str,
    after: &[&str],
    script: &str,
    arguments: &[&str],
    watch: &[&str],
) -> Task {
    Task {
        name: name.to_owned(),
        after: names(after),
        run: Run::Command(shell(name, script, arguments)),
        watch: watch.iter().map(|path| (*path).into()).collect(),
        late: false,
    }
}

/// The command of a script.
pub(super) fn shell(name: &str, script: &str, arguments: &[&str]) -> Vec<String> {
    let words = ["/bin/sh", "-c", script.trim_end(), name];
    words.iter().chain(arguments).map(|word| (*word).to_owned()).collect()
}

/// What a unit waits for.
pub(super) fn names(units: &[&str]) -> Vec<String> {
    units.iter().map(|unit| (*unit).to_owned()).collect()
}
