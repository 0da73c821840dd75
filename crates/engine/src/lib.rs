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
//! The engine knows neither grounds nor stacks: it follows each agent's status until every node is usable. It never prints;
//! what happens goes to a [`Reporter`].

mod down;
mod event;
mod follow;
pub mod kubeconfig;
mod lock;
mod observe;
mod state;
mod up;

pub use down::{DownRequest, Downed, down};
pub use event::{Event, Progress, Reporter, StepState, Unit};
pub use follow::follow_until_usable;
pub use lock::ClusterLock;
pub use observe::{ClusterStatus, NodeReport, cluster_status};
pub use state::{ClusterState, StateDirectory};
pub use up::{NodeImages, Prepared, UpRequest, Upped, prepare, reachable_kubeconfig, up};
