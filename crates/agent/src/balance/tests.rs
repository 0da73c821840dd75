//! A balancer, backends and clients over real sockets of the loopback interface.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::backend::{Health, State, Turn};
use super::*;

/// It only ends what hangs.
const PATIENCE: Duration = Duration::from_secs(120);
/// The first byte of a TLS connection; clients of the tests say something else.
const HANDSHAKE: u8 = 22;

/// A server that answers questions for its health over TLS, and to every other connection says its name and then what it hears.
struct Server {
    address: SocketAddr,
    healthy: Arc<AtomicBool>,
    /// False: whoever connects is refused.
    open: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: Option<thread::JoinHandle<()>>,
}

struct World {
    folder: tempfile::TempDir,
    /// Of these servers alone: a port of one that closes is nobody else's.
    address: Ipv4Addr,
    tls: Arc<ServerConfig>,
}

struct Balanced {
    address: SocketAddr,
    lines: Receiver<String>,
    seen: Mutex<Vec<String>>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let server_key = KeyPair::generate().unwrap();
        let address = crate::testing::loopback();
        let names = vec![address.to_string(), "::1".to_owned()];
        let server =
            CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
        std::fs::write(folder.path().join("ca.crt"), authority.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![server.der().clone()], key)
            .unwrap();
        Self { folder, address, tls: Arc::new(config) }
    }

    fn server(&self, name: &'static str) -> Server {
        self.server_at(name, SocketAddr::new(self.address.into(), 0))
    }

    fn server_at(&self, name: &'static str, address: SocketAddr) -> Server {
        let listener = TcpListener::bind(address).unwrap();
        let mut server = Server {
            address: listener.local_addr().unwrap(),
            healthy: Arc::new(AtomicBool::new(true)),
            open: Arc::new(AtomicBool::new(true)),
            accepted: Arc::default(),
            thread: None,
        };
        let (healthy, open) = (Arc::clone(&server.healthy), Arc::clone(&server.open));
        let (accepted, tls) = (Arc::clone(&server.accepted), Arc::clone(&self.tls));
        server.thread = Some(thread::spawn(move || {
            for stream in listener.incoming() {
                if !open.load(Ordering::SeqCst) {
                    return;
                }
                let (healthy, accepted, tls) =
                    (Arc::clone(&healthy), Arc::clone(&accepted), Arc::clone(&tls));
                thread::Builder::new()
                    .stack_size(256 << 10)
                    .spawn(move || answer(stream.unwrap(), name, &tls, &healthy, &accepted))
                    .unwrap();
            }
        }));
        server
    }

    fn balance(&self, servers: &[&Server], prefer: Option<&Server>) -> Balanced {
        let request = BalanceRequest {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            backends: servers.iter().map(|server| server.address).collect(),
            prefer: prefer.map(|server| server.address),
            check_path: "/readyz".to_owned(),
            authority: self.authority(),
        };
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            // It lives as long as the test program.
            let log = move |line: &str| drop(sender.send(line.to_owned()));
            balance_patiently(&request, PATIENCE, log)
        });
        let seen = Mutex::default();
        let address = "0.0.0.0:0".parse().unwrap();
        let mut balanced = Balanced { address, lines, seen };
        let line = balanced.until(|line| line.starts_with("listens at "));
        balanced.address = line.trim_start_matches("listens at ").parse().unwrap();
        balanced
    }

    fn authority(&self) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.folder.path().join("ca.crt")).unwrap()
    }
}

fn answer(
    stream: TcpStream,
    name: &str,
    tls: &Arc<ServerConfig>,
    healthy: &AtomicBool,
    accepted: &AtomicUsize,
) {
    let mut first = [0];
    if stream.peek(&mut first).unwrap_or(0) == 1 && first[0] == HANDSHAKE {
        let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        let mut line = String::new();
        while stream.read_line(&mut line).is_ok_and(|count| count > 0) {
            if line == "\r\n" {
                let status = if healthy.load(Ordering::SeqCst) { 200 } else { 503 };
                let reply = format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n");
                if stream.get_mut().write_all(reply.as_bytes()).is_err() {
                    return;
                }
            }
            line.clear();
        }
        return;
    }
    accepted.fetch_add(1, Ordering::SeqCst);
    let mut stream = stream;
    let _ = writeln!(stream, "{name}");
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
    // Only who forwards half of an end gets here while the client still reads.
    let _ = stream.write_all(b"end");
}

impl Server {
    /// Refuses connections from now on; those that are open stay.
    fn close(&mut self) {
        self.open.store(false, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
        // A child of another test may have been given it before it executes.
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_ok() {
            assert!(Instant::now() < deadline, "somebody listens at {}", self.address);
            thread::yield_now();
        }
    }

    fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::SeqCst);
    }
}

