//! Files of `/proc` that tell of memory and processors, with less of them. Pure.

use std::collections::BTreeSet;

use super::cpus::Cpus;

/// What `/proc/swaps` holds where there is no swap.
pub(super) const NO_SWAPS: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

/// Lines that say nothing of how much memory there is.
const UNBOUNDED: [&str; 3] = ["Vmalloc", "DirectMap", "Hugepagesize"];

/// The number of KiB on the `MemTotal` line of `/proc/meminfo`, or of that of a NUMA node.
pub(super) fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| key(line) == Some("MemTotal"))?;
    line.split_once(':')?.1.split_whitespace().next()?.parse().ok()
}

/// A `meminfo` with this many KiB in all: no line says more than that, and there is no swap.
pub(super) fn limit_memory(meminfo: &str, total: u64) -> String {
    let line = |line: &str| limit_line(line, total).unwrap_or_else(|| line.to_owned()) + "\n";
    meminfo.lines().map(line).collect()
}

fn limit_line(line: &str, total: u64) -> Option<String> {
    let (key, (head, rest)) = (key(line)?, line.split_once(':')?);
    let number = rest.trim().strip_suffix("kB")?.trim_end();
    let value: u64 = number.parse().ok()?;
    let value = match key {
        "MemTotal" => total,
        _ if key.starts_with("Swap") => 0,
        _ if UNBOUNDED.iter().any(|start| key.starts_with(start)) => value,
        _ => value.min(total),
    };
    let width = rest.len() - "kB".len() - 1;
    Some(format!("{head}:{value:>width$} kB"))
}

/// `MemTotal`, also of a line `Node 0 MemTotal: 1 kB`.
fn key(line: &str) -> Option<&str> {
    line.split_once(':')?.0.split_whitespace().last()
}

/// `/proc/cpuinfo` with only these processors.
pub(super) fn keep_processors(cpuinfo: &str, keep: &Cpus) -> String {
    let blocks = cpuinfo.split("\n\n").filter(|block| !block.trim().is_empty());
    let kept: Vec<&str> = blocks
        // What belongs to no processor, such as the name of the board, stays.
        .filter(|block| number(block, "processor").is_none_or(|cpu| keep.contains(&cpu)))
        .collect();
    let count = |kept: &[&str]| kept.iter().map(|block| recount(block, kept)).collect::<String>();
    count(&kept)
}

/// The numbers of threads and cores of the same socket are those of what is left.
fn recount(block: &str, kept: &[&str]) -> String {
    let socket = number(block, "physical id");
    let same =
        || kept.iter().filter(|one| socket.is_some() && number(one, "physical id") == socket);
    let cores: BTreeSet<Option<u32>> = same().map(|one| number(one, "core id")).collect();
    let mut text = String::new();
    for line in block.lines() {
        let count = match line.split_once(':').map(|(key, _)| key.trim()) {
            Some("siblings") if socket.is_some() => Some(same().count()),
            Some("cpu cores") if socket.is_some() => Some(cores.len()),
            _ => None,
        };
        match (count, line.split_once(':')) {
            (Some(count), Some((key, _))) => text += &format!("{key}: {count}\n"),
            _ => text += &format!("{line}\n"),
        }
    }
    text + "\n"
}

fn number(block: &str, key: &str) -> Option<u32> {
    let line = block
        .lines()
        .find(|line| line.split_once(':').is_some_and(|(found, _)| found.trim() == key))?;
    line.split_once(':')?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_more_than_the_limit() {
        let meminfo = "MemTotal:       24684084 kB\nMemFree:         1630146 kB\n\
                       MemAvailable:   23523500 kB\nSwapTotal:       1000000 kB\nSwapFree:         999999 kB\n\
                       VmallocTotal:   34359738367 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n";
        assert_eq!(total(meminfo), Some(24_684_084));
        let limited = limit_memory(meminfo, 2_097_152);
        assert_eq!(
            limited,
            "MemTotal:        2097152 kB\nMemFree:         1630146 kB\n\
             MemAvailable:    2097152 kB\nSwapTotal:             0 kB\nSwapFree:              0 kB\n\
             VmallocTotal:   34359738367 kB\nHugePages_Total:       0\nHugepagesize:       2048 kB\n"
        );
        assert_eq!(limit_memory(&limited, 2_097_152), limited);
        let of_node = "Node 0 MemTotal:       24684084 kB\nNode 0 MemFree:        16301468 kB\n";
        assert_eq!(total(of_node), Some(24_684_084));
        assert_eq!(
            limit_memory(of_node, 1024),
            "Node 0 MemTotal:           1024 kB\nNode 0 MemFree:            1024 kB\n"
        );
    }

    fn processor(number: u32, socket: u32, core: u32) -> String {
        format!(
            "processor\t: {number}\nphysical id\t: {socket}\nsiblings\t: 4\ncore id\t\t: {core}\n\
             cpu cores\t: 2\npower management:\n\n"
        )
    }

    #[test]
    fn processors_that_are_left_are_counted_anew() {
        let all: String =
            (0..8).map(|number| processor(number, number / 4, number % 4 / 2)).collect();
        let left = keep_processors(&all, &Cpus::from([0, 1, 2]));
        let expected: String = (0..3).map(|number| processor(number, 0, number / 2)).collect();
        assert_eq!(left, expected.replace("siblings\t: 4", "siblings\t: 3"));
        // As on arm64: no sockets, and a block of the board.
        let arm = "processor\t: 0\nBogoMIPS\t: 50.00\n\nprocessor\t: 1\nBogoMIPS\t: 50.00\n\nHardware\t: x\n";
        let left = keep_processors(arm, &Cpus::from([1]));
        assert_eq!(left, "processor\t: 1\nBogoMIPS\t: 50.00\n\nHardware\t: x\n\n");
    }
}
