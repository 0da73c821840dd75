//! What is done when members come and go. The database of the cluster knows its members, so it must be told.

use std::time::Duration;

use bivouac_spec::NodeName;

use super::layout::{Layout, Member};
use super::places::TRUST;
use super::units::shell;
use crate::stack::{Change, Step};

/// How long instances may take to be moved.
const MOVE: Duration = Duration::from_secs(300);
/// How long anything else may take.
const QUICK: Duration = Duration::from_secs(60);

/// A member that answers gives its instances to the others; one that is lost takes them with it. One that is only away keeps them.
const LEAVE: &str = concat!(include_str!("scripts/listed.sh"), include_str!("scripts/leave.sh"));
/// One of the same name that was there before is lost: its data went with the node.
const COME: &str = concat!(include_str!("scripts/listed.sh"), include_str!("scripts/come.sh"));

pub(super) fn steps(layout: &Layout<'_>, change: &Change<'_>) -> Vec<Step> {
    match change {
        Change::Joins(node) => layout.member(node).map(|member| comes(layout, member)),
        Change::Leaves(member) => Some(leaves(layout, &member.spec.name)),
        Change::Lost(member) => Some(is_lost(layout, &member.spec.name)),
        // Instances stop with their member, and start with it again.
        Change::Returns(_) | Change::Remakes(_) | Change::Remade(_) | Change::Changed(_) => None,
    }
    .into_iter()
    .collect()
}

fn comes(layout: &Layout<'_>, member: &Member) -> Step {
    let name = member.name();
    let trust = format!("{TRUST}/{name}.json");
    Step {
        name: format!("trust {name}"),
        nodes: others(layout, member),
        command: shell("come", COME, &[name.as_str(), &trust]),
        environment: Default::default(),
        patience: QUICK,
        help: help(layout),
    }
}

fn leaves(layout: &Layout<'_>, name: &NodeName) -> Step {
    let others = layout.members.iter().map(|member| member.name()).filter(|other| *other != name);
    Step {
        name: format!("move the instances of {name} and take it out of the cluster"),
        nodes: others.cloned().collect(),
        command: shell("leave", LEAVE, &[name.as_str(), "there"]),
        environment: Default::default(),
        patience: MOVE,
        help: format!(
            "take the change back (`bivouac up` with the file as it was) to start what is away; move or delete what cannot be moved (`bivouac incus --cluster {cluster} -- list`), and run the same command again. What {name} alone has is given up with `bivouac incus --cluster {cluster} -- cluster remove --force {name}`",
            cluster = layout.cluster
        ),
    }
}

fn is_lost(layout: &Layout<'_>, name: &NodeName) -> Step {
    Step {
        name: format!("take {name} out of the cluster"),
        command: shell("leave", LEAVE, &[name.as_str(), "gone"]),
        help: help(layout),
        ..leaves(layout, name)
    }
}

fn help(layout: &Layout<'_>) -> String {
    format!(
        "look with `bivouac incus --cluster {} -- cluster list` whether most members are online, and run the same command again",
        layout.cluster
    )
}

fn others(layout: &Layout<'_>, member: &Member) -> Vec<NodeName> {
    layout.others(member).map(|other| other.name().clone()).collect()
}
