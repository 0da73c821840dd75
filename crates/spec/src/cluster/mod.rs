//! The cluster file: what a user asks for.

mod file;

pub use file::{
    Cluster, Kubernetes, LinuxProvider, Metadata, Network, NodeGroup, NodeSpec, Provider,
    Resources, Role, Spec, Stack, Taint, TaintEffect,
};
