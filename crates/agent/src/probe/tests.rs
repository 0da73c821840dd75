//! Probes against servers in the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use bivouac_spec::node::probe::{Identity, JsonExpect};
use bivouac_spec::node::{Dns, Expect, HttpRequest, Tls, Vantage};
use bivouac_spec::quantity::Span;
use camino::{Utf8Path, Utf8PathBuf};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use simple_dns::rdata::{A, RData};
use simple_dns::{CLASS, Packet, RCODE, ResourceRecord};

use super::*;

/// Long enough for a machine that does other things: it only ends what hangs.
const PATIENCE: Span = Span::seconds(120);

/// Nobody is there: the port is given to no program that asks for any.
const NOBODY: &str = "127.0.0.1:1";

fn probe(check: Check) -> Probe {
    let mut probe = Probe::new(check);
    probe.timeout = PATIENCE;
    probe
}

fn once(check: Check) -> Result<(), String> {
    ask(&probe(check), &Tools::default())
}

/// Where there is no answer, this ends the wait for it.
fn briefly(check: Check) -> Result<(), String> {
    let probe = Probe { timeout: Span::millis(400), ..probe(check) };
    ask(&probe, &Tools::default())
}

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
    (directory, path)
}

/// Answers every request on every connection with the same; counts the connections.
fn serve<S: Read + Write>(
    listener: TcpListener,
    wrap: impl Fn(TcpStream) -> S + Send + 'static,
    answer: &'static str,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut stream = BufReader::new(wrap(stream));
            while let Some(()) = read_head(&mut stream) {
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
                stream.get_mut().flush().unwrap();
            }
        }
    });
    (address, connections)
}

fn read_head(stream: &mut impl BufRead) -> Option<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            let mut body = vec![0; length];
            return stream.read_exact(&mut body).ok();
        }
    }
}

fn local() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

#[test]
fn sockets_ports_and_files() {
    let (_keep, root) = folder();
    let socket = root.join("s.sock");
    assert_eq!(
        once(Check::Socket(socket.clone())).unwrap_err(),
        format!("{socket} does not exist yet")
    );
    let listener = UnixListener::bind(&socket).unwrap();
    assert_eq!(once(Check::Socket(socket.clone())), Ok(()));
    // Nobody accepts: once the backlog is full, the answer comes at once and is no.
    let seen = (0..10_000).find_map(|_| once(Check::Socket(socket.clone())).err());
    assert_eq!(seen.unwrap(), "it is too busy to take a connection");
    drop(listener);
    assert_eq!(once(Check::Socket(socket.clone())).unwrap_err(), "connection refused");

    let listener = local();
    let address = listener.local_addr().unwrap();
    assert_eq!(once(Check::Tcp(address)), Ok(()));
    let nobody = NOBODY.parse().unwrap();
    assert_eq!(once(Check::Tcp(nobody)).unwrap_err(), "connection refused");

    assert_eq!(once(Check::File(socket)), Ok(()));
    assert!(once(Check::File(root.join("x"))).unwrap_err().ends_with("/x does not exist yet"));
}

#[test]
fn http_answers_are_judged_and_connections_kept() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 53\r\n\r\n\
        {\"items\": [{\"ready\": true}, {\"ready\": false}, {\"r\": 1}]}";
    let body = answer.split("\r\n\r\n").nth(1).unwrap();
    let answer: &'static str =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).leak();
    let (address, connections) = serve(local(), |stream| stream, answer);
    let tools = Tools::default();
    let request = HttpRequest::get(format!("http://{address}/x"));
    let wanted = |at_least| Expect {
        status: Vec::new(),
        json: Some(Box::new(JsonExpect {
            select: "$.items[?@.ready == true]".into(),
            at_least,
            what: "nodes are Ready".into(),
            since: None,
        })),
    };
    let try_with = |expect| ask(&probe(Check::Http { request: request.clone(), expect }), &tools);
    assert_eq!(try_with(Expect::success()), Ok(()));
    assert_eq!(try_with(wanted(1)), Ok(()));
    assert_eq!(try_with(wanted(3)).unwrap_err(), "1 of 3 nodes are Ready");
    let expect = Expect { status: vec![201, 409], json: None };
    assert_eq!(try_with(expect).unwrap_err(), "HTTP 200");
    assert_eq!(connections.load(Ordering::SeqCst), 1, "one connection for all tries");
}

