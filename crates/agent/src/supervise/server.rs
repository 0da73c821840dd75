//! The agent's socket. Nothing here blocks: a client that does not read gets the newest status when it does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};

use bivouac_spec::Problem;
use camino::Utf8Path;
use rustix::event::epoll::{self, EventData, EventFlags};

use crate::protocol::{Reply, Request};

/// Longest request.
const MAX_REQUEST: usize = 64 << 10;

/// The listening socket and its clients.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    clients: BTreeMap<u64, Client>,
    next: u64,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
    follows: bool,
    /// The status that was last sent.
    version: u64,
    /// Closed when everything is sent.
    ends: bool,
}

/// The newest status as a line, and its number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest<'a> {
    pub(super) line: &'a str,
    pub(super) version: u64,
}

impl Server {
    /// Listens; clients get tokens from `first` on in the poll set.
    pub(super) fn open(path: &Utf8Path, first: u64) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, clients: BTreeMap::new(), next: first })
    }

    pub(super) fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Takes all clients that wait to be.
    pub(super) fn accept(&mut self, poll: &OwnedFd) {
        while let Ok((stream, _)) = self.listener.accept() {
            let token = self.next;
            self.next += 1;
            let watched = stream.set_nonblocking(true).is_ok()
                && epoll::add(poll, &stream, EventData::new_u64(token), EventFlags::IN).is_ok();
            if watched {
                self.clients.insert(token, Client::new(stream));
            }
        }
    }

    /// Reads what a client sent; returns its whole requests. A client that went away is forgotten, but not before its last
    /// requests are answered: the poll set tells of its end again.
    pub(super) fn read(&mut self, token: u64) -> Vec<Result<Request, Problem>> {
        let Some(client) = self.clients.get_mut(&token) else { return Vec::new() };
        let is_there = client.receive();
        let requests = client.requests();
        if !is_there && requests.is_empty() {
            self.clients.remove(&token);
        }
        requests
    }

    /// Answers a request for the status.
    pub(super) fn send_status(
        &mut self,
        token: u64,
        follow: bool,
        newest: Newest<'_>,
        poll: &OwnedFd,
    ) {
        if let Some(client) = self.clients.get_mut(&token) {
            client.follows = follow;
            client.ends = !follow;
            client.version = newest.version;
            client.unsent.extend_from_slice(newest.line.as_bytes());
            self.flush(token, newest, poll);
        }
    }

    /// Answers any other request. With `stays` the client may ask for more.
    pub(super) fn send(
        &mut self,
        token: u64,
        reply: &Reply,
        stays: bool,
        newest: Newest<'_>,
        poll: &OwnedFd,
    ) {
        if let Some(client) = self.clients.get_mut(&token) {
            let line = serde_json::to_string(reply).expect("replies have string keys only");
            client.unsent.extend_from_slice(line.as_bytes());
            client.unsent.push(b'\n');
            client.ends = !stays;
            self.flush(token, newest, poll);
        }
    }

    /// Whether the client is still there.
    pub(super) fn has(&self, token: u64) -> bool {
        self.clients.contains_key(&token)
    }

    /// Lets a client go.
    pub(super) fn dismiss(&mut self, token: u64) {
        self.clients.remove(&token);
    }

    /// The process at the other end of a client, in the agent's own pid namespace; `None` if it is in none below.
    pub(super) fn process_of(&self, token: u64) -> Option<u32> {
        bivouac_sys::process::peer_of(&self.clients.get(&token)?.stream).ok().flatten()
    }

    /// Sends the newest status to all that follow.
    pub(super) fn publish(&mut self, newest: Newest<'_>, poll: &OwnedFd) {
        for token in self.clients.keys().copied().collect::<Vec<_>>() {
            self.flush(token, newest, poll);
        }
    }

    /// Sends what is unsent, and then the newest status where one is due.
    pub(super) fn flush(&mut self, token: u64, newest: Newest<'_>, poll: &OwnedFd) {
        let Some(client) = self.clients.get_mut(&token) else { return };
        if client.unsent.is_empty() && client.follows && client.version < newest.version {
            client.version = newest.version;
            client.unsent.extend_from_slice(newest.line.as_bytes());
        }
        let gone = !client.transmit();
        if gone || (client.ends && client.unsent.is_empty()) {
            self.clients.remove(&token);
            return;
        }
        let mut flags = EventFlags::IN;
        flags.set(EventFlags::OUT, !client.unsent.is_empty());
        let _ = epoll::modify(poll, client.stream.as_fd(), EventData::new_u64(token), flags);
    }
}

impl Client {
    fn new(stream: UnixStream) -> Self {
        let (received, unsent) = (Vec::new(), Vec::new());
        Self { stream, received, unsent, follows: false, version: 0, ends: false }
    }

    /// False: the client went away, or sends nonsense.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return error.kind() == io::ErrorKind::WouldBlock
                        && self.received.len() <= MAX_REQUEST;
                }
            }
        }
    }

    fn requests(&mut self) -> Vec<Result<Request, Problem>> {
        let mut requests = Vec::new();
        while let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.received.drain(..=end).collect();
            requests.push(serde_json::from_slice(&line).map_err(|error| {
                Problem::usage("agent.socket.request", "not a request").because(&error)
            }));
        }
        requests
    }

    /// False: the client went away.
    fn transmit(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        true
    }
}
