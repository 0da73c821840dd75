//! Making a node that runs what it is to be now.
//!
//! ```text
//! memory in use ─▶ record: being changed ─▶ config and ground delivered ─▶ limits ─▶ bivouac agent apply ─▶ record: as wanted
//! ```
//!
//! Whatever ends it on the way, the record differs from what is wanted, and the next call does all of it again. What a container
//! keeps for its whole life is changed by making another around the same data.

use bivouac_spec::cluster::Resources;
use bivouac_spec::facts::Aspect;
use bivouac_spec::node::NodeStatus;
use bivouac_spec::node::stream::Answer;
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{NodeRecord, Problem};
use bollard::models::{ContainerInspectResponse, ContainerUpdateBody, HostConfig, SystemInfo};
use futures::future::BoxFuture;
use tokio::io::AsyncReadExt as _;

use super::create::Making;
use super::exec::{Manner, Room, localized};
use super::names;
use super::node::ended;
use super::problem::{OrProblem as _, failed};
use super::record::{Records, unfinished};
use crate::{UNREADABLE, memory};

/// What a container keeps for its whole life.
pub(super) const REMAKES_FOR: [Aspect; 2] = [Aspect::Image, Aspect::Ports];

/// What must be done to a node that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is what it is to be.
    None,
    /// It runs on and takes what is new.
    InPlace,
    /// Another container takes its place.
    Remake,
}

/// What makes a node with this record, if it has one, the one that is wanted.
pub(super) fn change(record: Option<&NodeRecord>, wanted: &NodeRecord) -> Change {
    let Some(record) = record else { return Change::Remake };
    let differences = record.differences(wanted);
    if differences.is_empty() {
        Change::None
    } else if differences.iter().any(|aspect| REMAKES_FOR.contains(aspect)) {
        Change::Remake
    } else {
        Change::InPlace
    }
}

impl Making<'_> {
    fn records(&self) -> Records<'_> {
        Records { engine: self.engine, provider: self.provider, request: self.request }
    }

    /// What must be done to the node's container, which runs.
    pub(super) async fn change(
        &self,
        container: &ContainerInspectResponse,
    ) -> Result<Change, Problem> {
        let labels = container.config.as_ref().and_then(|config| config.labels.as_ref());
        let id = container.id.as_deref().unwrap_or_default();
        let record = self.records().read(id, labels).await?;
        Ok(change(record.as_ref(), &self.request.record()))
    }

    /// Forgets what the container was changed to, before another one takes its place.
    pub(super) async fn forget_changes(&self) -> Result<(), Problem> {
        self.records().clear().await
    }

    /// Changes the node's container, which runs on. `deliver` brings the new config and ground to their places in it. `false` if the
    /// node's agent is too old for them: then another container must take its place.
    pub(super) async fn update(
        &self,
        container: &ContainerInspectResponse,
        deliver: BoxFuture<'_, Result<(), Problem>>,
    ) -> Result<bool, Problem> {
        let (records, wanted) = (self.records(), self.request.record());
        let id = container.id.as_deref().unwrap_or_default();
        self.check_memory(container).await?;
        records.write(id, &unfinished(&wanted)).await?;
        deliver.await?;
        self.limit(container).await?;
        if !self.room().apply().await? {
            return Ok(false);
        }
        records.write(id, &wanted).await.map(|()| true)
    }

    /// The node's container as a room.
    pub(super) fn room(&self) -> Room {
        let (cluster, node) = (&self.request.cluster, &self.request.node);
        let container = names::node(cluster, node);
        Room { docker: self.engine.docker.clone(), container, node: node.clone() }
    }

    /// Refuses less memory than the node uses: where the kernel does not refuse it, it ends processes until it holds.
    async fn check_memory(&self, container: &ContainerInspectResponse) -> Result<(), Problem> {
        let before = container.host_config.as_ref().and_then(|host| host.memory);
        let Some(limit) = lowered(self.request.resources, before) else { return Ok(()) };
        let used = self.room().memory_in_use().await?;
        memory::check("docker", self.request.node.as_str(), Some(limit), used)
    }

    async fn limit(&self, container: &ContainerInspectResponse) -> Result<(), Problem> {
        let message = format!("the limits of node {} cannot be changed", self.request.node);
        let info = self.engine.info().await.or_problem("limits", &message)?;
        let before = container.host_config.clone().unwrap_or_default();
        let Some(body) = limits(self.request.resources, &before, info) else { return Ok(()) };
        let id = container.id.as_deref().unwrap_or_default();
        self.engine.docker.update_container(id, body).await.or_problem("limits", message)
    }
}

/// The limit of memory, if it is a lower one than before, when there may have been none.
fn lowered(wanted: Resources, before: Option<i64>) -> Option<Bytes> {
    let before = before.and_then(|before| u64::try_from(before).ok()).filter(|before| *before > 0);
    wanted.memory.filter(|wanted| before.is_none_or(|before| wanted.0 < before))
}

