//! A cache of container images that the nodes of a host share (`bivouac agent image-cache`), a service of each node.
//!
//! ```text
//! containerd --[http]--> [question] --[exchange]--> [folder], which all nodes of the host share     it is there, and we may have it
//!     |                                   |             ^
//!     |                                   v             |
//!     |                              [upstream]: registries, with the node's passwords ([login]), authorities and proxy ([client])
//!     +--> registries, when this says no or is not there
//! ```
//!
//! containerd asks here first, for every registry. Layers, configs and manifests are named by what they are, so that whoever has one has the
//! right one; a registry is asked for it once, by one node of the host, and it goes to containerd while it is written. Tags change, so
//! that the registry is asked what they mean each time, and only while it is away is it what it said last, to this cluster: names of
//! registries may lead others elsewhere.
//!
//! Who may have what is decided by registries: a node gets from here what a registry gave to a node that asked in the same way (the same
//! mirrors, the same user and password), and all else after a registry said that it may (a `HEAD` with the node's own password). Only a
//! registry that once sent it is believed: any other may say yes to what it never had, and is asked for the whole of it. What
//! those with a pod's own password pull does not come through here, because containerd does not tell it. Who a registry is must be
//! [verified][trust] for that: what came unverified is for nodes of the same cluster only.
//!
//! Nothing breaks by it: with any answer that is no success containerd goes on to the registry itself, and nothing that is served differs
//! unseen from what its name says, since containerd checks it. It is synchronous: a thread for each connection of one containerd.

mod client;
mod exchange;
mod folder;
mod http;
mod login;
mod owner;
mod question;
mod room;
mod tidy;
mod trust;
mod upstream;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bivouac_spec::Problem;
use bivouac_spec::node::ImageCache;
use camino::{Utf8Path, Utf8PathBuf};

use client::Proxies;
use exchange::Cache;
use folder::Folder;
use http::Request;
use upstream::Registries;

pub use tidy::{CacheUsage, cache_usage, empty_cache};

/// Connections at once. More would be somebody's mistake.
const MOST: usize = 256;
/// How long a connection may be idle, and how long a client may not take what it asked for.
const IDLE: Duration = Duration::from_secs(90);
const STALLED: Duration = Duration::from_secs(300);
/// For TLS; what is copied is on the heap.
const STACK: usize = 512 << 10;

/// What is cached, and where.
#[derive(Debug, Clone)]
pub struct ImageCacheRequest {
    /// Where containerd asks.
    pub listen: SocketAddr,
    /// The folder that nodes share.
    pub folder: Utf8PathBuf,
    /// A file with an [`ImageCache`].
    pub config: Utf8PathBuf,
}

/// Says what happens.
type Log = Arc<dyn Fn(&str) + Send + Sync>;

/// Answers for ever. `log` gets a line for what is fetched, and for all that is not as it should be.
///
/// # Errors
/// The config cannot be read, or it cannot listen.
pub fn image_cache(
    request: &ImageCacheRequest,
    log: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Infallible, Problem> {
    let config = read(&request.config)?;
    let folder = Folder::open(&request.folder);
    if let Err(error) = &folder {
        log(&format!("{} cannot be used, and nothing is kept: {error}", request.folder));
    }
    let listen = request.listen;
    let cannot = |error| {
        Problem::failed("agent.image_cache.listen", format!("cannot listen at {listen}"))
            .because(&error)
    };
    let listener = TcpListener::bind(listen).map_err(cannot)?;
    log(&format!("listens at {}", listener.local_addr().map_err(cannot)?));
    let registries = Registries::new(config.cluster.clone(), Proxies::of_environment());
    let cache = Cache { config, folder: folder.ok(), registries, log: Arc::new(log) };
    // The agent starts it again then.
    Err(cannot(accept(&listener, &Arc::new(cache))))
}

fn read(path: &Utf8Path) -> Result<ImageCache, Problem> {
    let failed = |error: &dyn std::error::Error| {
        Problem::failed("agent.image_cache.config", format!("{path} cannot be read")).because(error)
    };
    let text = std::fs::read(path).map_err(|error| failed(&error))?;
    // What is wrong with it may be a password.
    serde_json::from_slice(&text).map_err(|error| {
        failed(&io::Error::other(format!("line {}, column {}", error.line(), error.column())))
    })
}

/// Takes connections until none can be taken.
fn accept(listener: &TcpListener, cache: &Arc<Cache>) -> io::Error {
    let count = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            // It was ended before it was taken.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return error,
        };
        let open = Open::new(&count);
        if count.load(Ordering::Relaxed) > MOST {
            continue;
        }
        let shared = Arc::clone(cache);
        let serve = move || {
            // How a connection ends concerns its two sides, and both know it.
            let _ = serve(stream, &shared);
            drop(open);
        };
        let thread = std::thread::Builder::new().name("connection".to_owned()).stack_size(STACK);
        if let Err(error) = thread.spawn(serve) {
            (cache.log)(&format!("a connection is not taken: {error}"));
        }
    }
}

/// A connection that counts for as long as it is open.
struct Open(Arc<AtomicUsize>);

impl Open {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn serve(mut stream: TcpStream, cache: &Cache) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    stream.set_write_timeout(Some(STALLED))?;
    let mut left = Vec::new();
    while let Some(request) = Request::read(&mut stream, &mut left)? {
        let keeps = cache.answer(&request, &mut stream)?;
        if !keeps || !request.keeps {
            break;
        }
    }
    Ok(())
}
