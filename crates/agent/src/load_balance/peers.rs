//! Whether other nodes are there: a connection to each of interest, over which nothing is said. The kernels keep it up, and it ends when the
//! other node does. A node listens for as long as it can have addresses.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::sockopt;

use super::{failed, spawn};
use crate::logs::locked;

/// How long a node may be without a connection: its program may just be starting again.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a node may take to accept a connection.
const CONNECT: Duration = Duration::from_millis(500);
/// Between tries: while it may come back at once, and later.
const SOON: Duration = Duration::from_millis(100);
const LATER: Duration = Duration::from_secs(1);
/// A machine that is silent for so long, and after so many questions of the kernel, is gone.
const QUIET: Duration = Duration::from_secs(1);
const QUESTIONS: u32 = 3;

/// Connections that others can have to this node at once. More would be somebody's mistake.
const MOST: usize = 1024;

/// Listens for ever.
pub(super) fn listen(address: SocketAddr) -> Result<(), Problem> {
    let listener = TcpListener::bind(address)
        .map_err(|error| failed(format!("cannot listen at {address}"), &error))?;
    spawn("listener", move || accept(&listener))
}

fn accept(listener: &TcpListener) {
    let mut open: Vec<TcpStream> = Vec::new();
    loop {
        let waited = {
            let sockets = open.iter().map(|one| PollFd::new(one, PollFlags::IN));
            let mut set: Vec<PollFd<'_>> =
                [PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN)]
                    .into_iter()
                    .chain(sockets)
                    .collect();
            match poll(&mut set, None) {
                Ok(_) => set.iter().map(|one| !one.revents().is_empty()).collect::<Vec<_>>(),
                Err(_) => continue,
            }
        };
        // Nobody has anything to say: whoever is heard has gone.
        let mut ended = waited[1..].iter();
        open.retain(|_| ended.next() == Some(&false));
        if waited[0]
            && let Ok((stream, _)) = listener.accept()
            && open.len() < MOST
            && keep_up(&stream).is_ok()
        {
            open.push(stream);
        }
    }
}

fn keep_up(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, QUIET)?;
    sockopt::set_tcp_keepintvl(stream, QUIET)?;
    sockopt::set_tcp_keepcnt(stream, QUESTIONS)?;
    Ok(())
}

/// Is told of a node whether it is there.
type Tell = dyn Fn(&str, bool) + Send + Sync;

/// The nodes that are followed.
pub(super) struct Peers {
    tell: Arc<Tell>,
    followed: BTreeMap<String, Followed>,
}

struct Followed {
    address: SocketAddr,
    line: Arc<Line>,
}

#[derive(Default)]
struct Line {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stream: Option<TcpStream>,
    /// Nobody wants to know any more.
    ended: bool,
}

impl Peers {
    /// `tell` is told when a node is there for the first time, when it is lost, and when it is back.
    pub(super) fn new(tell: impl Fn(&str, bool) + Send + Sync + 'static) -> Self {
        Self { tell: Arc::new(tell), followed: BTreeMap::new() }
    }

    /// Whether a node is followed.
    pub(super) fn follows(&self, name: &str) -> bool {
        self.followed.contains_key(name)
    }

    /// Follows these nodes, and no others. Gives the names of those that are not followed any more.
    pub(super) fn follow(
        &mut self,
        wanted: &BTreeMap<String, SocketAddr>,
    ) -> Result<Vec<String>, Problem> {
        let stale = |(name, one): (&String, &Followed)| {
            (wanted.get(name) != Some(&one.address)).then(|| name.clone())
        };
        let stale: Vec<String> = self.followed.iter().filter_map(stale).collect();
        for name in &stale {
            if let Some(one) = self.followed.remove(name) {
                one.line.end();
            }
        }
        for (name, address) in wanted {
            if self.followed.contains_key(name) {
                continue;
            }
            let line = Arc::new(Line::default());
            let one = Followed { address: *address, line: Arc::clone(&line) };
            let (tell, address, node) = (Arc::clone(&self.tell), *address, name.clone());
            spawn("peer", move || line.follow(address, &|up| tell(&node, up)))?;
            self.followed.insert(name.clone(), one);
        }
        Ok(stale)
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.followed.values().for_each(|one| one.line.end());
    }
}

impl Line {
    fn end(&self) {
        let mut state = locked(&self.state);
        state.ended = true;
        if let Some(stream) = state.stream.take() {
            // The thread that reads it learns of it; one that is gone already has no need to.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn follow(&self, address: SocketAddr, tell: &dyn Fn(bool)) {
        // The first connection is told, too: whoever followed this node before may have said that it is lost.
        let (mut missed, mut told) = (Instant::now(), None);
        while !locked(&self.state).ended {
            if let Ok(stream) = self.connect(address) {
                if told.replace(true) != Some(true) {
                    self.tell(true, tell);
                }
                wait_for_end(stream);
                locked(&self.state).stream = None;
                missed = Instant::now();
            } else if told != Some(false) && missed.elapsed() >= PATIENCE {
                told = Some(false);
                self.tell(false, tell);
            }
            std::thread::sleep(if told == Some(false) { LATER } else { SOON });
        }
    }

    /// Says nothing after the end: another may follow the node by then.
    fn tell(&self, up: bool, tell: &dyn Fn(bool)) {
        let state = locked(&self.state);
        if !state.ended {
            tell(up);
        }
    }

    fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        keep_up(&stream)?;
        let mut state = locked(&self.state);
        if state.ended {
            return Err(io::ErrorKind::Interrupted.into());
        }
        state.stream = Some(stream.try_clone()?);
        Ok(stream)
    }
}

fn wait_for_end(mut stream: TcpStream) {
    let mut nothing = [0];
    while !matches!(stream.read(&mut nothing), Ok(0) | Err(_)) {}
}
