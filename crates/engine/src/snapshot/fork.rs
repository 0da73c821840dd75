//! `fork`: a second cluster from a snapshot of the first, side by side with it.

use std::sync::Arc;
use std::time::SystemTime;

use bivouac_provider::Provider;
use bivouac_spec::facts::{Applied, ObservedState};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{
    Class, Cluster, ClusterName, Facts, NodeName, ObservedCluster, Problem, Problems, SnapshotName,
};
use bivouac_stacks::{Keys, Stack};
use tokio_util::sync::CancellationToken;

use super::copy::{Copying, Found, bring, decide};
use super::restore::refuse_without_room;
use super::save::{Source, unknown_cluster, whole_cluster};
use super::{Place, Snapshot, Snapshots, networks, ports};
use crate::events::Recording;
use crate::ground::{other_ground, refuse_elsewhere};
use crate::images::ImageChoice;
use crate::observe::node_status;
use crate::prepare::{lock_addresses, occupied};
use crate::{
    ClusterLock, ClusterState, Event, Ground, NodeImages, PrepareRequest, Prepared, Reporter,
    Restoring, StateDirectory, UpOptions, Upped,
};

/// What `fork` needs.
pub struct ForkRequest<'a> {
    /// What the second cluster is to be called.
    pub name: &'a ClusterName,
    /// The first.
    pub before: &'a ClusterName,
    /// Which of its snapshots; what it is at this moment when absent.
    pub snapshot: Option<&'a SnapshotName>,
    /// Where the first is, or was.
    pub provider: Arc<dyn Provider>,
    /// The grounds that there are, which may have a cluster of the same name.
    pub grounds: &'a [Ground],
    /// What nodes are made from.
    pub images: &'a dyn NodeImages,
    /// What is known.
    pub state: &'a StateDirectory,
}

/// Makes a second cluster of what the first is, or was when it was saved. The first goes on. Run again after any failure, it starts over.
///
/// # Errors
/// When the name is taken, there is no such cluster or snapshot, its stack cannot be forked, or there is no room: nothing is made then.
/// When a node cannot be saved, made or filled; when the cluster is not usable in time.
pub async fn fork(
    request: &ForkRequest<'_>,
    options: &UpOptions,
    reporter: &Reporter,
    cancel: &CancellationToken,
) -> Result<Upped, Problems> {
    let (name, state) = (request.name, request.state);
    let lock = state.lock(name, options.verb)?;
    let recording = Recording::begin(state, name, options.verb, reporter);
    let forking = Forking { request, options, reporter: recording.reporter(), cancel };
    let forked = forking.fork().await;
    if forked.is_err() {
        forking.forget_what_never_was().await;
    }
    recording.end(&forked);
    if forked.is_err() && !state.knows(name) {
        // Nothing of it stays. The refusal is what is told.
        let _ = lock.remove();
        state.remove_if_empty();
    }
    forked
}

struct Forking<'a> {
    request: &'a ForkRequest<'a>,
    options: &'a UpOptions,
    reporter: &'a Reporter,
    cancel: &'a CancellationToken,
}

/// What a fork is made from.
struct Origin {
    state: ClusterState,
    keys: Keys,
    /// Absent where it is still to be saved; then nobody else changes the cluster.
    snapshot: Option<Snapshot>,
    lock: Option<ClusterLock>,
}

/// What is decided of a fork.
struct Decided {
    prepared: Prepared,
    /// What a user should know.
    notes: Vec<String>,
}

