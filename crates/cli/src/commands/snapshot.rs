//! `bivouac snapshot` and `bivouac fork`

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Instant;

use bivouac_engine::{
    ClusterState, DeleteRequest, ForkRequest, RestoreRequest, SaveRequest, Snapshots, UpOptions,
    delete_snapshots,
};
use bivouac_spec::{ClusterName, Problem, Problems, SnapshotName};
use jiff::Timestamp;
use serde::Serialize;

use super::up::{Shown, kubeconfig, tell};
use crate::args::{
    Follow, Fork, Format, Global, Snapshot, SnapshotCommand, SnapshotDelete, SnapshotRestore,
    SnapshotSave,
};
use crate::grounds::{open_ground, open_grounds};
use crate::images::StoreImages;
use crate::selection::{open_state, pick};
use crate::{home, output, progress, report, signals};

pub async fn run(global: &Global, asked: &Snapshot) -> Result<ExitCode, Problems> {
    match &asked.command {
        SnapshotCommand::Save(asked) => save(global, asked).await,
        SnapshotCommand::List(asked) => list(global, asked.cluster.as_ref(), asked.output),
        SnapshotCommand::Restore(asked) => restore(global, asked).await,
        SnapshotCommand::Delete(asked) => delete(global, asked),
    }
}

/// A snapshot, as it is shown.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    cluster: ClusterName,
    name: SnapshotName,
    created: Timestamp,
    provider: String,
    stack: String,
    nodes: usize,
    /// Bytes.
    size: u64,
    /// Milliseconds.
    paused_for: u64,
    /// How long it took to save it; only when it was saved just now.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

impl Listed {
    fn of(snapshot: bivouac_engine::Snapshot) -> Self {
        Self {
            cluster: snapshot.cluster().clone(),
            nodes: snapshot.state.applied.cluster.nodes().len(),
            name: snapshot.name,
            created: snapshot.created,
            provider: snapshot.provider,
            stack: snapshot.stack,
            size: snapshot.size,
            paused_for: snapshot.paused_for,
            seconds: None,
        }
    }
}

async fn save(global: &Global, asked: &SnapshotSave) -> Result<ExitCode, Problems> {
    let started = Instant::now();
    let known = recorded(global, asked.cluster.as_ref())?;
    let request = SaveRequest {
        cluster: known.applied.cluster.name(),
        name: &asked.snapshot,
        provider: open_ground(global, &known.applied.cluster.spec.provider).provider,
        state: &open_state(global),
    };
    let reporter = progress::reporter(global);
    let saved = bivouac_engine::save(&request, &reporter, &signals::cancellation()).await?;
    drop(reporter);
    let saved = Listed { seconds: Some(started.elapsed().as_secs_f64()), ..Listed::of(saved) };
    output::write(asked.output, &saved, || {
        let Listed { cluster, name, size, paused_for, .. } = &saved;
        let seconds = started.elapsed().as_secs_f64();
        format!(
            "snapshot {name} of cluster {cluster} is saved: {}, paused for {paused_for} ms, {seconds:.1} s\n",
            output::bytes(*size)
        )
    })?;
    Ok(ExitCode::SUCCESS)
}

fn list(
    global: &Global,
    cluster: Option<&ClusterName>,
    format: Format,
) -> Result<ExitCode, Problems> {
    let snapshots = Snapshots::of(&open_state(global));
    let clusters = cluster.map_or_else(|| snapshots.clusters(), |name| Ok(vec![name.clone()]))?;
    let (mut listed, mut unreadable) = (Vec::new(), Vec::new());
    for cluster in &clusters {
        for name in snapshots.names(cluster)? {
            match snapshots.read(cluster, &name) {
                Ok(snapshot) => listed.push(Listed::of(snapshot)),
                Err(problem) => unreadable.push(problem),
            }
        }
    }
    output::write(format, &listed, || text(&listed, unreadable.is_empty()))?;
    for problem in &unreadable {
        report::warning(problem, global.color);
    }
    Ok(ExitCode::SUCCESS)
}

