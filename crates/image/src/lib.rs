//! The store of node images, and what fills it.
//!
//! Building the node image from the bundle, OCI layouts and layers, and the directories of container images that the
//! nodes of a host share. Synchronous; progress comes out as [`Event`] values.
//!
//! Not here: running nodes (the providers), telling containerd about images (the agent), drawing progress (the CLI).
//!
//! ```text
//! bundle/ --lock--> keys --ensure_piece--> programs/ base/ --assemble--> images/<key>/{oci,rootfs}, one a stack
//! image archives --import--> container image directory --bind mount--> every node
//! ```

mod archive;
mod baked;
mod build;
mod bundle;
mod cancel;
mod command;
mod containers;
mod contents;
mod debian;
mod digest;
mod download;
mod error;
mod event;
mod files;
mod golang;
mod inode;
mod instance;
mod layer;
mod libraries;
mod loaded;
mod lock;
mod node;
mod oci;
mod program;
mod prune;
mod reference;
mod stack;
mod store;
mod stream;
mod tools;
mod unpack;
mod upper;
mod usage;
mod verify;

pub use archive::{Imported, import_archive, import_stream};
pub use build::{BuildOptions, Source, build, ensure, find, plan_steps};
pub use bundle::Bundle;
pub use cancel::Cancel;
pub use containers::{ContainerImage, ContainerImages, list_containers};
pub use digest::Sha256;
pub use error::Error;
pub use event::{Event, OnEvent, Step, Unit};
pub use instance::INSTANCE_IMAGES;
pub use layer::Layer;
pub use lock::{Build, Debian, Download, Go, Image, Lock, OtherVersion, Program};
pub use node::{NodeImage, NodeManifest};
pub use oci::host_architecture;
pub use prune::{NodeImageInfo, Pruned, list, prune};
pub use reference::normalize;
pub use stack::{Instance, Packages, Recipe, Stack};
pub use store::{Context, Kind, Out, Store, StoreLock};
pub use tools::Tool;
pub use upper::BAKED_IMAGES;
pub use verify::{Damage, verify};
