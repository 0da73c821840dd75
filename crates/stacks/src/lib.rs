//! What runs on the nodes, rendered to node configs. Everything here is pure: no I/O, and the time is passed in.
//!
//! ```text
//! Cluster, Addresses, Facts (RenderRequest) --ensure_keys--> Keys       what is secret, kept by the engine
//!                           RenderRequest + Keys --render--> NodeConfig one a node: files, services, tasks, conditions
//!                           RenderRequest + Keys --access--> Access     what the user gets
//! ```
//!
//! A stack does not know where its nodes run. What differs between grounds comes as facts, never as the name of a provider.

mod incus;
mod kubernetes;
mod stack;

pub use stack::{
    Access, Change, Drain, Given, IncusAccess, Keys, KubernetesAccess, RenderRequest, Shared,
    Stack, Step, open, open_with,
};
