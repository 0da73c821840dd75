//! What an engine changes on the host and never takes back: its chains, the policy of forwarding, the switch of forwarding, its
//! control groups.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Run;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const GROUPS: &str = "/sys/fs/cgroup";

/// The host before an engine.
#[derive(Debug)]
pub(super) struct Firewall {
    tables: BTreeSet<String>,
    rules: String,
    forwarding: String,
}

impl Firewall {
    pub(super) fn take() -> Self {
        let forwarding = fs::read_to_string(FORWARDING).expect("the kernel knows IPv4");
        let rules = Run::new("iptables-save").success().stdout();
        Self { tables: tables(), rules, forwarding }
    }

    /// Puts back what was there.
    pub(super) fn restore(&self) {
        let _ = Run::new("iptables-restore").input(self.rules.clone()).success();
        for table in tables().difference(&self.tables) {
            let of_engine = table.ends_with(" filter") || table.ends_with(" nat");
            if of_engine {
                let _ = Run::new("nft").args(["delete", "table"]).args(table.split(' ')).success();
            }
        }
        fs::write(FORWARDING, &self.forwarding).expect("root can write kernel parameters");
        let controllers = fs::read_dir(GROUPS).into_iter().flatten().flatten();
        for group in controllers
            .map(|entry| entry.path().join("docker"))
            .chain([Path::new(GROUPS).join("docker")])
        {
            // Another engine's has groups in it and stays.
            let _ = fs::remove_dir(group);
        }
    }
}

/// The nftables tables, as `ip filter`.
fn tables() -> BTreeSet<String> {
    let listed = Run::new("nft").args(["list", "tables"]).success().stdout();
    listed.lines().filter_map(|line| line.strip_prefix("table ")).map(str::to_owned).collect()
}
