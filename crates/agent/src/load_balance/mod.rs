//! Addresses for Services of type `LoadBalancer` (`bivouac agent load-balance`), a service of every node.
//!
//! ```text
//!              Services --[watch]--> [book]: which Service has which address       the control planes; what they agreed is in the API
//!                          |           |  status of the Service
//! Nodes, EndpointSlices    v           v
//!        --[watch]--> [holder]: which node has which address now --> [interface]: added there, and the neighbours are told
//!                          ^
//! [peers]: a connection to who has it now, which ends when that node does
//! ```
//!
//! The addresses are a part of the network between the nodes that no node gets. Whoever asks for one on that network finds the one node
//! that has it on its interface; there, kube-proxy does for it what it does for every address of a Service. All decisions are pure, and
//! every node comes to them alone, from what the API says: there is nobody to elect.
//!
//! Where several control planes give addresses at once, the first one to write the book wins, and the others read it again. A node that is
//! lost is missed by those next in line within a second or two, because their connection to it ends; the API says so only after most of a
//! minute. When this program is stopped in order, its addresses go; when it is killed, they are still there when it starts again.
//!
//! Each watch is a thread that mostly waits, because the client that asks the API blocks. Nothing is asked twice while nothing changes,
//! and without such Services there is one watch and nothing else.

mod allocator;
mod api;
mod book;
mod holder;
mod interface;
mod object;
mod peers;
mod state;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bivouac_spec::node::Tls;
use bivouac_spec::{AddressRange, NodeName, Problem};

/// What is balanced, and for whom.
#[derive(Debug, Clone)]
pub struct LoadBalanceRequest {
    /// This node.
    pub node: NodeName,
    /// Where the API is.
    pub server: SocketAddr,
    /// Whom to trust there, and who this is.
    pub tls: Tls,
    /// This node's own address, and the port at which nodes hear whether the others are there.
    pub listen: SocketAddr,
    /// What Services can have.
    pub ranges: Vec<AddressRange>,
    /// Addresses in the ranges that they cannot have after all.
    pub except: BTreeSet<IpAddr>,
    /// Whether this node gives addresses, and not only has them.
    pub allocate: bool,
}

/// Says what happens.
type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Balances until a signal ends it, and leaves no address behind. `log` gets a line for everything that changes. Call it before there are
/// other threads.
///
/// # Errors
/// The node's own address is not there, or a thread cannot be started.
pub fn load_balance(
    request: &LoadBalanceRequest,
    log: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), Problem> {
    state::run(request, Arc::new(log))
}

fn failed(text: impl Into<String>, cause: &dyn std::error::Error) -> Problem {
    Problem::failed("agent.load_balance", text).because(cause)
}

/// Starts a thread that lives as long as it likes. Its stack is small: what it reads is on the heap.
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), Problem> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(512 << 10);
    thread.spawn(run).map(drop).map_err(|error| failed("cannot start a thread", &error))
}
