//! Values for the completion of shells: clusters, nodes and services. They come from the state folder only, since a ground may take
//! seconds to answer; whoever cannot read the folder is offered nothing.

use std::any::TypeId;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use bivouac_engine::{Snapshots, StateDirectory, logged_units};
use bivouac_spec::{ClusterName, NodeName, SnapshotName};
use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::args::{Arguments, GlobalOptions};
use crate::{home, selection};

/// The command line with completers for all arguments whose values are known.
pub fn with_values(command: Command) -> Command {
    command.mut_args(with_completer).mut_subcommands(with_values)
}

/// What an argument is tells what completes it.
fn with_completer(argument: Arg) -> Arg {
    let kind = argument.get_value_parser().type_id();
    let values: fn(&Typed) -> BTreeSet<String> = if argument.get_id() == "new" {
        // What has no name yet is the user's to name.
        return argument;
    } else if kind == TypeId::of::<SnapshotName>() {
        Typed::snapshots
    } else if kind == TypeId::of::<ClusterName>() {
        Typed::clusters
    } else if kind == TypeId::of::<NodeName>() {
        Typed::nodes
    } else if argument.get_id() == "service" {
        Typed::services
    } else {
        return argument;
    };
    argument.add(ArgValueCompleter::new(move |current: &OsStr| {
        // The shell hands over all words after two dashes.
        let mut words = std::env::args_os();
        let _ = words.by_ref().find(|word| word == "--");
        let all = Typed::read(words).map(|typed| values(&typed)).unwrap_or_default();
        matching(all, current)
    }))
}

fn matching(all: BTreeSet<String>, current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(current) = current.to_str() else { return Vec::new() };
    let matching = all.into_iter().filter(|value| value.starts_with(current));
    matching.map(CompletionCandidate::new).collect()
}

/// What was typed so far.
struct Typed {
    state: StateDirectory,
    cluster: Option<ClusterName>,
    node: Option<NodeName>,
}

impl Typed {
    /// Makes what can be made of a command line that is not finished.
    fn read(words: impl Iterator<Item = OsString>) -> Option<Self> {
        // The word under the cursor may be empty, which would be no name.
        let words = words.filter(|word| !word.is_empty());
        let matches = Arguments::command().ignore_errors(true).try_get_matches_from(words).ok()?;
        let global = home::global(&GlobalOptions::from_arg_matches(&matches).ok()?).ok()?;
        let mut innermost = &matches;
        while let Some((_, inner)) = innermost.subcommand() {
            innermost = inner;
        }
        Some(Self {
            state: selection::open_state(&global),
            cluster: value(innermost, "cluster").or_else(|| value(innermost, "name")),
            node: value(innermost, "node"),
        })
    }

    fn clusters(&self) -> BTreeSet<String> {
        let names = self.state.clusters().unwrap_or_default();
        names.into_iter().map(|name| name.to_string()).collect()
    }

    /// Those of the cluster that is named, or of all.
    fn snapshots(&self) -> BTreeSet<String> {
        let snapshots = Snapshots::of(&self.state);
        let clusters = match &self.cluster {
            Some(cluster) => vec![cluster.clone()],
            None => snapshots.clusters().unwrap_or_default(),
        };
        let names = clusters.iter().flat_map(|name| snapshots.names(name).unwrap_or_default());
        names.map(|name| name.to_string()).collect()
    }

    /// The cluster that is meant.
    fn known(&self) -> Option<bivouac_engine::ClusterState> {
        let names = self.state.clusters().ok()?;
        let position = selection::pick(self.cluster.as_ref(), &names).ok()?;
        self.state.read(&names[position]).ok()?
    }

    fn nodes(&self) -> BTreeSet<String> {
        let nodes = self.known().map(|known| known.applied.cluster.nodes()).unwrap_or_default();
        nodes.into_iter().map(|node| node.name.to_string()).collect()
    }

    fn services(&self) -> BTreeSet<String> {
        let units = self.known().and_then(|known| logged_units(&self.state, &known).ok());
        let node = self.node.as_ref();
        let units = units.zip(node).and_then(|(mut units, node)| units.remove(node));
        units.into_iter().flatten().collect()
    }
}

