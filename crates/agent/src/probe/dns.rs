//! A DNS question over UDP, from the node itself or from within a pod's network.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use bivouac_spec::node::{Dns, Vantage};
use bivouac_sys::namespace::{Namespace, enter_fd};
use camino::Utf8Path;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::clock;
use crate::processes::reason;

/// A question is repeated so often while there is no answer.
const AGAIN: Duration = Duration::from_millis(100);

/// Asks until there is an answer with an address or the timeout passes.
///
/// Every repetition uses a new socket, and so a new port: a flow that began before the rules of a service were there keeps
/// going to nowhere, because the kernel decides about translation once a flow. All of them are listened to until the end, so that a
/// server may take longer than the time between two.
pub(super) fn ask(dns: &Dns, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let (mut asked, mut round) = (Vec::new(), 0);
    loop {
        let refusal = ask_again(&mut asked, round, dns)?;
        let until = (Instant::now() + AGAIN).min(deadline);
        // Only silence is worth asking again at once; whatever else was seen is the answer to this try.
        if let Some(answer) = listen(&mut asked, round, refusal, dns, until) {
            return answer;
        }
        if until == deadline {
            let after = clock::render(timeout);
            return Err(format!("no answer from {} within {after}", dns.server));
        }
        round += 1;
    }
}

/// Asks from each place once more. Gives why not, where one could not be asked from.
fn ask_again(asked: &mut Vec<Asked>, round: u32, dns: &Dns) -> Result<Option<String>, String> {
    let sockets = match &dns.from {
        Vantage::Node => vec![open_socket(dns.server).map_err(|error| reason(&error))],
        Vantage::Pod { directory } => sockets_of_pods(directory, dns.server)?,
    };
    let mut refusal = None;
    for socket in sockets {
        match socket.and_then(|socket| Asked::new(socket, round, dns, TYPE::A)) {
            Ok(question) => asked.push(question),
            Err(text) => refusal = Some(text),
        }
    }
    Ok(refusal)
}

/// Listens until somebody has an address, or all questions of this round have another answer.
fn listen(
    asked: &mut Vec<Asked>,
    round: u32,
    mut seen: Option<String>,
    dns: &Dns,
    until: Instant,
) -> Option<Result<(), String>> {
    loop {
        let mut found = false;
        asked.retain_mut(|question| match question.hear(dns) {
            None => true,
            Some(Ok(())) => {
                found = true;
                false
            }
            Some(Err(text)) => {
                if question.round == round {
                    seen = Some(text);
                }
                false
            }
        });
        if found {
            return Some(Ok(()));
        }
        if asked.iter().all(|question| question.round != round) {
            return seen.map(Err);
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        if let Err(error) = wait(asked, left) {
            return Some(Err(reason(&error)));
        }
    }
}

/// Until one of them has something to say.
fn wait(asked: &[Asked], most: Duration) -> io::Result<()> {
    let mut set: Vec<PollFd<'_>> =
        asked.iter().map(|question| PollFd::new(&question.socket, PollFlags::IN)).collect();
    let most = Timespec::try_from(most).map_err(io::Error::other)?;
    match poll(&mut set, Some(&most)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A question that was sent.
struct Asked {
    socket: UdpSocket,
    round: u32,
    id: u16,
    kind: TYPE,
}

impl Asked {
    fn new(socket: UdpSocket, round: u32, dns: &Dns, kind: TYPE) -> Result<Self, String> {
        let mut asked = Self { socket, round, id: 0, kind };
        asked.send(dns, kind)?;
        Ok(asked)
    }

    fn send(&mut self, dns: &Dns, kind: TYPE) -> Result<(), String> {
        (self.id, self.kind) = (query_id(), kind);
        let query = render_query(self.id, &dns.name, kind)?;
        self.socket.send(&query).map(drop).map_err(|error| reason(&error))
    }

    /// What was answered, if anything. Without an address of the one family the other is asked for.
    fn hear(&mut self, dns: &Dns) -> Option<Result<(), String>> {
        let mut buffer = [0; 4096];
        loop {
            let count = match self.socket.recv(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Err(reason(&error))),
            };
            // None: not the answer to this question but an earlier one's, or noise.
            match judge(&buffer[..count], self.id) {
                None => {}
                Some(Ok(())) => return Some(Ok(())),
                Some(Err(Miss::Said(text))) => return Some(Err(text)),
                Some(Err(Miss::NoAddress)) if self.kind == TYPE::A => {
                    if let Err(text) = self.send(dns, TYPE::AAAA) {
                        return Some(Err(text));
                    }
                }
                Some(Err(Miss::NoAddress)) => {
                    return Some(Err("an answer without an address".to_owned()));
                }
            }
        }
    }
}

/// What was answered instead of an address.
enum Miss {
    NoAddress,
    Said(String),
}

/// A socket in the network of each pod but the server's own.
fn sockets_of_pods(
    directory: &Utf8Path,
    server: SocketAddr,
) -> Result<Vec<Result<UdpSocket, String>>, String> {
    let sockets: Vec<_> = namespaces(directory)
        .iter()
        .filter_map(|namespace| socket_inside(namespace, server).transpose())
        .collect();
    if sockets.is_empty() {
        return Err(format!("no pod has a network in {directory} yet"));
    }
    Ok(sockets)
}

fn namespaces(directory: &Utf8Path) -> Vec<File> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter().filter_map(|path| File::open(path).ok()).collect()
}

/// A socket of that network; `None` when the server's address is its own. A socket stays in the network that it was made in,
/// so only making it needs a thread of its own, which ends with the namespace it entered.
fn socket_inside(namespace: &File, server: SocketAddr) -> Result<Option<UdpSocket>, String> {
    let enter = || -> Result<Option<UdpSocket>, String> {
        enter_fd(namespace.as_fd(), Namespace::Network)
            .map_err(|error| format!("{error}: {}", error.cause()))?;
        // Only an own address can be bound.
        if UdpSocket::bind(SocketAddr::new(server.ip(), 0)).is_ok() {
            return Ok(None);
        }
        open_socket(server).map(Some).map_err(|error| reason(&error))
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, enter);
        let thread = thread.map_err(|error| reason(&error))?;
        thread.join().unwrap_or_else(|_| Err("the thread in the namespace panicked".to_owned()))
    })
}

fn open_socket(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected: the kernel then hands over answers of this server only, and its refusals too.
    socket.connect(server)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn query_id() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn render_query(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, String> {
    let wrong = |error: simple_dns::SimpleDnsError| format!("cannot ask for `{name}`: {error}");
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let qname = Name::new(name).map_err(wrong)?;
    packet.questions.push(Question::new(qname, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(wrong)
}

fn judge(bytes: &[u8], id: u16) -> Option<Result<(), Miss>> {
    let packet = Packet::parse(bytes).ok()?;
    if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) {
        return None;
    }
    let is_address = |data: &RData<'_>| matches!(data, RData::A(_) | RData::AAAA(_));
    let said = |text: &str| Some(Err(Miss::Said(text.to_owned())));
    match packet.rcode() {
        RCODE::NoError if packet.answers.iter().any(|record| is_address(&record.rdata)) => {
            Some(Ok(()))
        }
        RCODE::NoError => Some(Err(Miss::NoAddress)),
        RCODE::NameError => said("the name does not exist"),
        RCODE::ServerFailure => said("the server failed"),
        RCODE::Refused => said("the server refused the question"),
        other => said(&format!("the server answered {other:?}")),
    }
}