/// The limits that an engine is asked for. It takes none away again: then they become all that its machine has.
fn limits(
    wanted: Resources,
    before: &HostConfig,
    machine: &SystemInfo,
) -> Option<ContainerUpdateBody> {
    let is_set = |limit: Option<i64>| limit.is_some_and(|limit| limit > 0);
    let cpus = wanted.cpus.map(|cpus| i64::from(cpus.0) * 1_000_000);
    let nano_cpus = cpus
        .or_else(|| machine.ncpu.filter(|_| is_set(before.nano_cpus)).map(|n| n * 1_000_000_000));
    let memory = wanted.memory.and_then(|memory| i64::try_from(memory.0).ok());
    let memory = memory.or_else(|| machine.mem_total.filter(|_| is_set(before.memory)));
    let body = ContainerUpdateBody {
        nano_cpus,
        memory,
        // The same, so that there is no swap on top of it.
        memory_swap: memory,
        ..ContainerUpdateBody::default()
    };
    (body != ContainerUpdateBody::default()).then_some(body)
}

impl Room {
    /// Makes the agent take the config that was put in place. `false` if it is of a version that cannot read it.
    async fn apply(&self) -> Result<bool, Problem> {
        let message = format!("node {} does not take its new config", self.node);
        match self.ask("apply", &message).await {
            Ok(_) => Ok(true),
            Err(problem) if problem.code == UNREADABLE => Ok(false),
            Err(problem) => Err(problem),
        }
    }

    /// Bytes of memory that the node uses and that cannot be taken from it. `None` where nobody counts, or its agent tells nothing of
    /// it.
    async fn memory_in_use(&self) -> Result<Option<u64>, Problem> {
        let message = format!("node {} does not tell how much memory it uses", self.node);
        let shown = self.ask("status", &message).await?;
        let status: NodeStatus = serde_json::from_str(&shown).or_problem("status", message)?;
        Ok(status.usage.and_then(|usage| usage.memory))
    }

    /// Runs a command of the agent to its end, and gives what it shows.
    async fn ask(&self, command: &str, message: &str) -> Result<String, Problem> {
        let manner = Manner { answers: false, input: false };
        let mut running = self.run([command.to_owned()], manner).await?;
        let (mut said, mut shown) = (String::new(), String::new());
        let read = futures::join!(
            running.stderr.read_to_string(&mut said),
            running.stdout.read_to_string(&mut shown)
        );
        read.0.and(read.1).or_problem(command, message)?;
        if ended(running.end).await? == 0 {
            return Ok(shown);
        }
        match said.lines().find_map(Answer::parse) {
            Some(Answer::Problem(problem)) => Err(localized(problem)),
            _ => {
                let mut problem = failed(command, message);
                problem.causes.push(said.trim().to_owned());
                Err(problem)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;
    use bivouac_spec::quantity::Cpus;

    #[test]
    fn only_what_a_container_keeps_makes_another() {
        let request = samples::node();
        let record = request.record();
        let after = |edit: &dyn Fn(&mut bivouac_provider::NodeRequest)| {
            let mut wanted = request.clone();
            edit(&mut wanted);
            change(Some(&record), &wanted.record())
        };
        assert_eq!(after(&|_| ()), Change::None);
        assert_eq!(after(&|it| it.config.modules.push("x".to_owned())), Change::InPlace);
        assert_eq!(after(&|it| it.resources.memory = None), Change::InPlace);
        assert_eq!(after(&|it| it.addresses = crate::samples::addresses(2)), Change::InPlace);
        assert_eq!(after(&|it| it.image.key = "other".to_owned()), Change::Remake);
        assert_eq!(after(&|it| it.ports.clear()), Change::Remake);
        assert_eq!(change(Some(&unfinished(&record)), &record), Change::InPlace);
        assert_eq!(change(None, &record), Change::Remake);
    }

    #[test]
    fn only_less_memory_than_before_is_asked_about() {
        let wanted =
            |memory: Option<u64>| Resources { memory: memory.map(Bytes), ..Resources::default() };
        for (memory, before, asked) in [
            (None, Some(4), None),
            (Some(4), Some(4), None),
            (Some(5), Some(4), None),
            (Some(3), Some(4), Some(3)),
            (Some(3), Some(0), Some(3)),
            (Some(3), None, Some(3)),
        ] {
            assert_eq!(lowered(wanted(memory), before), asked.map(Bytes));
        }
    }

    #[test]
    fn a_limit_that_is_taken_away_becomes_the_machine_s() {
        let machine =
            SystemInfo { ncpu: Some(4), mem_total: Some(8 << 30), ..SystemInfo::default() };
        let none = Resources::default();
        assert_eq!(limits(none, &HostConfig::default(), &machine), None);
        let some = Resources { cpus: Some(Cpus(1500)), memory: Some(Bytes(1 << 30)), disk: None };
        let body = limits(some, &HostConfig::default(), &machine).unwrap();
        assert_eq!((body.nano_cpus, body.memory), (Some(1_500_000_000), Some(1 << 30)));
        assert_eq!(body.memory_swap, body.memory);
        let before =
            HostConfig { nano_cpus: body.nano_cpus, memory: body.memory, ..Default::default() };
        let body = limits(none, &before, &machine).unwrap();
        assert_eq!((body.nano_cpus, body.memory), (Some(4_000_000_000), Some(8 << 30)));
        assert_eq!(body.memory_swap, body.memory);
    }
}
