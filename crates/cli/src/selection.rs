//! Which cluster and which node a command means, and the values that a command works with: provider, state, store.

use std::sync::Arc;

use bivouac_engine::{ClusterState, StateDirectory};
use bivouac_provider::{Node, Provider};
use bivouac_spec::cluster::{self, Provider as ProviderSpec};
use bivouac_spec::name::nearest;
use bivouac_spec::{Cluster, ClusterName, NodeName, ObservedCluster, Problem, Problems};
use camino::Utf8Path;

use crate::args::{Global, Source};

/// Opens the provider that a cluster file names.
pub fn open_provider(global: &Global, provider: &ProviderSpec) -> Arc<dyn Provider> {
    bivouac_providers::open(provider, &global.state_dir)
}

/// The folder with what bivouac knows.
pub fn open_state(global: &Global) -> StateDirectory {
    StateDirectory::open(global.state_dir.clone())
}

/// The cluster that a file and a name ask for: that of the file; else the one of this name as it was made; else one with all
/// defaults.
///
/// # Errors
/// Everything that is wrong with the file, at once.
pub fn cluster_asked_for(global: &Global, source: &Source) -> Result<Cluster, Problems> {
    let mut cluster = match &source.file {
        Some(file) => read_cluster(file)?,
        None => {
            let name = source.name.clone().unwrap_or_default();
            // A state that cannot be read is told by whoever changes the cluster.
            let known = open_state(global).read(&name).ok().flatten();
            known.map_or_else(|| Cluster::named(name), |state| state.applied.cluster)
        }
    };
    if let Some(name) = &source.name {
        cluster.metadata.name = name.clone();
    }
    Ok(cluster)
}

/// Reads a cluster file; `-` is standard input.
///
/// # Errors
/// When it cannot be read, and everything that is wrong with it, at once.
pub fn read_cluster(file: &Utf8Path) -> Result<Cluster, Problems> {
    let unreadable = |error: std::io::Error| {
        Problem::usage("cli.cluster_file", format!("cannot read the cluster file {file}"))
            .because(&error)
            .help("check the path, or write a cluster file with `bivouac init`")
    };
    if file == "-" {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut text).map_err(unreadable)?;
        return cluster::parse_bytes(&text, "standard input");
    }
    cluster::parse_bytes(&std::fs::read(file).map_err(unreadable)?, file.as_str())
}

/// A cluster that exists: on its ground, in the state, or both.
pub struct Existing {
    /// What is known of it, unless only its ground has it.
    pub state: Option<ClusterState>,
    /// Why what is known of it cannot be read.
    pub unreadable: Option<Problem>,
    /// What its ground has of it.
    pub observed: ObservedCluster,
    /// Its ground's name.
    pub provider_name: &'static str,
    /// Its ground.
    pub provider: Arc<dyn Provider>,
}

/// Every cluster that exists, asked of every ground.
///
/// # Errors
/// When a ground cannot be asked or the state folder cannot be read. What is wrong with the state of one cluster is that one's
/// [`Existing::unreadable`].
pub async fn existing_clusters(global: &Global) -> Result<Vec<Existing>, Problem> {
    let state = open_state(global);
    let mut known = std::collections::BTreeMap::new();
    for name in state.clusters()? {
        let cluster = state.read(&name);
        known.insert(name, cluster);
    }
    let mut clusters = Vec::new();
    for provider_spec in bivouac_providers::all() {
        let provider = open_provider(global, &provider_spec);
        for observed in provider.observe().await? {
            let (state, unreadable) = apart(known.remove(&observed.name).unwrap_or(Ok(None)));
            let (provider, provider_name) = (Arc::clone(&provider), provider_spec.name());
            clusters.push(Existing { state, unreadable, observed, provider_name, provider });
        }
    }
    for (name, read) in known {
        let (state, unreadable) = apart(read);
        let spec = match (&state, &unreadable) {
            (Some(state), _) => state.applied.cluster.spec.provider.clone(),
            (None, Some(_)) => ProviderSpec::default(),
            (None, None) => continue,
        };
        let (provider, provider_name) = (open_provider(global, &spec), spec.name());
        let observed =
            ObservedCluster { name, network: None, nodes: Default::default(), remains: Vec::new() };
        clusters.push(Existing { state, unreadable, observed, provider_name, provider });
    }
    clusters.sort_by(|a, b| a.observed.name.cmp(&b.observed.name));
    Ok(clusters)
}

fn apart(read: Result<Option<ClusterState>, Problem>) -> (Option<ClusterState>, Option<Problem>) {
    match read {
        Ok(state) => (state, None),
        Err(problem) => (None, Some(problem)),
    }
}

/// The cluster of this name, or the only one there is, or the one called `default`.
///
/// # Errors
/// When there is none, or several and none was named, or what is known of it cannot be read.
pub async fn choose(global: &Global, name: Option<&ClusterName>) -> Result<Existing, Problem> {
    let mut clusters = existing_clusters(global).await?;
    let names: Vec<String> =
        clusters.iter().map(|cluster| cluster.observed.name.to_string()).collect();
    let position = match name {
        Some(name) => clusters.iter().position(|cluster| cluster.observed.name == *name),
        None if clusters.len() == 1 => Some(0),
        None => clusters.iter().position(|cluster| cluster.observed.name == ClusterName::default()),
    };
    match position {
        Some(position) => {
            let mut existing = clusters.swap_remove(position);
            existing.unreadable.take().map_or(Ok(existing), Err)
        }
        None => Err(no_such_cluster(name, &names)),
    }
}

fn no_such_cluster(name: Option<&ClusterName>, names: &[String]) -> Problem {
    let problem = match name {
        Some(name) => {
            Problem::usage("cli.unknown_cluster", format!("there is no cluster `{name}`"))
        }
        None if names.is_empty() => Problem::usage("cli.no_cluster", "there is no cluster"),
        None => {
            Problem::usage("cli.which_cluster", "there are several clusters and none was named")
        }
    };
    let near = name.and_then(|name| nearest(name.as_str(), names.iter().map(String::as_str)));
    match near {
        Some(near) => problem.help(format!("did you mean `{near}`? `bivouac list` shows all")),
        None if names.is_empty() => problem.help("make one with `bivouac up`"),
        None => problem.help(format!("name one of: {}", names.join(", "))),
    }
}

impl Existing {
    /// The cluster's name.
    pub const fn name(&self) -> &ClusterName {
        &self.observed.name
    }

    /// A node of it.
    ///
    /// # Errors
    /// When there is none of this name; the nearest is named.
    pub async fn node(&self, node: &NodeName) -> Result<Arc<dyn Node>, Problem> {
        if !self.observed.nodes.contains_key(node) {
            let names: Vec<&str> = self.observed.nodes.keys().map(NodeName::as_str).collect();
            let message = format!("cluster `{}` has no node `{node}`", self.name());
            let help = nearest(node.as_str(), names.iter().copied()).map_or_else(
                || format!("its nodes are: {}", names.join(", ")),
                |near| format!("did you mean `{near}`?"),
            );
            return Err(Problem::usage("cli.unknown_node", message).help(help));
        }
        self.provider.open_node(self.name(), node).await
    }

    /// What is known of it.
    ///
    /// # Errors
    /// When only its ground has it.
    pub fn known(&self) -> Result<&ClusterState, Problem> {
        self.state.as_ref().ok_or_else(|| {
            let name = self.name();
            Problem::failed("cli.unrecorded", format!("the state folder knows nothing of cluster `{name}`, only its nodes are there"))
                .help(format!("use the `--state-dir` that it was made with, or remove it with `bivouac down {name}`"))
        })
    }
}
