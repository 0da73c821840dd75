//! `bivouac node add` and `remove`

use std::collections::BTreeSet;
use std::process::ExitCode;

use bivouac_spec::cluster::{Locations, Role, validate};
use bivouac_spec::{Cluster, ClusterName, Problem, Problems};

use super::plan::show_plan;
use super::up::{bring_up, tell};
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
            let asked = Asked { cluster: add.chosen.cluster.as_ref(), follow: &add.follow };
            asked.change(global, "node add", change, add.dry_run, add.output).await
        }
        NodeCommand::Remove(remove) => {
            let change = |cluster: &mut Cluster| {
                remove.nodes.iter().try_for_each(|node| cluster.remove_node(node))
            };
            let asked = Asked { cluster: remove.chosen.cluster.as_ref(), follow: &remove.follow };
            asked.change(global, "node remove", change, remove.dry_run, remove.output).await
        }
    }
}

struct Asked<'a> {
    cluster: Option<&'a ClusterName>,
    follow: &'a Follow,
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
        let mut cluster = existing.known()?.applied.cluster.clone();
        change(&mut cluster)?;
        Problems::check(validate(&cluster, &Locations::default()))?;
        if dry_run {
            return show_plan(global, &cluster, &format!("bivouac {verb}"), output).await;
        }
        tell(&bring_up(global, &cluster, verb, BTreeSet::new(), self.follow).await?, output)
    }
}
