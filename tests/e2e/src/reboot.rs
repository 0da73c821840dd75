//! What a restart of the host takes from a cluster of `linux`, done to that cluster alone.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Cluster, Ground, HostSnapshot, Run, SOON, wait_until};

/// What is not taken away: folders; and what belongs to the host, or may be in tables of others.
const LEFT: [&str; 4] = ["files", "temporary files", "parameters", "nftables rules"];

impl Cluster<'_> {
    /// Takes away at once all that a restart of the host takes away: processes, links, rules, control groups. Folders stay.
    /// `before` is the host without the cluster.
    ///
    /// # Panics
    /// When anything but folders is left then.
    pub fn lose_power(&self, before: &HostSnapshot) {
        let status = self.status();
        let nodes = status["nodes"].as_object().into_iter().flat_map(|nodes| nodes.keys());
        self.kill_agents(nodes.map(String::as_str));
        wait_until("no link of the cluster is left", SOON, || {
            let links = self.links();
            for link in &links {
                // It may go by itself, with the namespace at its other end.
                let _ = Run::new("ip").args(["link", "delete", link]).outcome();
            }
            if links.is_empty() { Ok(()) } else { Err(format!("{links:?}")) }
        });
        let table = format!("bivouac-{}", self.name());
        let _ = Run::new("nft").args(["delete", "table", "inet", &table]).success();
        wait_until("no control group of the cluster is left", SOON, || {
            let mut groups = Vec::new();
            find_groups(Path::new("/sys/fs/cgroup"), self.name(), false, &mut groups);
            // Those within come after those that they are in. The one that all clusters share stays when there are others.
            let parents: Vec<_> = groups.iter().filter_map(|group| group.parent()).collect();
            let all = groups.iter().rev().map(PathBuf::as_path).chain(parents);
            all.for_each(|group| drop(std::fs::remove_dir(group)));
            if groups.is_empty() { Ok(()) } else { Err(format!("{groups:?}")) }
        });
        self.is_gone(before);
    }

    /// The cluster's links on the host: their alias says whose they are.
    fn links(&self) -> Vec<String> {
        let listed = Run::new("ip").args(["-json", "link", "show"]).success().json();
        let (whole, part) =
            (format!("bivouac:{}", self.name()), format!("bivouac:{}/", self.name()));
        let is_own = |link: &&Value| {
            link["ifalias"].as_str().is_some_and(|alias| alias == whole || alias.starts_with(&part))
        };
        let own = listed.as_array().into_iter().flatten().filter(is_own);
        own.filter_map(|link| link["ifname"].as_str()).map(str::to_owned).collect()
    }

    fn is_gone(&self, before: &HostSnapshot) {
        let ground: &Ground = self.ground();
        wait_until("the host is as after a restart", SOON, || {
            let mut left = HostSnapshot::take(ground).differences(before);
            left.retain(|line| !LEFT.iter().any(|kind| line.starts_with(&format!("{kind}: "))));
            if left.is_empty() { Ok(()) } else { Err(format!("\n{}", left.join("\n"))) }
        });
        let nodes = self.status()["nodes"].clone();
        let stopped = |node: &Value| node["state"] == "stopped";
        assert!(nodes.as_object().is_some_and(|nodes| nodes.values().all(stopped)), "{nodes:#}");
    }
}

/// The control groups of a cluster, each before those that are in it.
fn find_groups(folder: &Path, cluster: &str, is_own: bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let is_own = is_own || path.ends_with(Path::new("bivouac").join(cluster));
        if is_own {
            found.push(path.clone());
        }
        find_groups(&path, cluster, is_own, found);
    }
}
