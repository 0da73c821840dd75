//! Which cluster and which node a command means.

use std::sync::Arc;

use bivouac_engine::{ClusterState, StateDirectory};
use bivouac_provider::Node;
use bivouac_spec::cluster;
use bivouac_spec::name::nearest;
use bivouac_spec::{Cluster, ClusterName, NodeName, Problem, Problems};
use camino::{Utf8Path, Utf8PathBuf};

use crate::args::{Global, ProviderName, Source};
use crate::grounds::{Existing, existing_clusters};

/// The folder with what bivouac knows.
pub fn open_state(global: &Global) -> StateDirectory {
    StateDirectory::open(global.state_dir.clone())
}

/// The cluster that is asked for: that of the file; else the one of this name as it was made; else one with all defaults.
///
/// # Errors
/// Everything that is wrong with the file, at once; a file that names another ground than was asked for.
pub fn cluster_asked_for(global: &Global, source: &Source) -> Result<Cluster, Problems> {
    let mut cluster = match &source.file {
        Some(file) => read_cluster(file, source.provider)?,
        None => {
            let name = source.name.clone().unwrap_or_default();
            // A state that cannot be read is told by whoever changes the cluster.
            let known = open_state(global).read(&name).ok().flatten();
            let known = known.map_or_else(|| Cluster::named(name), |state| state.applied.cluster);
            on_ground(known, source.provider)
        }
    };
    if let Some(name) = &source.name {
        cluster.metadata.name = name.clone();
    }
    Ok(cluster)
}

/// The same cluster on the ground that was asked for. Settings stay where it is that one already.
fn on_ground(mut cluster: Cluster, asked: Option<ProviderName>) -> Cluster {
    if let Some(asked) = asked.map(ProviderName::settings)
        && asked.name() != cluster.spec.provider.name()
    {
        cluster.spec.provider = asked;
    }
    cluster
}

/// Reads a cluster file; `-` is standard input. A file that does not say where nodes run leaves that to `provider`.
///
/// # Errors
/// When it cannot be read, and everything that is wrong with it, at once; when it says something else than `provider`.
pub fn read_cluster(file: &Utf8Path, provider: Option<ProviderName>) -> Result<Cluster, Problems> {
    let unreadable = |error: std::io::Error| {
        Problem::usage("cli.cluster_file", format!("cannot read the cluster file {file}"))
            .because(&error)
            .help("check the path, or write a cluster file with `bivouac init`")
    };
    let (text, name) = if file == "-" {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut text).map_err(unreadable)?;
        (text, "standard input")
    } else {
        (std::fs::read(file).map_err(unreadable)?, file.as_str())
    };
    let cluster = cluster::parse_bytes(&text, name)?.within(&folder_of(file).map_err(unreadable)?);
    if let Some(asked) = provider
        && names_ground(&text)
        && cluster.spec.provider.name() != asked.settings().name()
    {
        let (theirs, asked) = (cluster.spec.provider.name(), asked.settings().name());
        let message = format!("{name} asks for provider {theirs}, `--provider` for {asked}");
        let help = format!("leave `--provider` out, or change `spec.provider` in {name}");
        return Err(Problem::usage("cli.other_provider", message).help(help).into());
    }
    Ok(on_ground(cluster, provider))
}

/// Where relative paths of a cluster file begin.
fn folder_of(file: &Utf8Path) -> std::io::Result<Utf8PathBuf> {
    let file = if file == "-" { Utf8Path::new("stdin") } else { file };
    let folder = file.parent().filter(|folder| *folder != "");
    camino::absolute_utf8(folder.unwrap_or(Utf8Path::new(".")))
}

/// Whether a valid cluster file says where nodes run.
fn names_ground(text: &[u8]) -> bool {
    let document: Option<serde_json::Value> = yaml_serde::from_slice(text).ok();
    document
        .is_some_and(|document| document.pointer("/spec/provider").is_some_and(|it| !it.is_null()))
}

/// The cluster of this name, or the only one there is, or the one called `default`.
///
/// # Errors
/// When there is none, or several and none was named, or what is known of it cannot be read, or its ground does not answer.
pub async fn choose(global: &Global, name: Option<&ClusterName>) -> Result<Existing, Problem> {
    let mut existing = find(global, name).await?;
    let problem = existing.unreadable.take().or_else(|| existing.silenced());
    problem.map_or(Ok(existing), Err)
}

