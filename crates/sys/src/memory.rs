//! What processes cost: memory shared fairly between its users (PSS), and processor time.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use crate::error::Context;
use crate::process::{all_processes, stat_fields};
use crate::{Error, Result};

/// Proportional set size of a process in bytes: its own memory, plus its share of what it shares with others.
pub fn pss(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).at("read", &path)?;
    let kibibytes = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes =
        kibibytes.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kibibytes.ok_or_else(|| Error::invalid("read", path, "no Pss in it"))? * 1024)
}

/// Sum of the proportional set sizes; processes that have exited meanwhile count nothing.
pub fn pss_of_all(pids: impl IntoIterator<Item = u32>) -> Result<u64> {
    pids.into_iter().try_fold(0, |sum, pid| match pss(pid) {
        Err(error) if error.is_absent() => Ok(sum),
        other => Ok(sum + other?),
    })
}

/// Processor time that a process has used in all its threads, without its children.
pub fn cpu_time(pid: u32) -> Result<Duration> {
    let fields = stat_fields(pid)?;
    // Fields 14 and 15 of proc(5): user and system time in clock ticks.
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok());
    let (Some(user), Some(system)) = (ticks(14), ticks(15)) else {
        return Err(Error::invalid("read", format_args!("/proc/{pid}/stat"), "no times in it"));
    };
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_millis((user + system) * 1000 / per_second.max(1)))
}

/// Time for which the machine's processors were busy since it started, all of them added up.
pub fn busy_time() -> Result<Duration> {
    let path = "/proc/stat";
    let text = fs::read_to_string(path).at("read", path)?;
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let line = line.ok_or_else(|| Error::invalid("read", path, "no line of all processors"))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, irq, softirq, steal; not idle and iowait (3 and 4), nor guest times, which user includes.
    let busy: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|field| ticks.get(*field)).sum();
    Ok(Duration::from_millis(busy * 1000 / rustix::param::clock_ticks_per_second().max(1)))
}

/// A process and all that descend from it. Of a node's first process that is everything in the node, since it adopts orphans.
pub fn descendants(first: u32) -> Result<BTreeSet<u32>> {
    let mut parents = Vec::new();
    for pid in all_processes()? {
        match stat_fields(pid) {
            // Field 4 of proc(5) is the parent.
            Ok(fields) => parents
                .extend(fields.get(1).and_then(|text| Some((pid, text.parse::<u32>().ok()?)))),
            Err(error) if error.is_absent() => {}
            Err(error) => return Err(error),
        }
    }
    let mut found = BTreeSet::from([first]);
    loop {
        let more: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return Ok(found);
        }
        found.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_costs_something() {
        let own = std::process::id();
        let bytes = pss(own).unwrap();
        assert!(bytes > 64 * 1024);
        assert!(pss_of_all([own, u32::MAX]).unwrap() > 64 * 1024);
        assert!(cpu_time(own).unwrap() < Duration::from_secs(3600));
        assert!(busy_time().unwrap() > cpu_time(own).unwrap());
        assert!(descendants(std::os::unix::process::parent_id()).unwrap().contains(&own));
        assert!(cpu_time(u32::MAX).unwrap_err().is_absent());
    }
}