fn text(listed: &[Listed], is_all: bool) -> String {
    if listed.is_empty() && is_all {
        return "there is no snapshot; save one with `bivouac snapshot save NAME`\n".to_owned();
    }
    let head = ["CLUSTER", "NAME", "CREATED", "SIZE", "NODES", "STACK", "PROVIDER"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(listed.iter().map(|one| {
        vec![
            one.cluster.to_string(),
            one.name.to_string(),
            one.created.strftime("%Y-%m-%d %H:%M").to_string(),
            output::bytes(one.size),
            one.nodes.to_string(),
            one.stack.clone(),
            one.provider.clone(),
        ]
    }));
    output::table(&rows)
}

async fn restore(global: &Global, asked: &SnapshotRestore) -> Result<ExitCode, Problems> {
    let (started, state) = (Instant::now(), open_state(global));
    let cluster = saved(global, asked.cluster.as_ref(), Some(&asked.snapshot))?;
    let snapshot = Snapshots::of(&state).read(&cluster, &asked.snapshot)?;
    let spec = &snapshot.state.applied.cluster.spec;
    let request = RestoreRequest {
        cluster: &cluster,
        name: &asked.snapshot,
        provider: open_ground(global, &spec.provider).provider,
        grounds: &open_grounds(global, &state),
        images: &StoreImages::of(global, &spec.stack),
        state: &state,
    };
    let known = state.read(&cluster).ok().flatten();
    let options = options("snapshot restore", &asked.follow, known.as_ref())?;
    let (reporter, cancel) = (progress::reporter(global), signals::cancellation());
    let upped = bivouac_engine::restore(&request, &options, &reporter, &cancel).await?;
    drop(reporter);
    tell(&Shown::of(cluster, upped, started), asked.output)
}

fn delete(global: &Global, asked: &SnapshotDelete) -> Result<ExitCode, Problems> {
    let cluster = saved(global, asked.cluster.as_ref(), asked.snapshots.first())?;
    let (names, state) = (&asked.snapshots, open_state(global));
    delete_snapshots(&DeleteRequest { cluster: &cluster, names, state: &state })?;
    let names: Vec<&str> = names.iter().map(SnapshotName::as_str).collect();
    output::raw(format!("deleted {} of cluster {cluster}\n", names.join(", ")).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// `bivouac fork`
pub async fn fork(global: &Global, asked: &Fork) -> Result<ExitCode, Problems> {
    let (started, state) = (Instant::now(), open_state(global));
    let (before, known) = first(global, asked)?;
    let spec = &known.applied.cluster.spec;
    let request = ForkRequest {
        name: &asked.new,
        before: &before,
        snapshot: asked.snapshot.as_ref(),
        provider: open_ground(global, &spec.provider).provider,
        grounds: &open_grounds(global, &state),
        images: &StoreImages::of(global, &spec.stack),
        state: &state,
    };
    // Both in the same file, unless another is named.
    let entered = state.read(&before).ok().flatten();
    let options = options("fork", &asked.follow, entered.as_ref())?;
    let (reporter, cancel) = (progress::reporter(global), signals::cancellation());
    let upped = bivouac_engine::fork(&request, &options, &reporter, &cancel).await?;
    drop(reporter);
    tell(&Shown::of(asked.new.clone(), upped, started), asked.output)
}

/// The cluster that is forked, and what is recorded of it, or was when it was saved.
fn first(global: &Global, asked: &Fork) -> Result<(ClusterName, ClusterState), Problem> {
    let state = open_state(global);
    // One that was begun goes on with the same one.
    let begun = state.read(&asked.new).ok().flatten().and_then(|known| known.restoring);
    let begun = begun.map(|restoring| restoring.cluster);
    let named = asked.cluster.as_ref().or(begun.as_ref());
    if let Some(name) = &asked.snapshot {
        let cluster = saved(global, named, Some(name))?;
        let snapshot = Snapshots::of(&state).read(&cluster, name)?;
        return Ok((cluster, snapshot.state));
    }
    let known = recorded(global, named)?;
    Ok((known.applied.cluster.name().clone(), known))
}

fn options(
    verb: &'static str,
    follow: &Follow,
    known: Option<&ClusterState>,
) -> Result<UpOptions, Problem> {
    Ok(UpOptions {
        agent: home::own_binary()?,
        remotes: home::incus_file().filter(|_| !follow.no_kubeconfig),
        kubeconfig: kubeconfig(verb, follow, known),
        verb,
        only: BTreeSet::new(),
        timeout: follow.timeout.duration(),
    })
}

/// What is recorded of a cluster. Whether it is there is asked by whoever works with it.
fn recorded(global: &Global, name: Option<&ClusterName>) -> Result<ClusterState, Problem> {
    let state = open_state(global);
    let names = state.clusters()?;
    let cluster = &names[pick(name, &names)?];
    state.read(cluster)?.ok_or_else(|| {
        Problem::usage("cli.unknown_cluster", format!("nothing is known of cluster `{cluster}`"))
            .help(format!("make it with `bivouac up {cluster}`"))
    })
}

/// The cluster that was saved: the one of this name, or the only one that has the snapshot, or the only one that has any.
fn saved(
    global: &Global,
    cluster: Option<&ClusterName>,
    snapshot: Option<&SnapshotName>,
) -> Result<ClusterName, Problem> {
    if let Some(cluster) = cluster {
        return Ok(cluster.clone());
    }
    let snapshots = Snapshots::of(&open_state(global));
    let all = snapshots.clusters()?;
    if all.is_empty() {
        return Err(Problem::usage("cli.no_snapshot", "there is no snapshot")
            .help("save one with `bivouac snapshot save NAME`"));
    }
    let mut having = Vec::new();
    for name in &all {
        let names = snapshots.names(name)?;
        if snapshot.is_none_or(|snapshot| names.contains(snapshot)) {
            having.push(name.clone());
        }
    }
    let names = if having.is_empty() { &all } else { &having };
    Ok(names[pick(None, names)?].clone())
}

/// What snapshots need of the store.
#[derive(Debug, Default)]
pub struct Needed {
    /// The keys of the node images that they are restored with.
    pub images: BTreeSet<String>,
    /// Whether one was saved where nodes read loaded images from the store: its nodes still have links to them.
    pub loaded: bool,
    /// What of them cannot be read.
    pub unreadable: Vec<Problem>,
}

/// What the snapshots need of the store.
pub fn needed(global: &Global) -> Result<Needed, Problem> {
    let snapshots = Snapshots::of(&open_state(global));
    let mut needed = Needed::default();
    for cluster in snapshots.clusters()? {
        for name in snapshots.names(&cluster)? {
            match snapshots.read(&cluster, &name) {
                Ok(snapshot) => {
                    needed.loaded |= snapshot.state.facts.shares_images;
                    needed.images.insert(snapshot.state.image);
                }
                Err(problem) => needed.unreadable.push(problem),
            }
        }
    }
    Ok(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_that_has_none_is_told_what_to_do() {
        assert!(text(&[], true).contains("`bivouac snapshot save NAME`"));
        let listed = Listed {
            cluster: "demo".parse().unwrap(),
            name: "seeded".parse().unwrap(),
            created: Timestamp::UNIX_EPOCH,
            provider: "linux".to_owned(),
            stack: "Kubernetes v1.36.3".to_owned(),
            nodes: 2,
            size: 61_000_000,
            paused_for: 140,
            seconds: None,
        };
        let text = text(&[listed], true);
        assert!(text.contains("demo     seeded  1970-01-01 00:00  61.00 MB  2"), "{text}");
    }
}
