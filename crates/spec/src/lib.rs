//! The data that crosses bivouac's seams. Everything here is a value: no I/O, no decisions about the world.
//!
//! ```text
//! cluster file --[cluster::parse]--> Cluster --+
//!                       Facts, Observed -------+--> Plan            (crate plan)
//!                       Addresses, keys -------+--> NodeConfig      (crate stacks)
//!                                NodeConfig ---> agent ---> NodeStatus
//! ```
//!
//! - [`cluster`]: the cluster file: types, defaults, validation, JSON schema
//! - [`node`]: what one node must be ([`node::NodeConfig`]) and what it says of itself ([`node::NodeStatus`])
//! - [`facts`]: what a provider says of its ground, and what it found there
//! - [`network`], [`range`]: the addresses that bivouac assigns
//! - [`name`], [`quantity`]: words and amounts, parsed once
//! - [`problem`]: the one shape of everything that goes wrong

pub mod cluster;
pub mod facts;
pub mod name;
pub mod network;
pub mod node;
pub mod problem;
pub mod quantity;
pub mod range;

pub use cluster::Cluster;
pub use facts::{Facts, NodeRecord, ObservedCluster, ObservedNode};
pub use name::{ClusterName, NodeName, SnapshotName};
pub use network::{Addresses, PublishedPort};
pub use node::{NodeConfig, NodeStatus};
pub use problem::{Class, Problem, Problems};
pub use range::AddressRange;
