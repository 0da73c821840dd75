//! Links, addresses and routes, through a small synchronous rtnetlink socket.
//!
//! A [`Route`] socket belongs to the network namespace in which its thread was when it was opened, and stays there
//! wherever the thread goes later: open one in each namespace of interest, then use them side by side.
//!
//! What bivouac owns is labelled by the alias of a link (`IFLA_IFALIAS`) and by the protocol number of a route.

mod address;
mod link;
mod message;
mod route;

pub use address::Address;
pub use link::{Link, Peer, VethRequest};
pub use message::Route;
pub use route::RouteEntry;
