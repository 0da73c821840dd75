//! Watches over a member of an Incus cluster: a service of its own that a config may name (`bivouac agent guard`).
//!
//! ```text
//! [memory]  what is available --too little--> all instances of this member --[victim]--> one is stopped, by force after a grace
//! [health]  the cluster's own list of members --missed--> lenient?, how often? --[judge]--> the daemon is started anew
//! ```
//!
//! Both ask incusd over its socket ([`api`]), each on a thread of its own, so that an instance that is slow to stop does not keep the
//! other from looking. What they decide is pure, and all that they do is said.

mod api;
mod health;
mod memory;

use std::convert::Infallible;
use std::time::Duration;

use bivouac_spec::Problem;
use camino::Utf8PathBuf;

/// What is watched.
#[derive(Debug, Clone)]
pub struct GuardRequest {
    /// incusd's socket.
    pub socket: Utf8PathBuf,
    /// The service that incusd is.
    pub service: String,
    /// The name of this member.
    pub member: String,
    /// Its position among all members, from 0.
    pub position: usize,
    /// How many members there are.
    pub members: usize,
    /// When memory runs out; not watched when absent.
    pub memory: Option<MemoryWatch>,
    /// Whether the member takes part in the cluster; not watched when absent.
    pub health: Option<HealthWatch>,
}

/// When memory runs out.
#[derive(Debug, Clone, Copy)]
pub struct MemoryWatch {
    /// How often it is looked at.
    pub interval: Duration,
    /// What must be available, in bytes.
    pub minimum: u64,
    /// How long an instance may take to stop by itself.
    pub grace: Duration,
}

/// Whether the member takes part in the cluster.
#[derive(Debug, Clone, Copy)]
pub struct HealthWatch {
    /// How often it is asked.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many answers in a row may be missing.
    pub failures: u32,
    /// For how long the lower half of the members is left alone; for ever when absent.
    pub lenience: Option<Duration>,
}

/// Watches until a signal ends it. `say` is given a line for everything that is done.
///
/// # Errors
/// When there is nothing to watch, or a thread cannot be started.
pub fn guard(request: &GuardRequest, say: impl Fn(&str) + Sync) -> Result<Infallible, Problem> {
    let say: &(dyn Fn(&str) + Sync) = &say;
    std::thread::scope(|threads| {
        let mut watches = Vec::new();
        if let Some(watch) = request.memory {
            watches.push(threads.spawn(move || memory::watch(request, watch, say)));
        }
        if let Some(watch) = request.health {
            watches.push(threads.spawn(move || health::watch(request, watch, say)));
        }
        match watches.into_iter().next() {
            None => Err(Problem::usage("agent.guard.nothing", "there is nothing to watch")
                .help("name --memory-interval or --health-interval")),
            Some(watch) => match watch.join() {
                Ok(never) => match never {},
                Err(_) => Err(Problem::failed("agent.guard.ended", "a watch ended by itself")),
            },
        }
    })
}
