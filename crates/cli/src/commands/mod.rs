//! One module a command. Each composes what it needs, runs it, and writes its result.

pub mod bench;
pub mod doctor;
pub mod documents;
pub mod down;
pub mod events;
pub mod exec;
pub mod export;
pub mod image;
pub mod incus;
pub mod kubeconfig;
pub mod kubectl;
pub mod list;
pub mod load;
pub mod logs;
pub mod node;
pub mod plan;
pub mod service;
pub mod snapshot;
pub mod status;
pub mod stop;
pub mod up;
pub mod upgrade;
