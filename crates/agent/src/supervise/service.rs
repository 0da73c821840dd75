//! Starting the process of a service.

use std::fs;
use std::io;
use std::sync::Arc;

use bivouac_spec::node::{Limits, Service, Signal as StopSignal};
use bivouac_sys::process::{ChildSetup, Limit, Resource, Signal};

use crate::logs::Log;
use crate::processes::{Processes, command, reason};

/// Starts the service in a session of its own.
///
/// # Errors
/// A sentence that names the program.
pub(super) fn start(
    service: &Service,
    log: Option<&Arc<Log>>,
    processes: &Processes,
) -> Result<u32, String> {
    let mut command = command(&service.command, &service.environment);
    let outputs = || -> io::Result<_> {
        let log = log.ok_or_else(|| io::Error::other("there is no log"))?;
        Ok((log.writer()?, log.writer()?))
    };
    if let Ok((output, errors)) = outputs() {
        command.stdout(output).stderr(errors);
    }
    let setup = ChildSetup {
        session: true,
        limits: limits(&service.limits).collect(),
        oom_score_adj: service.oom_score.map(i32::from),
        ..ChildSetup::default()
    };
    setup.apply(&mut command);
    let program = service.command.first().map_or("", String::as_str);
    processes.start(command).map_err(|error| format!("cannot run {program}: {}", reason(&error)))
}

/// Which limits the process did not get as they were wanted, as sentences.
pub(super) fn shortfalls(service: &Service, pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    let mut short = Vec::new();
    for limit in limits(&service.limits) {
        let (name, wanted) = (title(limit.resource), limit.soft.unwrap_or(u64::MAX));
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let got = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        if let Some(got) = got.filter(|got| *got < wanted) {
            let what = name.trim_start_matches("Max ");
            short.push(format!("{}: {what} limited to {got} instead of {wanted}", service.name));
        }
    }
    short
}

/// The signal as the kernel numbers it.
pub(super) fn kernel_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Terminate => Signal::TERM,
        StopSignal::Interrupt => Signal::INT,
        StopSignal::Quit => Signal::QUIT,
        StopSignal::Kill => Signal::KILL,
    }
}

fn limits(limits: &Limits) -> impl Iterator<Item = Limit> {
    let wanted = [
        (Resource::Nofile, limits.open_files),
        (Resource::Nproc, limits.processes),
        (Resource::Memlock, limits.locked_memory),
        (Resource::Core, limits.core),
    ];
    wanted
        .into_iter()
        .filter_map(|(resource, value)| Some(Limit { resource, soft: Some(value?), hard: value }))
}

/// As the kernel names it in `/proc/PID/limits`.
fn title(resource: Resource) -> &'static str {
    match resource {
        Resource::Nofile => "Max open files",
        Resource::Nproc => "Max processes",
        Resource::Memlock => "Max locked memory",
        _ => "Max core file size",
    }
}
