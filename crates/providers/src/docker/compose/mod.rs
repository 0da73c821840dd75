//! Containers of a Docker engine, made by `docker compose` from a project that bivouac writes: as a ground, and as a folder for others.
//!
//! ```text
//! Blueprint --render--> what the engine would be asked for --service--> Document --> docker-compose.yaml
//!
//! STATE/compose/CLUSTER/   the project of a cluster of this provider        DIR/   an exported one, with image/ to build from
//! ```
//!
//! What a node's container is, is decided in `docker::container`; what exists is asked of the engine, as [`super`] does. `docker
//! compose` only makes containers, volumes and the network.

mod command;
mod context;
mod document;
mod export;
mod folder;
mod problem;
mod provider;
mod service;

pub use export::{ExportRequest, Exported, export};
pub use provider::{ComposeProvider, ComposeRequest, open};
