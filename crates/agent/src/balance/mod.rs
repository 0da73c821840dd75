//! A load balancer for connections (layer 4) that follows the real health of its backends: clients inside a node reach any of
//! several API servers at one address that never changes.
//!
//! ```text
//! client --> listener --[choice]--> a backend that is up, with the fewest connections --> bytes both ways, until one side ends
//!                          ^                                                                or there is a better backend
//!               [health]   |
//! Unknown --asked, yes--> Up --no twice, or refuses a connection--> Out --yes--> Up
//! ```
//!
//! A backend is asked over HTTPS for as long as the balancer lives, soon again while the answer is not yes. When it goes out
//! while another one is up, all connections to it are closed: clients of a machine that is gone would otherwise wait for minutes,
//! HTTP/2 watches above all, and now they connect again at once, to the other one. Without another one they stay: two slow answers
//! of a busy server are no reason to have all its clients come again at once. They are closed when another backend comes up first,
//! or when a connection to this one is refused. When no backend is known to be up, all are tried.
//!
//! It runs on one thread with tokio: a connection is a task with two small buffers, not a thread, and copying both ways with
//! half-closed sides is tokio's own code. The few questions to backends block in threads of their own, because they are asked by the
//! same client as the probes of services. Nothing is read again: who changes a backend or the authority starts it anew. It needs no
//! orderly end either: a signal ends it, and its connections with it.

mod backend;
mod choice;
mod proxy;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_spec::node::{HttpRequest, Tls};
use bivouac_sys::process::{Resource, set_limit};
use camino::Utf8PathBuf;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::{LocalSet, spawn_local};

use backend::Backend;

/// How long a backend may take to answer a question, and to accept a connection before the next one is tried.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is balanced.
#[derive(Debug, Clone)]
pub struct BalanceRequest {
    /// Where clients connect.
    pub listen: Vec<SocketAddr>,
    /// Where they are connected to.
    pub backends: Vec<SocketAddr>,
    /// The backend that is taken whenever it is up.
    pub prefer: Option<SocketAddr>,
    /// What each backend is asked for over HTTPS; any 2xx means that it is up.
    pub check_path: String,
    /// Certificates of the authority that vouches for the addresses of the backends, PEM.
    pub authority: Utf8PathBuf,
}

/// What the tasks of a balancer share.
struct Balancer {
    backends: Vec<Rc<Backend>>,
    prefer: Option<usize>,
    patience: Duration,
    /// So that equal backends take turns.
    turn: std::cell::Cell<usize>,
    log: Box<dyn Fn(&str)>,
}

/// Balances for ever. `log` gets a line when a listener is open, and when a backend comes or goes.
///
/// # Errors
/// It cannot listen, or it is told of no backend.
pub fn balance(
    request: &BalanceRequest,
    log: impl Fn(&str) + 'static,
) -> Result<Infallible, Problem> {
    balance_patiently(request, PATIENCE, log)
}

/// The same with another patience than [`PATIENCE`].
fn balance_patiently(
    request: &BalanceRequest,
    patience: Duration,
    log: impl Fn(&str) + 'static,
) -> Result<Infallible, Problem> {
    let prefer = check(request)?;
    // Two descriptors a connection.
    let hard = rustix::process::getrlimit(Resource::Nofile).maximum;
    if let Err(error) = set_limit(Resource::Nofile, hard, hard) {
        log(&format!("{error}: {}", error.cause()));
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        // One question at a time to each.
        .max_blocking_threads(request.backends.len())
        .thread_stack_size(1 << 20)
        .build()
        .map_err(|error| Problem::failed("agent.balance", "cannot start").because(&error))?;
    let backends = request.backends.iter().map(|address| {
        let url = format!("https://{address}{}", request.check_path);
        let tls = Tls { authority: request.authority.clone(), identity: None };
        Rc::new(Backend::new(*address, HttpRequest::get(url).tls(tls)))
    });
    let balancer = Rc::new(Balancer {
        backends: backends.collect(),
        prefer,
        patience,
        turn: std::cell::Cell::new(0),
        log: Box::new(log),
    });
    let tasks = LocalSet::new();
    tasks.block_on(&runtime, balancer.run(&request.listen))
}

/// The place of the preferred backend.
fn check(request: &BalanceRequest) -> Result<Option<usize>, Problem> {
    let wrong = |text: String| Problem::usage("agent.balance.arguments", text);
    if request.listen.is_empty() || request.backends.is_empty() {
        return Err(wrong("name at least one address to listen at and one backend".to_owned()));
    }
    if !request.check_path.starts_with('/') {
        return Err(wrong(format!("`{}` is no path", request.check_path)));
    }
    let place = |prefer| request.backends.iter().position(|backend| *backend == prefer);
    match request.prefer {
        None => Ok(None),
        Some(prefer) => match place(prefer) {
            None => Err(wrong(format!("{prefer} is preferred and is no backend"))),
            found => Ok(found),
        },
    }
}

impl Balancer {
    async fn run(self: Rc<Self>, listen: &[SocketAddr]) -> Result<Infallible, Problem> {
        for backend in &self.backends {
            spawn_local(Rc::clone(backend).follow(Rc::clone(&self)));
        }
        for address in listen {
            let cannot = |error| {
                let text = format!("cannot listen at {address}");
                Problem::failed("agent.balance.listen", text).because(&error)
            };
            let listener = TcpListener::bind(address).await.map_err(cannot)?;
            let bound = listener.local_addr().map_err(cannot)?;
            (self.log)(&format!("listens at {bound}"));
            spawn_local(Rc::clone(&self).accept(listener));
        }
        std::future::pending().await
    }
}
