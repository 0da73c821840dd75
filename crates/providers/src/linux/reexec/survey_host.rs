//! Needs that are looked at rather than tried: limits, space, and what others have set up on the host.

use std::process::{Command, Stdio};

use bivouac_spec::Problem;
use bivouac_spec::facts::{Facts, Need, Outcome};
use bivouac_spec::quantity::Bytes;
use bivouac_sys::sysctl;

use super::super::{inotify, passage};
use super::survey::{met, unfit};

/// Enough for a cluster of one node and its images.
const DISK: Bytes = Bytes(2 << 30);

/// Enough for the programs of one node.
const MEMORY: Bytes = Bytes(1 << 30);

/// Below this, a kubelet and a container runtime run out of open files with few pods.
const OPEN_FILES: u64 = 4096;

/// Each node takes a few dozen, and all nodes of a machine share them.
const INOTIFY_INSTANCES: u64 = 512;

/// Each node has some hundred processes and threads.
const PIDS: u64 = 4096;

pub(super) fn needs(facts: &Facts, open_files: u64) -> Vec<Need> {
    let mut needs = vec![
        space(facts),
        limit("open files", open_files, OPEN_FILES, "raise the hard limit with `ulimit -Hn 65536`"),
        inotify_instances(),
        parameter("process numbers", "kernel.pid_max", PIDS),
        kmsg(),
    ];
    if facts.memory < MEMORY {
        let problem = unfit("memory", format!("the machine has {} of memory", facts.memory));
        let outcome = Outcome::Limited(problem.help("use a machine with at least 1GiB"));
        needs.push(Need { name: "have enough memory".to_owned(), outcome });
    }
    needs
}

fn space(facts: &Facts) -> Need {
    let name = "have free disk space";
    if facts.disk_free >= DISK {
        return met(name, format!("{} GiB", facts.disk_free.0 >> 30));
    }
    let message = format!("only {} MiB are free where nodes are kept", facts.disk_free.0 >> 20);
    let problem = unfit("disk", message).help("free at least 2 GiB, or set another state folder");
    Need { name: name.to_owned(), outcome: Outcome::Limited(problem) }
}

fn limit(what: &str, have: u64, wanted: u64, help: &str) -> Need {
    let name = format!("have enough {what}");
    if have >= wanted {
        return met(&name, have.to_string());
    }
    let message = format!("there are only {have} {what}, {wanted} are recommended");
    let problem = unfit("limit", message).help(help);
    Need { name, outcome: Outcome::Limited(problem) }
}

fn parameter(what: &str, parameter: &str, wanted: u64) -> Need {
    let value = sysctl::read(parameter).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let help = format!("raise it with `sysctl -w {parameter}={}`", wanted.max(8192));
    limit(what, value.unwrap_or(u64::MAX), wanted, &help)
}

/// Raised while there are clusters, where that is permitted.
fn inotify_instances() -> Need {
    let name = "fs.inotify.max_user_instances";
    if inotify::can_be_set(name) {
        let now = sysctl::read(name).unwrap_or_default();
        return met(
            "have enough inotify instances",
            format!("{now}; more while there are clusters"),
        );
    }
    parameter("inotify instances", name, INOTIFY_INSTANCES)
}

fn kmsg() -> Need {
    let name = "see the kernel's log";
    if std::path::Path::new("/dev/kmsg").exists() {
        return met(name, "/dev/kmsg");
    }
    let problem =
        unfit("no_kmsg", "there is no /dev/kmsg, from which nodes learn that memory ran out")
            .help("make it with `mknod /dev/kmsg c 1 11`");
    Need { name: name.to_owned(), outcome: Outcome::Limited(problem) }
}