#[test]
fn a_moment_in_a_query_leaves_out_what_was_before() {
    let reported = r#"HTTP/1.1 200 OK
content-length: 60

{"conditions": [{"heartbeat": "2026-11-21T22:44:05Z"}]}     "#;
    let reported: &'static str = reported.replace('\n', "\r\n").leak();
    let (address, _) = serve(local(), |stream| stream, reported);
    let select = r#"$.conditions[?@.heartbeat >= "{since}"]"#;
    let expect = Expect::json(select, 1, "nodes have reported").since("kubelet");
    let check = Check::Http { request: HttpRequest::get(format!("http://{address}/")), expect };
    let question = probe(check);
    assert_eq!(question.since(), Some("kubelet"));
    let at = |moment| ask(&question.clone().since_moment(moment), &Tools::default());
    assert_eq!(at("2026-11-21T22:44:05Z"), Ok(()));
    assert_eq!(at("2026-11-21T22:44:06Z").unwrap_err(), "0 of 1 nodes have reported");
}

#[test]
fn an_error_of_the_server_is_quoted() {
    let answer = "HTTP/1.1 403 Forbidden\r\ncontent-length: 21\r\n\r\n{\"message\": \"not you\"}";
    let answer: &'static str = answer.replace("21", "22").leak();
    let (address, _) = serve(local(), |stream| stream, answer);
    let mut request = HttpRequest::get(format!("http://{address}/x"));
    request.method = "PATCH".into();
    request.body = Some("{}".into());
    request.headers.insert("content-type".into(), "application/apply-patch+yaml".into());
    let check = Check::Http { request, expect: Expect::success() };
    assert_eq!(once(check).unwrap_err(), "HTTP 403: not you");
}

#[test]
fn what_is_sent_may_be_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = camino::Utf8Path::from_path(directory.path()).unwrap().join("body");
    let mut request = HttpRequest::get(format!("http://{NOBODY}/x"));
    request.body_file = Some(path.clone());
    let check = |request| Check::Http { request, expect: Expect::success() };
    let missing = once(check(request.clone())).unwrap_err();
    assert!(missing.starts_with(&format!("cannot read {path}: ")), "{missing}");

    std::fs::write(&path, "of the file").unwrap();
    let (sent, seen) = std::sync::mpsc::channel();
    let listener = local();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = Vec::new();
        while !text.ends_with(b"of the file") {
            let mut byte = [0];
            std::io::Read::read_exact(&mut stream, &mut byte).unwrap();
            text.push(byte[0]);
        }
        sent.send(String::from_utf8(text).unwrap()).unwrap();
        std::io::Write::write_all(&mut stream, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
    });
    request.url = format!("http://{address}/x");
    request.method = "PATCH".into();
    once(check(request)).unwrap();
    assert!(seen.recv().unwrap().starts_with("PATCH /x HTTP/1.1\r\n"));
}

#[test]
fn a_server_that_says_nothing_times_out() {
    let listener = local();
    let request = HttpRequest::get(format!("http://{}/x", listener.local_addr().unwrap()));
    let check = Check::Http { request, expect: Expect::success() };
    assert_eq!(briefly(check).unwrap_err(), "no answer within 400 ms");
}

struct Pki {
    root: Utf8PathBuf,
    server: Arc<ServerConfig>,
}

/// An authority, a server certificate for 127.0.0.1, and a client that the server insists on.
fn pki(root: &Utf8Path) -> Pki {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (client, client_key) = issue("client");
    let (server, server_key) = issue("127.0.0.1");
    for (name, pem) in [
        ("ca.crt", authority.pem()),
        ("client.crt", client.pem()),
        ("client.key", client_key.serialize_pem()),
    ] {
        std::fs::write(root.join(name), pem).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .unwrap();
    let server_key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], server_key)
        .unwrap();
    Pki { root: root.to_owned(), server: Arc::new(config) }
}

