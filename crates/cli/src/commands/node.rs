//! `bivouac node add` and `remove`

use std::collections::BTreeSet;
use std::process::ExitCode;

use bivouac_engine::ImageChoice;
use bivouac_plan::refuse_no_keeper;
use bivouac_spec::cluster::{Locations, Role, validate};
use bivouac_spec::{Cluster, ClusterName, Problem, Problems};
use bivouac_stacks::Drain;

use super::plan::{Planned, show_plan};
use super::up::{BringUp, bring_up_with, tell};
use crate::args::{Follow, Format, Global, Node, NodeCommand, RoleName};
use crate::selection::choose;

pub async fn run(global: &Global, node: &Node) -> Result<ExitCode, Problems> {
    match &node.command {
        NodeCommand::Add(add) => {
            let change = |cluster: &mut Cluster| {
                // The last one named is the one that a cluster can have any number of.
                let usual = cluster.spec.stack.roles().last().copied().unwrap_or(Role::Worker);
                let role = add.role.map_or(usual, RoleName::role);
                cluster.add_nodes(role, add.group.as_deref(), add.count)
            };
            let (cluster, follow) = (add.chosen.cluster.as_ref(), &add.follow);
            let asked = Asked { cluster, follow, drain: None };
            asked.change(global, "node add", change, add.dry_run, add.output).await
        }
        NodeCommand::Remove(remove) => {
            let change = |cluster: &mut Cluster| {
                remove.nodes.iter().try_for_each(|node| cluster.remove_node(node))
            };
            let (cluster, follow) = (remove.chosen.cluster.as_ref(), &remove.follow);
            let asked = Asked { cluster, follow, drain: remove.drain.drain() };
            asked.change(global, "node remove", change, remove.dry_run, remove.output).await
        }
    }
}

struct Asked<'a> {
    cluster: Option<&'a ClusterName>,
    follow: &'a Follow,
    drain: Option<Drain>,
}

impl Asked<'_> {
    /// Changes the cluster as it is recorded, and makes it so.
    async fn change(
        &self,
        global: &Global,
        verb: &'static str,
        change: impl Fn(&mut Cluster) -> Result<(), Problem>,
        dry_run: bool,
        output: Format,
    ) -> Result<ExitCode, Problems> {
        let existing = choose(global, self.cluster).await?;
        let applied = &existing.known()?.applied;
        let cluster = changed(&applied.cluster, applied.completed.as_deref(), change)?;
        Problems::check(refuse_no_keeper(&applied.cluster, &cluster).into_iter().collect())?;
        Problems::check(validate(&cluster, &Locations::default()))?;
        if dry_run {
            let planned = Planned { cluster: &cluster, node_image: ImageChoice::Own };
            return show_plan(global, &planned, &format!("bivouac {verb}"), output).await;
        }
        let Self { follow, drain, .. } = *self;
        let node_image = ImageChoice::Own;
        let asked =
            BringUp { cluster: &cluster, verb, only: BTreeSet::new(), follow, drain, node_image };
        tell(&bring_up_with(global, asked).await?, output)
    }
}

/// The cluster that is asked for. A change that was recorded and then cut short is gone on with: the same command run again means the
/// same change, not one more.
fn changed(
    recorded: &Cluster,
    completed: Option<&Cluster>,
    change: impl Fn(&mut Cluster) -> Result<(), Problem>,
) -> Result<Cluster, Problem> {
    if let Some(completed) = completed.filter(|completed| *completed != recorded) {
        let mut again = completed.clone();
        if change(&mut again).is_ok() && again == *recorded {
            return Ok(again);
        }
    }
    let mut cluster = recorded.clone();
    change(&mut cluster)?;
    Ok(cluster)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(workers: u32) -> Cluster {
        let mut cluster = Cluster::named("demo".parse().unwrap());
        cluster.add_nodes(Role::Worker, None, workers).unwrap();
        cluster
    }

    fn one_more(cluster: &mut Cluster) -> Result<(), Problem> {
        cluster.add_nodes(Role::Worker, None, 1)
    }

    fn without_the_last(cluster: &mut Cluster) -> Result<(), Problem> {
        cluster.remove_node(&"worker-1".parse().unwrap())
    }

    #[test]
    fn what_was_cut_short_is_not_done_twice() {
        let (one, two) = (cluster(1), cluster(2));
        assert_eq!(changed(&two, Some(&one), one_more).unwrap(), two);
        let less = changed(&two, Some(&two), without_the_last).unwrap();
        assert_ne!(less, two);
        assert_eq!(changed(&less, Some(&two), without_the_last).unwrap(), less);
    }

    #[test]
    fn what_was_finished_is_done_once_more() {
        let (one, two) = (cluster(1), cluster(2));
        assert_eq!(changed(&two, Some(&two), one_more).unwrap(), cluster(3));
        // Of a cluster that never was usable nothing is known.
        assert_eq!(changed(&two, None, one_more).unwrap(), cluster(3));
        // Another change.
        assert_eq!(changed(&cluster(3), Some(&one), one_more).unwrap(), cluster(4));
    }
}