/// Whether packets of nodes get through chains of others. The provider opens those that it can.
pub(super) fn forwarding() -> Need {
    let name = "forward packets of nodes";
    let dropping = match passage::dropping() {
        Ok(dropping) => dropping,
        Err(problem) => return Need { name: name.to_owned(), outcome: Outcome::Limited(problem) },
    };
    let closed = dropping.iter().find(|one| !one.opens).map(|one| {
        let chain = &one.chain;
        let links = chain.links();
        if one.owned {
            let problem = forward_dropped(&chain.to_string());
            return problem.help(format!(
                "let the program that made it accept packets from and to the interfaces {links}: nobody else can change it"
            ));
        }
        let commands = ["oifname", "iifname"]
            .map(|key| format!("`nft insert rule {chain} {key} \"{links}\" accept`"));
        forward_dropped(&chain.to_string()).help(by_commands(&commands))
    });
    if let Some(problem) = closed.or_else(legacy) {
        return Need { name: name.to_owned(), outcome: Outcome::Limited(problem) };
    }
    let chains: Vec<String> = dropping.iter().map(|one| format!("`{}`", one.chain)).collect();
    match &chains[..] {
        [] => met(name, "nobody drops them"),
        [one] => met(name, format!("{one} drops them; bridges of clusters are let through")),
        _ => met(
            name,
            format!("{} drop them; bridges of clusters are let through", chains.join(", ")),
        ),
    }
}

fn forward_dropped(chain: &str) -> Problem {
    let bridged =
        sysctl::read("net.bridge.bridge-nf-call-iptables").is_ok_and(|value| value == "1");
    let what =
        if bridged { "between nodes and to the outside world" } else { "to the outside world" };
    unfit("forward_dropped", format!("the host's chain `{chain}` may drop what nodes send {what}"))
}

fn by_commands([to, from]: &[String; 2]) -> String {
    format!("let it pass with {to} and {from}")
}

/// What `iptables-legacy` made, which `nft` neither sees nor changes.
fn legacy() -> Option<Problem> {
    // The command makes the table where there is none.
    let tables = std::fs::read_to_string("/proc/self/net/ip_tables_names").ok()?;
    if !tables.lines().any(|table| table == "filter") {
        return None;
    }
    let output = Command::new("iptables-legacy-save")
        .args(["-t", "filter"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let chain = legacy_chain(&String::from_utf8_lossy(&output.ok()?.stdout))?;
    let commands =
        ["-o", "-i"].map(|way| format!("`iptables-legacy -I {chain} {way} bv-+ -j ACCEPT`"));
    Some(forward_dropped("FORWARD of iptables-legacy").help(by_commands(&commands)))
}

/// The chain for the rules that are needed, if any are: where packets are dropped, and no rule for all bridges of ours is there.
fn legacy_chain(saved: &str) -> Option<&'static str> {
    let has = |start: &str| saved.lines().any(|line| line.starts_with(start));
    // Where Docker leaves room for rules of others.
    let chain = if has("-A FORWARD -j DOCKER-USER") { "DOCKER-USER" } else { "FORWARD" };
    let is_open = ["-i", "-o"].iter().all(|way| has(&format!("-A {chain} {way} bv-+ -j ACCEPT")));
    (has(":FORWARD DROP") && !is_open).then_some(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_chains_that_drop_are_found() {
        let saved = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [1:60]\n:OUTPUT ACCEPT [0:0]\n";
        assert_eq!(legacy_chain(saved), Some("FORWARD"));
        assert_eq!(legacy_chain(&saved.replace("FORWARD DROP", "FORWARD ACCEPT")), None);
        let docker = format!("{saved}:DOCKER-USER - [0:0]\n-A FORWARD -j DOCKER-USER\n");
        assert_eq!(legacy_chain(&docker), Some("DOCKER-USER"));
        let half = format!("{docker}-A DOCKER-USER -o bv-+ -j ACCEPT\n");
        assert_eq!(legacy_chain(&half), Some("DOCKER-USER"));
        assert_eq!(legacy_chain(&format!("{half}-A DOCKER-USER -i bv-+ -j ACCEPT\n")), None);
    }
}