/// The same, even where what is known of it cannot be read, or its ground does not answer.
///
/// # Errors
/// When there is none, or several and none was named.
pub async fn find(global: &Global, name: Option<&ClusterName>) -> Result<Existing, Problem> {
    let found = existing_clusters(global, &open_state(global)).await?;
    let (mut clusters, silent) = (found.clusters, found.silent);
    let names: Vec<ClusterName> = clusters.iter().map(|cluster| cluster.name().clone()).collect();
    match pick(name, &names) {
        Ok(position) => Ok(clusters.swap_remove(position)),
        Err(mut problem) => {
            problem.causes.extend(silent.into_iter().map(|silent| silent.message));
            Err(problem)
        }
    }
}

/// Where in `names` the cluster is that is meant: the one of this name, or the only one there is, or the one called `default`.
///
/// # Errors
/// When there is none, or several and none was named.
pub fn pick(name: Option<&ClusterName>, names: &[ClusterName]) -> Result<usize, Problem> {
    let default = ClusterName::default();
    let position = match name {
        None if names.len() == 1 => Some(0),
        name => names.iter().position(|other| other == name.unwrap_or(&default)),
    };
    position.ok_or_else(|| no_such_cluster(name, names))
}

fn no_such_cluster(name: Option<&ClusterName>, names: &[ClusterName]) -> Problem {
    let names: Vec<&str> = names.iter().map(ClusterName::as_str).collect();
    let problem = match name {
        Some(name) => {
            Problem::usage("cli.unknown_cluster", format!("there is no cluster `{name}`"))
        }
        None if names.is_empty() => Problem::usage("cli.no_cluster", "there is no cluster"),
        None => {
            Problem::usage("cli.which_cluster", "there are several clusters and none was named")
        }
    };
    let near = name.and_then(|name| nearest(name.as_str(), names.iter().copied()));
    match near {
        Some(near) => {
            problem.help(format!("name `{near}` if you mean that, or see all with `bivouac list`"))
        }
        None if names.is_empty() => problem.help("make one with `bivouac up`"),
        None => problem.help(format!("name one of: {}", names.join(", "))),
    }
}

impl Existing {
    /// The cluster's name.
    pub const fn name(&self) -> &ClusterName {
        &self.observed.name
    }

    /// Why its ground cannot say how it is, as the problem of a command that needs to know.
    pub fn silenced(&self) -> Option<Problem> {
        let silent = self.silent.as_ref()?;
        if self.is_elsewhere {
            return Some(silent.clone());
        }
        let (name, ground) = (self.name(), self.ground.describe());
        let message = format!("cluster `{name}` is on {ground}, which does not answer");
        let mut problem = Problem::new(silent.class, silent.code.clone(), message).because(silent);
        problem.help.clone_from(&silent.help);
        problem.causes.extend(silent.causes.iter().cloned());
        Some(problem)
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
                || format!("name one of: {}", names.join(", ")),
                |near| format!("name `{near}` if you mean that"),
            );
            return Err(Problem::usage("cli.unknown_node", message).help(help));
        }
        self.ground.provider.open_node(self.name(), node).await
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, provider: Option<ProviderName>) -> Result<Cluster, Problems> {
        let folder = tempfile::tempdir().unwrap();
        let file = Utf8Path::from_path(folder.path()).unwrap().join("cluster.yaml");
        let head = "apiVersion: bivouac.dev/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\n";
        std::fs::write(&file, format!("{head}{text}")).unwrap();
        read_cluster(&file, provider)
    }

    #[test]
    fn a_file_that_does_not_say_where_leaves_it_to_the_option() {
        for text in ["", "spec: {}\n", "spec: {nodes: [{role: control-plane}]}\n"] {
            let docker = read(text, Some(ProviderName::Docker)).unwrap();
            assert_eq!(docker.spec.provider.name(), "docker", "{text}");
            assert_eq!(read(text, None).unwrap().spec.provider.name(), "linux", "{text}");
        }
    }

    #[test]
    fn a_file_that_says_where_is_not_overruled() {
        let text = "spec: {provider: {docker: {context: office}}}\n";
        let same = read(text, Some(ProviderName::Docker)).unwrap();
        assert_eq!(same, read(text, None).unwrap(), "its settings stay");
        let refused = read(text, Some(ProviderName::Linux)).unwrap_err();
        assert_eq!(refused.as_slice()[0].code, "cli.other_provider");
        assert!(refused.to_string().contains("asks for provider docker, `--provider` for linux"));
        let linux = "spec: {provider: {linux: {}}}\n";
        read(linux, Some(ProviderName::Docker)).unwrap_err();
    }
}