impl Forking<'_> {
    async fn fork(&self) -> Result<Upped, Problems> {
        let (request, directory) = (self.request, self.request.state);
        let earlier = self.earlier()?;
        let snapshots = Snapshots::of(directory);
        let restoring = self.restoring();
        let place = restoring.place(request.name);
        let origin = self.origin(&snapshots, &place, earlier.is_some()).await?;
        let cluster = self.cluster(&origin.state);
        let stack = bivouac_stacks::open(&cluster.spec.stack);
        // Refuses early where there are no forks.
        let joining = stack.fork_joins(&origin.state.applied.cluster)?;
        let applied = Applied {
            joined: joining.clone(),
            ..Applied::new(cluster, origin.state.applied.addresses.clone())
        };
        let decided = self.decide(&origin, applied, earlier.as_ref(), stack.as_ref()).await?;
        let Decided { prepared, notes } = decided;
        let render = prepared.state.render_request();
        let steps = stack.fork(&origin.state.applied, &render)?;
        let shared = stack.fork_shares(&origin.state.applied.cluster);
        for note in notes {
            self.reporter.report(Event::Noted { note });
        }
        let snapshot = match origin.snapshot {
            Some(snapshot) => snapshot,
            None => {
                let ground = &prepared.survey.facts;
                let saved = self.save(&origin.state, &snapshots, &place, ground).await?;
                // What was saved may be on the same disk.
                let left = request.provider.survey().await?.facts;
                refuse_without_room(&self.data(), saved.size, &left)?;
                saved
            }
        };
        // The first may change again.
        drop(origin.lock);
        let making = self.making(&prepared.state.applied.cluster, stack.as_ref());
        let key = &prepared.state.image;
        let image = bring(&making, key, self.options, self.reporter, self.cancel).await?;
        let copying = Copying {
            request: &making,
            options: self.options,
            snapshots: &snapshots,
            snapshot: &snapshot,
            place: &place,
            prepared: &prepared,
            image: &image,
            shared: shared.as_ref(),
            steps: &steps,
            joining: &joining,
            reporter: self.reporter,
            cancel: self.cancel,
        };
        copying.make().await
    }

    fn making<'b>(&'b self, cluster: &'b Cluster, stack: &'b dyn Stack) -> PrepareRequest<'b> {
        PrepareRequest {
            cluster,
            provider: Arc::clone(&self.request.provider),
            grounds: self.request.grounds,
            stack,
            images: self.request.images,
            state: self.request.state,
            node_image: ImageChoice::Own,
            now: SystemTime::now(),
        }
    }

    fn restoring(&self) -> Restoring {
        let ForkRequest { before, snapshot, .. } = self.request;
        Restoring { cluster: (*before).clone(), snapshot: snapshot.cloned() }
    }

    /// What an earlier attempt has recorded.
    fn earlier(&self) -> Result<Option<ClusterState>, Problem> {
        let ForkRequest { name, before, state, .. } = self.request;
        if name == before {
            let message = format!("cluster `{name}` cannot be a fork of itself");
            return Err(Problem::usage("fork.same_name", message).help(
                "name another cluster, or go back to a snapshot with `bivouac snapshot restore`",
            ));
        }
        let Some(known) = state.read(name)? else { return Ok(None) };
        match &known.restoring {
            Some(restoring) if *restoring == self.restoring() => Ok(Some(known)),
            Some(other) => Err(other.refusal(name)),
            None => Err(taken(name)),
        }
    }

    /// What it is made from: a snapshot, what an earlier attempt has saved, or what is saved as soon as everything is decided.
    async fn origin(
        &self,
        snapshots: &Snapshots,
        place: &Place,
        is_begun: bool,
    ) -> Result<Origin, Problems> {
        let ForkRequest { before, snapshot, state, .. } = self.request;
        let found = match snapshot {
            Some(name) => Some(snapshots.read(before, name)?),
            None if is_begun => snapshots.open(before, place)?,
            None => None,
        };
        if let Some(snapshot) = found {
            snapshots.check(&snapshot, place)?;
            let keys = snapshots.keys(before, place)?;
            let state = snapshot.state.clone();
            return Ok(Origin { state, keys, snapshot: Some(snapshot), lock: None });
        }
        if !state.knows(before) {
            return Err(unknown_cluster(before).into());
        }
        let lock = state.lock(before, "fork")?;
        let known = whole_cluster(before, self.request.provider.as_ref(), state).await?;
        let keys = state.read_keys(before)?.ok_or_else(|| {
            Problem::failed("snapshot.no_keys", format!("there are no keys of cluster `{before}`"))
                .help(format!("run `bivouac up {before}`, then the same command again"))
        })?;
        Ok(Origin { state: known, keys, snapshot: None, lock: Some(lock) })
    }

    /// The same cluster under the other name, on networks that are free.
    fn cluster(&self, before: &ClusterState) -> Cluster {
        let mut cluster = before.applied.cluster.clone();
        cluster.metadata.name = self.request.name.clone();
        cluster.spec.network.node_cidr.clear();
        cluster.spec.network.pod_cidr.clear();
        cluster
    }

    /// Decides all of it, refuses what cannot be, and records what was decided.
    async fn decide(
        &self,
        origin: &Origin,
        mut applied: Applied,
        earlier: Option<&ClusterState>,
        stack: &dyn Stack,
    ) -> Result<Decided, Problems> {
        let ForkRequest { name, before, provider, grounds, state: directory, .. } = self.request;
        let (survey, observed, elsewhere) = tokio::join!(
            provider.survey(),
            provider.observe(),
            refuse_elsewhere(&applied.cluster, grounds, earlier),
        );
        let (survey, observed) = (survey?, observed?);
        Problems::check(survey.unmet())?;
        elsewhere?;
        Problems::check(other_ground(before, &origin.state, &survey.facts).into_iter().collect())?;
        let own = observed.iter().find(|observed| observed.name == **name).cloned();
        if own.is_some() && earlier.is_none() {
            return Err(taken(name).into());
        }
        self.refuse_without_memory(&origin.state, &observed, survey.facts.memory).await?;
        if let Some(snapshot) = &origin.snapshot {
            refuse_without_room(&self.data(), snapshot.size, &survey.facts)?;
        }
        let chosen = earlier.map(|state| state.applied.cluster.spec.ports.as_slice());
        let notes = ports::replace(&mut applied.cluster.spec.ports, chosen.unwrap_or_default())?;
        let _free = lock_addresses(directory).await?;
        let making = self.making(&applied.cluster, stack);
        let existing = earlier.map(|state| &state.applied.addresses);
        let occupied = occupied(&making, &survey, &observed, existing)?;
        let addresses = networks::choose(&applied.cluster, &applied.addresses, occupied, existing)?;
        let joined = applied.joined.clone();
        let applied = Applied { joined, ..Applied::new(applied.cluster.clone(), addresses) };
        let state = ClusterState {
            kubeconfig: earlier.and_then(|state| state.kubeconfig.clone()),
            kubeconfig_made: earlier.is_some_and(|state| state.kubeconfig_made),
            remote: earlier.and_then(|state| state.remote.clone()),
            restoring: Some(self.restoring()),
            ..ClusterState::new(applied, survey.facts.clone(), origin.state.image.clone())
        };
        let found = Found { survey, observed: own };
        let prepared = decide(&making, found, origin.keys.clone(), state)?;
        directory.write(&prepared.state)?;
        directory.write_keys(name, &prepared.keys)?;
        Ok(Decided { prepared, notes })
    }

    async fn save(
        &self,
        state: &ClusterState,
        snapshots: &Snapshots,
        place: &Place,
        ground: &Facts,
    ) -> Result<Snapshot, Problems> {
        let (provider, reporter, cancel) =
            (self.request.provider.as_ref(), self.reporter, self.cancel);
        let fits = |bytes| refuse_without_room(&self.data(), bytes, ground);
        Source { state, provider, fits: &fits, reporter, cancel }
            .save(snapshots, self.request.state, place)
            .await
    }

    /// What is copied, in words.
    fn data(&self) -> String {
        match self.request.snapshot {
            Some(name) => format!("snapshot `{name}`"),
            None => format!("cluster `{}`", self.request.before),
        }
    }

    /// The memory of nodes: the limits that are recorded, or what they use where they have none.
    async fn memory(
        &self,
        recorded: Option<&ClusterState>,
        cluster: &ClusterName,
        nodes: &[NodeName],
    ) -> u64 {
        let provider = self.request.provider.as_ref();
        let specs = recorded.map(|state| state.applied.cluster.nodes()).unwrap_or_default();
        let limit = |name: &NodeName| {
            let spec = specs.iter().find(|spec| spec.name == *name)?;
            spec.resources.memory
        };
        let needed = nodes.iter().map(|name| async move {
            if let Some(limit) = limit(name) {
                return limit.0;
            }
            let usage = node_status(provider, cluster, name).await.and_then(|status| status.usage);
            usage.and_then(|usage| usage.memory).unwrap_or(0)
        });
        futures::future::join_all(needed).await.into_iter().fold(0, u64::saturating_add)
    }

    /// The memory of all that runs there, but for what an earlier attempt has left.
    async fn memory_in_use(&self, observed: &[ObservedCluster]) -> u64 {
        let ForkRequest { name, state, .. } = self.request;
        let used = observed.iter().filter(|cluster| cluster.name != **name).map(|cluster| async {
            let runs = |(name, node): (&NodeName, &bivouac_spec::facts::ObservedNode)| {
                (node.state == ObservedState::Running).then(|| name.clone())
            };
            let nodes: Vec<NodeName> = cluster.nodes.iter().filter_map(runs).collect();
            // What cannot be read is told by every command about that cluster.
            let recorded = state.read(&cluster.name).ok().flatten();
            self.memory(recorded.as_ref(), &cluster.name, &nodes).await
        });
        futures::future::join_all(used).await.into_iter().fold(0, u64::saturating_add)
    }

    /// It will need what the first does, beside all that runs now.
    async fn refuse_without_memory(
        &self,
        origin: &ClusterState,
        observed: &[ObservedCluster],
        there: Bytes,
    ) -> Result<(), Problem> {
        let ForkRequest { name, before, .. } = self.request;
        let nodes: Vec<NodeName> =
            origin.applied.cluster.nodes().into_iter().map(|node| node.name).collect();
        let (own, others) =
            tokio::join!(self.memory(Some(origin), before, &nodes), self.memory_in_use(observed));
        if own.saturating_add(others) <= there.0 {
            return Ok(());
        }
        let up = |bytes: u64| Bytes(bytes.div_ceil(1 << 20) << 20);
        let (own, others, there) = (up(own), up(others), Bytes(there.0 >> 20 << 20));
        let message = format!(
            "cluster `{name}` needs {own} of memory beside {others} of the clusters that run, the ground has {there}"
        );
        Err(Problem::new(Class::Unfit, "fork.no_memory", message).help(format!(
            "stop or remove clusters that are not needed; `{before}` itself may be stopped when a snapshot of it is forked with `--snapshot`"
        )))
    }

    /// Takes back what was recorded, when nothing came of it on the ground: the same command starts from the beginning.
    async fn forget_what_never_was(&self) {
        let ForkRequest { name, provider, state, .. } = self.request;
        let Ok(Some(known)) = state.read(name) else { return };
        let is_own = known.restoring.as_ref() == Some(&self.restoring());
        if !is_own || known.kubeconfig.is_some() || known.remote.is_some() {
            return;
        }
        let Ok(observed) = provider.observe().await else { return };
        if observed.iter().all(|other| other.name != **name) {
            // What cannot be removed is found by `down`.
            let place = self.restoring().place(name);
            if let Place::ForFork(_) = place {
                let _ = Snapshots::of(state).remove(self.request.before, &place);
            }
            let _ = state.remove(name);
        }
    }
}

fn taken(name: &ClusterName) -> Problem {
    Problem::usage("engine.name_taken", format!("cluster `{name}` exists already"))
        .help(format!("name another cluster, or remove that one with `bivouac down {name}`"))
}
