//! The status of the node, and who is told of it: every change at once, but not more often than every few milliseconds.

use std::os::fd::OwnedFd;
use std::time::Duration;

use bivouac_spec::node::config::FORMAT;
use bivouac_spec::node::status::{NodePhase, NodeStatus};
use bivouac_spec::{NodeConfig, Problem};

use super::server::{Newest, Server};
use super::usage;
use crate::clock::milliseconds;
use crate::config::Identity;
use crate::machine::Machine;
use crate::protocol::Reply;

/// Changes within this time are told together.
const QUIET: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) identity: Identity,
    pub(super) server: Server,
    pub(super) warnings: Vec<String>,
    pub(super) problems: Vec<Problem>,
    pub(super) stops: bool,
    /// Another config is being applied.
    pub(super) applies: bool,
    /// What was published, with its uptime left out, as a line, and its number.
    shown: Option<NodeStatus>,
    line: String,
    version: u64,
    published: Duration,
    due: Option<Duration>,
}

impl Publisher {
    pub(super) fn new(identity: Identity, server: Server) -> Self {
        Self {
            identity,
            server,
            warnings: Vec::new(),
            problems: Vec::new(),
            stops: false,
            applies: false,
            shown: None,
            line: String::new(),
            version: 0,
            published: Duration::ZERO,
            due: None,
        }
    }

    /// Another config is being applied from now on.
    pub(super) fn begin(&mut self, identity: Identity) {
        self.identity = identity;
        self.problems.clear();
        self.applies = true;
    }

    /// A config of a node that does nothing, for one that cannot be read.
    pub(super) fn empty_config(&self) -> NodeConfig {
        NodeConfig {
            format: FORMAT,
            cluster: self.identity.cluster.clone(),
            node: self.identity.node.clone(),
            modules: Vec::new(),
            sysctls: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            services: Vec::new(),
            tasks: Vec::new(),
            conditions: Vec::new(),
        }
    }

    /// When [`Self::publish`] is wanted next, whatever happens.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.due
    }

    /// Tells of a change unless the last one was just told; then soon.
    pub(super) fn publish(&mut self, machine: &Machine, now: Duration, poll: &OwnedFd) {
        let rested = self.version == 0 || now >= self.published + QUIET;
        if rested {
            self.publish_now(machine, now, poll);
        } else if self.due.is_none() {
            self.due = Some(self.published + QUIET);
        }
    }

    pub(super) fn publish_now(&mut self, machine: &Machine, now: Duration, poll: &OwnedFd) {
        self.due = None;
        if self.renew(machine, now) {
            self.published = now;
            let newest = Newest { line: &self.line, version: self.version };
            self.server.publish(newest, poll);
        }
    }

    pub(super) fn answer(
        &mut self,
        client: u64,
        follow: bool,
        machine: &Machine,
        now: Duration,
        poll: &OwnedFd,
    ) {
        let changed = self.renew(machine, now);
        let newest = Newest { line: &self.line, version: self.version };
        if changed {
            self.server.publish(newest, poll);
        }
        // Uptime and usage are those of now, even if nothing else changed.
        let status = NodeStatus { usage: usage::now(), ..self.status(machine, milliseconds(now)) };
        let line = render(&status);
        self.server.send_status(client, follow, Newest { line: &line, ..newest }, poll);
    }

    /// Answers a client; with `stays` it may ask for more.
    pub(super) fn reply(&mut self, client: u64, reply: &Reply, stays: bool, poll: &OwnedFd) {
        let newest = Newest { line: &self.line, version: self.version };
        self.server.send(client, reply, stays, newest, poll);
    }

    pub(super) fn flush(&mut self, client: u64, poll: &OwnedFd) {
        let newest = Newest { line: &self.line, version: self.version };
        self.server.flush(client, newest, poll);
    }

    /// Renders the status anew if it changed.
    fn renew(&mut self, machine: &Machine, now: Duration) -> bool {
        let mut status = self.status(machine, 0);
        if self.shown.as_ref() == Some(&status) {
            return false;
        }
        self.shown = Some(status.clone());
        status.uptime = milliseconds(now);
        self.line = render(&status);
        self.version += 1;
        true
    }

    fn status(&self, machine: &Machine, uptime: u64) -> NodeStatus {
        let phase = match machine.phase() {
            _ if self.stops => NodePhase::Stopping,
            _ if self.applies => NodePhase::Applying,
            _ if !self.problems.is_empty() => NodePhase::Failed,
            phase => phase,
        };
        NodeStatus {
            cluster: self.identity.cluster.clone(),
            node: self.identity.node.clone(),
            config: self.identity.config.clone(),
            phase,
            uptime,
            units: machine.status(),
            warnings: self.warnings.clone(),
            problems: self.problems.clone(),
            usage: None,
        }
    }
}

fn render(status: &NodeStatus) -> String {
    let mut line = serde_json::to_string(status).expect("a status has string keys only");
    line.push('\n');
    line
}
