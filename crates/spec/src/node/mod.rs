//! One node as data: what it must be ([`NodeConfig`]), how its readiness is asked ([`probe`]) and what it says of itself
//! ([`NodeStatus`]). Written by a stack, delivered by a provider, applied by the agent; none of them needs to know the others.

pub mod config;
pub mod graph;
pub mod ground;
pub mod image_cache;
pub mod paths;
pub mod probe;
pub mod save;
pub mod status;
pub mod stream;
pub mod unit;

pub use config::{Content, File, FileKind, Mount, NodeConfig, Sysctl};
pub use graph::check_units;
pub use ground::{Ground, Route};
pub use image_cache::{ImageCache, Upstream};
pub use probe::{Check, Dns, Expect, HttpRequest, Probe, Tls, Vantage};
pub use status::{NodePhase, NodeStatus, UnitState, UnitStatus};
pub use unit::{Condition, Limits, Restart, Run, Service, Signal, Stop, Task};