fn value<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Option<T> {
    matches.try_get_one(name).ok().flatten().cloned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bivouac_engine::ClusterState;
    use bivouac_provider::Provider as _;
    use bivouac_provider::fake::Fake;
    use bivouac_spec::Cluster;
    use bivouac_spec::cluster::{NodeGroup, Role};
    use bivouac_spec::facts::Applied;
    use bivouac_stacks::RenderRequest;

    use super::*;

    async fn record(state: &StateDirectory, name: &str, workers: u32) {
        let mut cluster = Cluster::named(name.parse().unwrap());
        cluster.spec.nodes.push(NodeGroup::new(Role::Worker, workers));
        let addresses = bivouac_plan::assign_addresses(&cluster, &BTreeMap::new(), None).unwrap();
        let facts = Fake::new().survey().await.unwrap().facts;
        let (joined, stack) = (BTreeSet::new(), bivouac_stacks::open(&cluster.spec.stack));
        let render = RenderRequest {
            cluster: &cluster,
            addresses: &addresses,
            facts: &facts,
            joined: &joined,
        };
        let keys = stack.ensure_keys(None, &render, std::time::SystemTime::now()).unwrap();
        state.write_keys(cluster.name(), &keys).unwrap();
        let applied = Applied::new(cluster, addresses);
        state.write(&ClusterState::new(applied, facts, "image".to_owned())).unwrap();
    }

    /// What is offered for a command line, by the values of its last word.
    fn offered(folder: &str, line: &str, values: fn(&Typed) -> BTreeSet<String>) -> Vec<String> {
        let words = format!("bivouac --state-dir {folder} {line}");
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let current = words.last().cloned().unwrap();
        let typed = Typed::read(words.into_iter()).unwrap();
        let all = matching(values(&typed), &current);
        all.iter().map(|one| one.get_value().to_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn values_come_from_what_is_recorded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let state = StateDirectory::open(path.into());
        record(&state, "demo", 2).await;
        assert_eq!(offered(path, "exec w", Typed::nodes), ["worker-0", "worker-1"], "the only one");
        record(&state, "other", 1).await;
        assert_eq!(offered(path, "status ", Typed::clusters), ["demo", "other"]);
        assert_eq!(offered(path, "logs -c de", Typed::clusters), ["demo"]);
        assert_eq!(offered(path, "logs ", Typed::nodes), [""; 0], "which of two is not known");
        let nodes = ["control-plane-0", "worker-0"];
        assert_eq!(offered(path, "logs -c other ", Typed::nodes), nodes);
        assert_eq!(offered(path, "stop other --node ", Typed::nodes), nodes);
        assert_eq!(offered(path, "node remove -c other wor", Typed::nodes), ["worker-0"]);
        let services = offered(path, "logs -c other worker-0 k", Typed::services);
        assert!(services.contains(&"kubelet".to_owned()), "{services:?}");
        assert!(!services.contains(&"kube-apiserver".to_owned()), "{services:?}");
        let services = offered(path, "logs -c other control-plane-0 ", Typed::services);
        assert!(services.contains(&"kube-apiserver".to_owned()), "{services:?}");
        for snapshot in ["demo/clean", "demo/seeded", "gone/old"] {
            let folder = folder.path().join("snapshots").join(snapshot);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("snapshot.json"), "{}").unwrap();
        }
        std::fs::create_dir(folder.path().join("snapshots/demo/half")).unwrap();
        let of_demo = ["clean", "seeded"];
        assert_eq!(
            offered(path, "snapshot restore ", Typed::snapshots),
            ["clean", "old", "seeded"]
        );
        assert_eq!(offered(path, "snapshot delete -c demo ", Typed::snapshots), of_demo);
        assert_eq!(offered(path, "fork new gone --snapshot ", Typed::snapshots), ["old"]);
        assert_eq!(offered("/nowhere", "status ", Typed::clusters), [""; 0]);
    }

    #[test]
    fn all_arguments_of_the_kind_have_a_completer() {
        fn visit(command: &Command, with: &mut BTreeSet<String>) {
            let is_completed = |argument: &&Arg| argument.get::<ArgValueCompleter>().is_some();
            for argument in command.get_arguments().filter(is_completed) {
                with.insert(format!("{} {}", command.get_name(), argument.get_id()));
            }
            command.get_subcommands().for_each(|command| visit(command, with));
        }
        let mut with = BTreeSet::new();
        visit(&crate::args::command(), &mut with);
        for expected in [
            "up name",
            "exec node",
            "logs cluster",
            "logs service",
            "stop nodes",
            "remove nodes",
            "restore snapshot",
            "fork cluster",
        ] {
            assert!(with.contains(expected), "{expected} is not among {with:?}");
        }
    }
}
