//! The lifecycle verbs: runs plans on a provider, emits [`Event`]s, and keeps what only bivouac knows.
//!
//! ```text
//!  up:  lock -> survey + observe -> addresses, keys, node configs -> plan --refused--> problems, nothing changed
//!                                                                     |
//!         +------------------------ empty ----------------------------+--- actions
//!         v                                                                v
//!      follow every node until usable <--- ensure nodes, all at once <--- state, image, network
//!         v
//!      access (kubeconfig)
//! ```
//!
//! `load` takes images to the nodes: unpacked once where they share a folder of this host, sent to each where they do not.
//!
//! The engine knows neither grounds nor stacks: it follows each agent's status until every node is usable. It never prints;
//! what happens goes to a [`Reporter`].

mod access;
mod archive;
mod down;
mod event;
mod events;
mod follow;
mod ground;
mod images;
pub mod kubeconfig;
mod load;
mod lock;
mod make;
mod observe;
mod ports;
mod prepare;
mod redact;
mod remote;
mod send;
mod services;
mod snapshot;
mod state;
mod steps;
mod stop;
mod transfer;
mod trouble;
mod up;
mod upgrade;
mod wanted;
mod writes;

pub use access::reachable_kubeconfig;
pub use archive::{ArchiveRequest, Archived, archive};
pub use down::{DownRequest, Downed, down};
pub use event::{Event, Progress, Reporter, StepState, Unit};
pub use events::{Entry, Events, Followed};
pub use follow::{Until, follow_until};
pub use ground::{GROUND_PATIENCE, Ground, other_ground};
pub use images::{ImageChoice, NodeImages, bring_image};
pub use load::{Archive, ContainerImages, LoadRequest, Loaded, load};
pub use lock::ClusterLock;
pub use observe::{About, ClusterStatus, NodeReport, NodeWord, cluster_status, unknown_status};
pub use ports::{Api, addresses_of_ground, published_ports};
pub use prepare::{PrepareRequest, Prepared, prepare};
pub use services::logged_units;
pub use snapshot::{
    DeleteRequest, ForkRequest, RestoreRequest, SaveRequest, Snapshot, Snapshots, delete_snapshots,
    fork, restore, save,
};
pub use state::{ClusterState, Restoring, StateDirectory};
pub use stop::{STOP_GRACE, StopRequest, stop};
pub use trouble::add_certificates;
pub use up::{UpOptions, Upped, up};
#[doc(hidden)]
pub use writes::watch_writes;
