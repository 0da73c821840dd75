//! One try of a probe: a question is asked once, and the answer is yes or what was seen instead, as a short sentence.

mod dns;
mod http;

#[cfg(test)]
mod tests;

use std::net::TcpStream;
use std::time::Duration;

use bivouac_spec::node::{Check, Probe};
use camino::Utf8Path;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

pub(crate) use http::{Clients, certificates, describe, judge, message, patient};

use crate::options::Places;
use crate::processes::{Processes, reason};

/// What probes share: connections that are kept between tries, and the agent's children.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tools {
    pub(crate) clients: Clients,
    pub(crate) processes: Processes,
    pub(crate) places: Places,
}

/// Asks once; takes no longer than the probe's timeout.
///
/// # Errors
/// What was seen: `connection refused`, `HTTP 503`, `2 of 3 nodes are Ready`.
pub(crate) fn ask(probe: &Probe, tools: &Tools) -> Result<(), String> {
    let timeout: Duration = probe.timeout.duration();
    match &probe.check {
        Check::Socket(path) => {
            let path = tools.places.inside(path);
            try_connect(&path).map_err(|error| match error {
                Errno::NOENT => format!("{path} does not exist yet"),
                Errno::AGAIN => "it is too busy to take a connection".to_owned(),
                _ => reason(&error.into()),
            })
        }
        Check::Tcp(address) => {
            TcpStream::connect_timeout(address, timeout).map(drop).map_err(|error| reason(&error))
        }
        Check::Http { request, expect } => {
            let reply = tools.clients.send(request, timeout)?;
            http::judge(&reply, expect)
        }
        Check::File(path) => match tools.places.inside(path).try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("{path} does not exist yet")),
            Err(error) => Err(format!("{path}: {}", reason(&error))),
        },
        Check::Exec(argv) => tools.processes.finish(argv, Some(timeout), None),
        Check::Dns(question) => dns::ask(question, timeout),
    }
}

/// Connects to a stream socket without waiting: a server that takes no connections would keep a blocking caller for ever.
fn try_connect(path: &Utf8Path) -> Result<(), Errno> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    connect(&socket, &SocketAddrUnix::new(path.as_std_path())?)
}
