//! Needs that are looked at rather than tried: limits, space, and what others have set up on the host.

use std::process::{Command, Stdio};

use bivouac_spec::facts::{Facts, Need, Outcome};
use bivouac_spec::quantity::Bytes;
use bivouac_sys::sysctl;

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
        parameter("inotify instances", "fs.inotify.max_user_instances", INOTIFY_INSTANCES),
        parameter("process numbers", "kernel.pid_max", PIDS),
        kmsg(),
        forwarding_policy(),
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

/// Chains of others that drop what is forwarded, as Docker's do. An `accept` in a table of ours cannot overrule them.
fn forwarding_policy() -> Need {
    let name = "forward packets of nodes";
    let output = Command::new("nft")
        .args(["list", "chains"])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let listed = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = listed.unwrap_or_default();
    let Some(chain) = dropping_chain(&text) else { return met(name, "nobody drops them") };
    // Where Docker leaves room for rules of others.
    let docker = text.contains("DOCKER-USER") && chain == "ip filter FORWARD";
    let chain = if docker { "ip filter DOCKER-USER".to_owned() } else { chain };
    let bridged =
        sysctl::read("net.bridge.bridge-nf-call-iptables").is_ok_and(|value| value == "1");
    let what =
        if bridged { "between nodes and to the outside world" } else { "to the outside world" };
    let problem = unfit("forward_dropped", format!("the host's chain `{chain}` may drop what nodes send {what}"))
        .help(format!(
            "let it pass with `nft insert rule {chain} iifname \"bv-*\" accept` and `nft insert rule {chain} oifname \"bv-*\" accept`"
        ));
    Need { name: name.to_owned(), outcome: Outcome::Limited(problem) }
}

/// The first chain at the forward hook whose policy is drop: `FAMILY TABLE CHAIN`.
fn dropping_chain(listing: &str) -> Option<String> {
    let (mut table, mut chain) = (String::new(), String::new());
    for line in listing.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("table ") {
            table = rest.trim_end_matches('{').trim().to_owned();
        } else if let Some(rest) = line.strip_prefix("chain ") {
            chain = rest.trim_end_matches('{').trim().to_owned();
        } else if line.contains("hook forward") && line.contains("policy drop") {
            return Some(format!("{table} {chain}"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropping_chain_is_found() {
        let listing = "table ip nat {\n\tchain POSTROUTING {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t}\n}\n\
                       table ip filter {\n\tchain INPUT {\n\t\ttype filter hook input priority filter; policy drop;\n\t}\n\
                       \tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        assert_eq!(dropping_chain(listing).as_deref(), Some("ip filter FORWARD"));
        assert_eq!(dropping_chain(&listing.replace("drop", "accept")), None);
    }
}
