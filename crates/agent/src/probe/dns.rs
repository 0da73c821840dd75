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
use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::clock;
use crate::processes::reason;

/// The first wait for an answer; doubled with every repetition within one try.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// Asks until there is an answer with an address or the timeout passes.
///
/// Every repetition uses a new socket, and so a new port: a flow that began before the rules of a service were there keeps
/// going to nowhere, because the kernel decides about translation once a flow.
pub(super) fn ask(dns: &Dns, timeout: Duration) -> Result<(), String> {
    let deadline = Instant::now() + timeout;
    let mut wait = FIRST_WAIT;
    loop {
        let miss = match &dns.from {
            Vantage::Node => open_socket(dns.server)
                .map_err(Miss::from)
                .and_then(|socket| ask_once(&socket, dns, wait)),
            Vantage::Pod { directory } => ask_from_pods(dns, directory, wait, deadline),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        match miss {
            Ok(()) => return Ok(()),
            // Only silence is worth asking again at once; whatever else was seen is the answer to this try.
            Err(Miss::Silence) if left > Duration::ZERO => wait = (wait * 2).min(left),
            Err(Miss::Silence) => {
                let after = clock::render(timeout);
                return Err(format!("no answer from {} within {after}", dns.server));
            }
            Err(Miss::NoAddress) => return Err("an answer without an address".to_owned()),
            Err(Miss::Said(text)) => return Err(text),
        }
    }
}

/// What was seen instead of an address.
enum Miss {
    Silence,
    NoAddress,
    Said(String),
}

impl From<io::Error> for Miss {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Self::Silence,
            _ => Self::Said(reason(&error)),
        }
    }
}

fn ask_from_pods(
    dns: &Dns,
    directory: &Utf8Path,
    wait: Duration,
    deadline: Instant,
) -> Result<(), Miss> {
    let mut seen = Err(Miss::Said(format!("no pod has a network in {directory} yet")));
    for namespace in namespaces(directory) {
        if Instant::now() >= deadline {
            break;
        }
        match socket_inside(&namespace, dns.server) {
            Ok(None) => {}
            Ok(Some(socket)) => match ask_once(&socket, dns, wait) {
                Ok(()) => return Ok(()),
                miss => seen = miss,
            },
            Err(text) => seen = Err(Miss::Said(text)),
        }
    }
    seen
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
    Ok(socket)
}

fn ask_once(socket: &UdpSocket, dns: &Dns, wait: Duration) -> Result<(), Miss> {
    match ask_kind(socket, dns, TYPE::A, wait) {
        Err(Miss::NoAddress) => ask_kind(socket, dns, TYPE::AAAA, wait),
        other => other,
    }
}

fn ask_kind(socket: &UdpSocket, dns: &Dns, kind: TYPE, wait: Duration) -> Result<(), Miss> {
    let id = query_id();
    let query = render_query(id, &dns.name, kind).map_err(Miss::Said)?;
    let deadline = Instant::now() + wait;
    socket.send(&query)?;
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Miss::Silence);
        }
        socket.set_read_timeout(Some(left))?;
        let count = socket.recv(&mut buffer)?;
        // None: not the answer to this question but an earlier one's, or noise.
        if let Some(answer) = judge(&buffer[..count], id) {
            return answer;
        }
    }
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
