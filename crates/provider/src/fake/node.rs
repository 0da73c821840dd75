//! A node in memory.

use std::io;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use bivouac_spec::name::nearest;
use bivouac_spec::{ClusterName, NodeName, Problem};
use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::AsyncReadExt as _;

use super::{Fake, FakeState, Files, World, program};
use crate::{ExecRequest, LogRequest, Node, Process, Reader};

/// A handle on a node in memory.
#[derive(Debug, Clone)]
pub(super) struct FakeNode {
    pub(super) fake: Fake,
    pub(super) cluster: ClusterName,
    pub(super) name: NodeName,
    pub(super) address: IpAddr,
}

impl FakeNode {
    fn call<T>(
        &self,
        verb: &str,
        effect: impl FnOnce(&mut FakeState) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        self.fake.call(&format!("{verb} {}/{}", self.cluster, self.name), |world| {
            effect(self.state(world)?)
        })
    }

    fn state<'a>(&self, world: &'a mut World) -> Result<&'a mut FakeState, Problem> {
        world.node(&self.cluster, &self.name).ok_or_else(|| {
            let message = format!("cluster {} has no node {}", self.cluster, self.name);
            Problem::usage("provider.fake.no_node", message)
        })
    }

    /// All files. No call: a program of the node reads them.
    pub(super) fn files(&self) -> Files {
        let mut world = self.fake.world();
        self.state(&mut world).map(|state| state.files.clone()).unwrap_or_default()
    }

    /// Puts files in place of those that are in the folders. No call, as above.
    pub(super) fn replace(
        &self,
        folders: &[Utf8PathBuf],
        files: Vec<(Utf8PathBuf, u32, Vec<u8>)>,
    ) -> Result<(), Problem> {
        let mut world = self.fake.world();
        let state = self.state(&mut world)?;
        if !state.request.config.services.is_empty() {
            let message = format!("services run in node {}", self.name);
            return Err(Problem::failed("provider.fake.not_bare", message));
        }
        let is_asked = |path: &Utf8Path| folders.iter().any(|folder| path.starts_with(folder));
        state.files.retain(|path, _| !is_asked(path));
        let files = files.into_iter().filter(|(path, ..)| is_asked(path));
        state.files.extend(files.map(|(path, mode, content)| (path, (mode, content))));
        Ok(())
    }

    /// The state, if the node runs.
    fn running<'a>(&self, state: &'a mut FakeState) -> Result<&'a mut FakeState, Problem> {
        if state.pid.is_some() {
            return Ok(state);
        }
        let message = format!("node {} of cluster {} does not run", self.name, self.cluster);
        Err(Problem::failed("provider.fake.not_running", message))
    }
}

#[async_trait]
impl Node for FakeNode {
    fn name(&self) -> &NodeName {
        &self.name
    }

    fn address(&self) -> IpAddr {
        self.address
    }

    async fn exec(&self, request: &ExecRequest) -> Result<Process, Problem> {
        let state = self.call("exec", |state| self.running(state).cloned())?;
        program::start(self, &state.request.config, request)
    }

    async fn put(&self, path: &Utf8Path, mode: u32, mut content: Reader) -> Result<(), Problem> {
        let mut bytes = Vec::new();
        let read = content.read_to_end(&mut bytes).await;
        read.map_err(|error| {
            let message = format!("what {path} is to hold cannot be read");
            Problem::failed("provider.fake.put", message).because(&error)
        })?;
        self.call("put", |state| {
            self.running(state)?.files.insert(path.to_owned(), (mode, bytes));
            Ok(())
        })
    }

    async fn get(&self, path: &Utf8Path) -> Result<Reader, Problem> {
        let bytes = self.call("get", |state| {
            let file = self.running(state)?.files.get(path);
            file.map(|(_, bytes)| bytes.clone()).ok_or_else(|| {
                let message = format!("{path} of node {} cannot be read", self.name);
                Problem::failed("provider.fake.get", message)
            })
        })?;
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    async fn logs(&self, request: &LogRequest) -> Result<Reader, Problem> {
        let log = self.call("logs", |state| {
            let wanted = request.service.as_deref().unwrap_or("agent");
            if wanted == "agent" {
                return Ok(state.log.clone());
            }
            let message = format!("node {} has no log of `{wanted}`", self.name);
            let near = nearest(wanted, ["agent"]).unwrap_or("agent");
            Err(Problem::usage("provider.fake.no_log", message).help(format!("ask for `{near}`")))
        })?;
        let lines: Vec<&str> = log.split_inclusive('\n').collect();
        let first = request.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
        let bytes = io::Cursor::new(lines[first..].concat().into_bytes());
        // A log that is followed goes on for ever, here without anything more.
        Ok(if request.follow { Box::new(bytes.chain(program::silence())) } else { Box::new(bytes) })
    }

    async fn forward(&self, port: u16) -> Result<SocketAddr, Problem> {
        self.call("forward", |state| {
            self.running(state)?;
            Ok(SocketAddr::new(self.address, port))
        })
    }
}