impl Balanced {
    fn until(&self, fits: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let Ok(line) = line else { panic!("never: {:?}", self.seen.lock().unwrap()) };
            self.seen.lock().unwrap().push(line.clone());
            if fits(&line) {
                return line;
            }
        }
    }

    /// Waits until the log says this of the server.
    fn says(&self, server: &Server, what: &str) -> String {
        let start = format!("{} is {what}", server.address);
        self.until(|line| line.starts_with(&start))
    }

    fn all_up(&self, count: usize) {
        for _ in 0..count {
            self.until(|line| line.ends_with(" is up"));
        }
    }

    /// A connection, and the name of the server that it came to.
    fn connect(&self) -> (String, BufReader<TcpStream>) {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(b"x").unwrap();
        let mut name = String::new();
        stream.read_line(&mut name).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        (name.trim_end().to_owned(), stream)
    }
}

/// Whether the other side still says what it hears.
fn echoes(stream: &mut BufReader<TcpStream>) -> bool {
    let mut echo = [0; 5];
    stream.get_mut().write_all(b"still").is_ok()
        && stream.read_exact(&mut echo).is_ok()
        && &echo == b"still"
}

/// Whether the other side ended the connection, in whatever way.
fn has_ended(stream: &mut BufReader<TcpStream>) -> bool {
    match stream.read(&mut [0]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[test]
fn health_takes_two_misses_or_one_refusal() {
    let mut health = Health::NEW;
    assert_eq!(health.fail(), None);
    assert_eq!(health.succeed(), Some(Turn::First));
    assert_eq!(health.succeed(), None);
    assert_eq!((health.fail(), health.state), (None, State::Up));
    assert_eq!((health.succeed(), health.fail()), (None, None));
    assert_eq!((health.fail(), health.fail()), (Some(Turn::Out), None));
    assert_eq!(health.succeed(), Some(Turn::Back));
    assert_eq!((health.refuse(), health.refuse()), (Some(Turn::Refused), None));
    assert_eq!((health.fail(), health.fail(), health.succeed()), (None, None, Some(Turn::Back)));
    assert_eq!((health.fail(), health.fail()), (None, Some(Turn::Out)));
    assert_eq!((health.refuse(), health.refuse()), (Some(Turn::Refused), None));
    let mut new = Health::NEW;
    assert_eq!(new.refuse(), Some(Turn::Refused));
}

#[test]
fn it_follows_health_and_closes_what_is_open_to_a_backend_that_goes_out() {
    let world = World::new();
    let (a, b) = (world.server("a"), world.server("b"));
    let balanced = world.balance(&[&a, &b], Some(&a));
    balanced.all_up(2);
    let (name, mut open) = balanced.connect();
    assert_eq!(name, "a");
    a.set_healthy(false);
    let line = balanced.says(&a, "out");
    assert!(line.ends_with(" is out, with 1 connections: HTTP 503"), "{line}");
    assert!(has_ended(&mut open), "who waits for an answer hears of it");
    let (name, mut other) = balanced.connect();
    assert_eq!(name, "b");
    a.set_healthy(true);
    balanced.says(&a, "back");
    assert_eq!(balanced.connect().0, "a");
    assert!(echoes(&mut other), "a backend that comes back takes no connection from another");
}

#[test]
fn what_is_open_to_the_last_backend_stays_until_there_is_a_better_one() {
    let world = World::new();
    let (a, b) = (world.server("a"), world.server("b"));
    b.set_healthy(false);
    let balanced = world.balance(&[&a, &b], None);
    balanced.says(&b, "out");
    let (name, mut open) = balanced.connect();
    assert_eq!(name, "a");
    a.set_healthy(false);
    let line = balanced.says(&a, "out");
    assert!(line.ends_with(" is out, and its 1 connections stay: HTTP 503"), "{line}");
    assert!(echoes(&mut open), "a slow backend is better than none");
    a.set_healthy(true);
    balanced.says(&a, "back");
    assert!(echoes(&mut open));
    a.set_healthy(false);
    balanced.says(&a, "out");
    b.set_healthy(true);
    balanced.says(&a, "still out, with 1 connections");
    assert!(has_ended(&mut open));
    assert_eq!(balanced.connect().0, "b");
}

#[test]
fn what_is_open_to_the_last_backend_ends_when_it_refuses() {
    let world = World::new();
    let mut a = world.server("a");
    let balanced = world.balance(&[&a], None);
    balanced.all_up(1);
    let (_, mut open) = balanced.connect();
    a.set_healthy(false);
    balanced.says(&a, "out, and its 1 connections stay");
    assert!(echoes(&mut open));
    a.close();
    let mut nowhere = BufReader::new(TcpStream::connect(balanced.address).unwrap());
    assert!(has_ended(&mut nowhere), "nobody is there");
    balanced.says(&a, "out, with 1 connections: connection refused");
    assert!(has_ended(&mut open));
}

#[test]
fn who_refuses_is_out_at_once_and_the_next_is_tried() {
    let world = World::new();
    let (mut a, b) = (world.server("a"), world.server("b"));
    let balanced = world.balance(&[&a, &b], Some(&a));
    balanced.all_up(2);
    let (name, mut open) = balanced.connect();
    assert_eq!(name, "a");
    a.close();
    assert_eq!(balanced.connect().0, "b", "the client notices nothing");
    let line = balanced.says(&a, "out");
    assert!(line.ends_with("connection refused"), "{line}");
    assert!(has_ended(&mut open));
    let again = world.server_at("a2", a.address);
    balanced.says(&again, "back");
    assert_eq!(balanced.connect().0, "a2");
}

#[test]
fn without_a_healthy_backend_all_are_tried() {
    let world = World::new();
    let (mut a, b) = (world.server("a"), world.server("b"));
    a.set_healthy(false);
    b.set_healthy(false);
    let balanced = world.balance(&[&a, &b], None);
    balanced.says(&a, "out");
    a.close();
    assert_eq!(balanced.connect().0, "b");
    let mut b = b;
    b.close();
    let mut nowhere = BufReader::new(TcpStream::connect(balanced.address).unwrap());
    assert!(has_ended(&mut nowhere), "nobody is there");
}

#[test]
fn who_is_not_vouched_for_is_never_up() {
    let (world, strangers) = (World::new(), World::new());
    let (stranger, b) = (strangers.server("stranger"), world.server("b"));
    let balanced = world.balance(&[&stranger, &b], Some(&stranger));
    let line = balanced.says(&stranger, "out");
    assert!(line.contains("TLS: "), "{line}");
    assert_eq!(balanced.connect().0, "b");
}

#[test]
fn half_an_end_is_passed_on_and_much_arrives_whole() {
    let world = World::new();
    let a = world.server("a");
    let balanced = world.balance(&[&a], None);
    balanced.all_up(1);
    let (_, mut stream) = balanced.connect();
    let sent: Vec<u8> = (0..32_u32 << 20).map(|n| u8::try_from(n * 7 % 251).unwrap()).collect();
    let mut writer = stream.get_ref().try_clone().unwrap();
    let copy = sent.clone();
    let sender = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received).unwrap();
    sender.join().unwrap();
    assert_eq!(received.split_off(sent.len()), b"end");
    assert!(received == sent);
}

#[test]
fn three_hundred_connections_are_spread_and_all_closed() {
    let world = World::new();
    let (a, b, c) = (world.server("a"), world.server("b"), world.server("c"));
    let balanced = world.balance(&[&a, &b, &c], None);
    balanced.all_up(3);
    let mut open: Vec<_> = (0..300).map(|_| balanced.connect()).collect();
    for server in [&a, &b, &c] {
        assert_eq!(server.accepted.load(Ordering::SeqCst), 100);
    }
    for (_, stream) in &mut open {
        stream.get_mut().write_all(b"y").unwrap();
    }
    for (_, stream) in &mut open {
        let mut echo = [0];
        stream.read_exact(&mut echo).unwrap();
    }
    b.set_healthy(false);
    balanced.says(&b, "out");
    for (_, stream) in open.iter_mut().filter(|(name, _)| name == "b") {
        assert!(has_ended(stream));
    }
    let names: Vec<_> = (0..50).map(|_| balanced.connect().0).collect();
    assert!(names.iter().all(|name| name != "b"));
}

#[test]
fn an_address_of_ipv6_is_asked_too() {
    let world = World::new();
    if TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let a = world.server_at("a", "[::1]:0".parse().unwrap());
    let balanced = world.balance(&[&a], None);
    balanced.says(&a, "up");
    assert_eq!(balanced.connect().0, "a");
}

#[test]
fn what_cannot_be_balanced_is_said() {
    let world = World::new();
    let here = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let good = BalanceRequest {
        listen: vec![taken.local_addr().unwrap()],
        backends: vec![here],
        prefer: None,
        check_path: "/readyz".to_owned(),
        authority: world.authority(),
    };
    let fails = |request: BalanceRequest| balance(&request, |_| ()).unwrap_err().message;
    let other = "127.0.0.1:1".parse().unwrap();
    assert_eq!(fails(good.clone()), format!("cannot listen at {}", good.listen[0]));
    assert_eq!(
        fails(BalanceRequest { prefer: Some(other), ..good.clone() }),
        "127.0.0.1:1 is preferred and is no backend"
    );
    assert_eq!(
        fails(BalanceRequest { backends: Vec::new(), ..good.clone() }),
        "name at least one address to listen at and one backend"
    );
    assert_eq!(fails(BalanceRequest { check_path: "x".to_owned(), ..good }), "`x` is no path");
}