#[test]
fn https_with_own_authority_and_client_certificate() {
    let (_keep, root) = folder();
    let pki = pki(&root);
    let config = Arc::clone(&pki.server);
    let wrap =
        move |stream| StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
    let (address, connections) =
        serve(local(), wrap, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let file = |name: &str| pki.root.join(name);
    let identity = Identity { certificate: file("client.crt"), key: file("client.key") };
    let tls = Tls { authority: file("ca.crt"), identity: Some(identity) };
    let tools = Tools::default();
    let url = format!("https://{address}/readyz");
    let with = |tls: Tls| {
        let request = HttpRequest::get(url.as_str()).tls(tls);
        ask(&probe(Check::Http { request, expect: Expect::success() }), &tools)
    };
    assert_eq!(with(tls.clone()), Ok(()));
    assert_eq!(with(tls.clone()), Ok(()));
    assert_eq!(connections.load(Ordering::SeqCst), 1, "one handshake");
    // The server reads one connection at a time: let go of the first one.
    tools.clients.forget();
    let refused = with(Tls { identity: None, ..tls.clone() }).unwrap_err();
    assert!(refused.starts_with("TLS: ") || refused.contains("connection"), "{refused}");
    let absent = Tls { authority: file("gone.crt"), ..tls };
    let text = with(absent).unwrap_err();
    assert_eq!(text, format!("cannot read {}: it does not exist", file("gone.crt")));
}

fn respond(
    answer: impl Fn(u16) -> Packet<'static> + Send + 'static,
    drop_first: usize,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        let mut seen = 0;
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            seen += 1;
            if seen > drop_first {
                let query = Packet::parse(&buffer[..count]).unwrap();
                let bytes = answer(query.id()).build_bytes_vec().unwrap();
                socket.send_to(&bytes, from).unwrap();
            }
        }
    });
    address
}

fn with_address(id: u16) -> Packet<'static> {
    let mut packet = Packet::new_reply(id);
    let name = simple_dns::Name::new_unchecked("kubernetes.default.svc.cluster.local");
    let data = RData::A(A { address: 0x0a60_0001 });
    packet.answers.push(ResourceRecord::new(name, CLASS::IN, 5, data));
    packet
}

fn dns(server: SocketAddr, from: Vantage) -> Check {
    Check::Dns(Dns { server, name: "kubernetes.default.svc.cluster.local".into(), from })
}

#[test]
fn dns_answers_hold_an_address() {
    assert_eq!(once(dns(respond(with_address, 0), Vantage::Node)), Ok(()));
    assert_eq!(
        once(dns(respond(with_address, 1), Vantage::Node)),
        Ok(()),
        "a lost question is repeated"
    );
    let empty = once(dns(respond(Packet::new_reply, 0), Vantage::Node));
    assert_eq!(empty.unwrap_err(), "an answer without an address");
    let unknown = |id| {
        let mut packet = Packet::new_reply(id);
        *packet.rcode_mut() = RCODE::NameError;
        packet
    };
    assert_eq!(
        once(dns(respond(unknown, 0), Vantage::Node)).unwrap_err(),
        "the name does not exist"
    );
    let silent = respond(with_address, usize::MAX);
    let text = briefly(dns(silent, Vantage::Node)).unwrap_err();
    assert_eq!(text, format!("no answer from {silent} within 400 ms"));
    let other = respond(|id| with_address(id.wrapping_add(1)), 0);
    assert!(briefly(dns(other, Vantage::Node)).is_err(), "an answer to another question is none");
    let nobody = NOBODY.parse().unwrap();
    assert_eq!(once(dns(nobody, Vantage::Node)).unwrap_err(), "connection refused");
}

#[test]
fn a_dns_answer_may_come_after_the_question_was_repeated() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let (mut buffer, mut first) = ([0; 512], None);
        for _ in 0..3 {
            let (count, from) = socket.recv_from(&mut buffer).unwrap();
            let id = Packet::parse(&buffer[..count]).unwrap().id();
            first.get_or_insert((id, from));
        }
        let (id, from) = first.unwrap();
        let bytes = with_address(id).build_bytes_vec().unwrap();
        socket.send_to(&bytes, from).unwrap();
    });
    assert_eq!(once(dns(address, Vantage::Node)), Ok(()));
}

#[test]
fn dns_from_a_pod_skips_the_network_of_the_server_itself() {
    let (_keep, root) = folder();
    let pods = root.join("netns");
    let from_pod = || Vantage::Pod { directory: pods.clone() };
    let server = respond(with_address, 0);
    let none = once(dns(server, from_pod())).unwrap_err();
    assert_eq!(none, format!("no pod has a network in {pods} yet"));
    std::fs::create_dir(&pods).unwrap();
    // A link to a namespace file serves as well as a bind mount: this one is the node's own, which has the address.
    std::os::unix::fs::symlink("/proc/self/ns/net", pods.join("cni-1")).unwrap();
    let own = once(dns(server, from_pod())).unwrap_err();
    assert_eq!(own, format!("no pod has a network in {pods} yet"));
}

#[test]
fn an_answer_of_another_server_is_not_accepted() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut buffer = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            let query = Packet::parse(&buffer[..count]).unwrap();
            let bytes = with_address(query.id()).build_bytes_vec().unwrap();
            stranger.send_to(&bytes, from).unwrap();
        }
    });
    assert!(briefly(dns(address, Vantage::Node)).unwrap_err().starts_with("no answer from"));
}
