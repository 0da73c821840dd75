//! Which node has an address. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sha2::{Digest, Sha256};

use super::object::Node;

/// So many nodes follow those before them closely enough to take over at once. The others wait until the API says who is lost.
const CLOSE: usize = 2;

/// What an address means to a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The node has it.
    pub(super) holds: bool,
    /// Nodes of which this one must know whether they are there.
    pub(super) follows: Vec<String>,
}

/// The nodes that can have an address, the first one first. Every address has an order of its own, so that they spread, and of which a node
/// that comes or goes moves nobody else.
pub(super) fn line(
    address: IpAddr,
    nodes: &BTreeMap<String, Node>,
    only: Option<&BTreeSet<String>>,
) -> Vec<String> {
    let able = nodes
        .iter()
        .filter(|(name, node)| node.ready && only.is_none_or(|only| only.contains(*name)));
    let mut line: Vec<_> =
        able.map(|(name, node)| (node.reluctant, rank(address, name), name.clone())).collect();
    line.sort();
    line.into_iter().map(|(_, _, name)| name).collect()
}

fn rank(address: IpAddr, node: &str) -> [u8; 32] {
    Sha256::digest(format!("{address} {node}")).into()
}

/// What the address means to this node, which has seen itself that some are lost.
pub(super) fn standing(line: &[String], node: &str, lost: &BTreeSet<String>) -> Standing {
    match line.iter().position(|name| name == node) {
        Some(place) if place <= CLOSE => Standing {
            holds: line[..place].iter().all(|before| lost.contains(before)),
            follows: line[..place].to_vec(),
        },
        _ => Standing::default(),
    }
}
