//! Nodes that lose their first process, and what the ground does then.

use std::path::Path;

use crate::{Cluster, Provider, Run, SOON, wait_until};

impl Cluster<'_> {
    /// Kills the agent of a node from outside, as `kill -9`. A node of `linux` is stopped then; an engine starts it again.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_agent(&self, node: &str) {
        self.kill_agents([node]);
    }

    /// The same of several nodes, at the same moment.
    ///
    /// # Panics
    /// When one of them does not run.
    pub fn kill_agents<'a>(&self, nodes: impl IntoIterator<Item = &'a str>) {
        let pid = |node: &str| first_process(self.name(), node).expect("the node runs").to_string();
        let pids: Vec<String> = nodes.into_iter().map(pid).collect();
        let _ = Run::new("kill").args(["-9"]).args(&pids).success();
    }

    /// Whether a node whose agent is killed is started again by its ground.
    #[must_use]
    pub const fn revives_nodes(&self) -> bool {
        match self.setting().provider {
            Provider::Linux => false,
            Provider::Docker | Provider::Compose => true,
        }
    }

    /// Stops a node from outside, at once, and waits until that is seen.
    ///
    /// # Panics
    /// When it does not stop.
    pub fn stop_node(&self, node: &str) {
        match self.setting().provider {
            Provider::Linux => self.kill_agent(node),
            Provider::Docker | Provider::Compose => {
                let _ = self.ground().engine().docker(["kill", &self.container(node)]).success();
            }
        }
        wait_until("the node is seen to be stopped", SOON, || {
            let state = self.status()["nodes"][node]["state"].clone();
            if state == "stopped" { Ok(()) } else { Err(format!("{state}")) }
        });
    }

    /// Kills the agent of a node of `linux`, and waits until that is seen.
    ///
    /// # Panics
    /// When it does not run, or runs on.
    pub fn end_agent(&self, node: &str) {
        self.kill_agent(node);
        wait_until("the node is seen to be stopped", SOON, || {
            let state = self.status()["nodes"][node]["state"].clone();
            if state == "running" { Err(format!("{state}")) } else { Ok(()) }
        });
    }

    /// Takes a node away from outside with all that it had, as when the disk of a machine is lost.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn lose_node(&self, node: &str) {
        match self.setting().provider {
            Provider::Linux => {
                self.end_agent(node);
                let path = format!("linux/{}/nodes/{node}", self.name());
                let folder = self.ground().state().join(path);
                assert!(folder.is_dir(), "nodes are not in {} any more", folder.display());
                let _ = Run::new("rm").args(["-rf"]).args([&folder]).success();
            }
            Provider::Docker | Provider::Compose => {
                let (engine, container) = (self.ground().engine(), self.container(node));
                let _ = engine.docker(["rm", "--force", "--volumes", &container]).success();
                let [cluster, node] = self.labels(node);
                for volume in engine.lines(["volume", "ls", "--quiet", &cluster, &node]) {
                    let _ = engine.docker(["volume", "rm", &volume]).success();
                }
            }
        }
    }

    /// Takes away what a node is made of, but for its data: its container, or what is recorded of it.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn lose_all_but_data(&self, node: &str) {
        match self.setting().provider {
            Provider::Linux => {
                self.end_agent(node);
                let path = format!("linux/{}/nodes/{node}/node.json", self.name());
                let record = self.ground().state().join(path);
                std::fs::write(&record, "{}").expect("the record of a node is there");
            }
            Provider::Docker | Provider::Compose => {
                let container = self.container(node);
                let _ = self.ground().engine().docker(["rm", "--force", &container]).success();
            }
        }
    }

    /// What `docker` finds the things of a node by.
    fn labels(&self, node: &str) -> [String; 2] {
        [("cluster", self.name()), ("node", node)]
            .map(|(key, value)| format!("--filter=label=dev.bivouac.{key}={value}"))
    }

    /// The container that is a node.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[must_use]
    #[track_caller]
    pub fn container(&self, node: &str) -> String {
        let [of_cluster, of_node] = self.labels(node);
        let list = ["ps", "--all", "--quiet", "--no-trunc", &of_cluster, &of_node];
        let found = self.ground().engine().lines(list);
        let [container] = &found[..] else { panic!("node {node} is these containers: {found:?}") };
        container.clone()
    }

    /// Waits until `status` finds the cluster usable.
    ///
    /// # Panics
    /// When that does not come, with its status.
    #[track_caller]
    pub fn wait_until_usable(&self) {
        wait_until("the cluster is usable", SOON, || {
            let status = self.status();
            if status["usable"] == true { Ok(()) } else { Err(format!("{status:#}")) }
        });
    }
}

/// The first process of a node in the host's numbering: the agent, which says on its command line whose it is.
fn first_process(cluster: &str, node: &str) -> Option<u32> {
    let label = format!("{cluster}/{node}");
    let processes = std::fs::read_dir("/proc").expect("/proc is there").flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(|pid: &u32| {
        let command = std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"))
            .unwrap_or_default();
        command.split(|byte| *byte == 0).any(|word| word == label.as_bytes())
    })
}
