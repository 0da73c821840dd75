//! Nodes that share a folder, and a registry that counts.

mod full;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bivouac_spec::node::{Content, Upstream};
use bivouac_spec::quantity::Bytes;
use camino::Utf8PathBuf;

use super::*;
use crate::image_cache::question::Digest;
use crate::logs::locked;

const TOKEN: &str = "of-the-node";
const MEDIA: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &[u8] = b"a layer";
const MANIFEST: &[u8] = b"{\"a\":\"manifest\"}";
/// `me` and `secret`, as they travel.
const PASSWORD: &str = "Basic bWU6c2VjcmV0";

/// A registry of one image, `team/app:1`.
struct Registry {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    mood: Arc<Mutex<Mood>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mood {
    Open,
    /// It wants a password.
    Password,
    /// It wants a token, which it gives for a password.
    Token,
    Away,
    /// It sends something else than it says.
    Wrong,
    /// It says that it has everything, and sends something else.
    Liar,
    /// It has nothing.
    Empty,
}

impl Registry {
    fn start(mood: Mood) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, mood) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(mood)));
        let registry = Self { address, asked: Arc::clone(&asked), mood: Arc::clone(&mood) };
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mood = *locked(&mood);
                if mood == Mood::Away {
                    continue;
                }
                let Ok(Some(request)) = Request::read(&mut stream, &mut Vec::new()) else {
                    continue;
                };
                let path = request.target.split('?').next().unwrap_or_default().to_owned();
                let (status, fields, body) = reply(&request, &path, mood, address);
                locked(&asked).push(format!("{} {path} {status}", request.method));
                let length = body.len();
                let mut answer = format!(
                    "HTTP/1.1 {status} -\r\nConnection: close\r\nContent-Length: {length}\r\n"
                );
                for (name, value) in fields {
                    answer.push_str(&format!("{name}: {value}\r\n"));
                }
                answer.push_str("\r\n");
                let body = if request.is_head() { &[][..] } else { &body };
                let _ = stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        registry
    }

    fn upstream(&self, authorization: Option<&str>) -> Upstream {
        Upstream {
            url: Some(format!("http://{}/v2", self.address)),
            authorization: authorization.map(|text| Content(text.to_owned())),
            authorities: None,
            insecure: false,
        }
    }

    fn is(&self, mood: Mood) {
        *locked(&self.mood) = mood;
    }

    /// How often it sent a body.
    fn sent(&self) -> usize {
        let asked = locked(&self.asked);
        asked.iter().filter(|one| one.starts_with("GET /v2/") && one.ends_with("200")).count()
    }
}

type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn reply(request: &Request, path: &str, mood: Mood, address: SocketAddr) -> Reply {
    let said = request.field("authorization").unwrap_or_default();
    if path == "/token" {
        let given =
            said == PASSWORD && request.target.contains("scope=repository%3Ateam%2Fapp%3Apull");
        return if given {
            (200, vec![], b"{\"token\":\"t\"}".to_vec())
        } else {
            (401, vec![], vec![])
        };
    }
    let challenge = match mood {
        Mood::Password if said != PASSWORD => Some("Basic realm=\"x\"".to_owned()),
        Mood::Token if said != "Bearer t" => {
            Some(format!("Bearer realm=\"http://{address}/token\",service=\"s\""))
        }
        _ => None,
    };
    if let Some(challenge) = challenge {
        return (401, vec![("WWW-Authenticate", challenge)], vec![]);
    }
    if mood == Mood::Empty {
        return (404, vec![], vec![]);
    }
    let (manifest, layer) = (Digest::of(MANIFEST), Digest::of(LAYER));
    if mood == Mood::Liar {
        let fields = vec![
            ("Content-Type", MEDIA.to_owned()),
            ("Docker-Content-Digest", manifest.to_string()),
        ];
        return (200, fields, b"a lie".to_vec());
    }
    let manifests =
        ["1".to_owned(), manifest.to_string()].map(|it| format!("/v2/team/app/manifests/{it}"));
    if manifests.iter().any(|one| one == path) {
        let fields = vec![
            ("Content-Type", MEDIA.to_owned()),
            ("Docker-Content-Digest", manifest.to_string()),
        ];
        return (200, fields, MANIFEST.to_vec());
    }
    if path == format!("/v2/team/app/blobs/{layer}") {
        let body = if mood == Mood::Wrong { b"a LAYER" } else { LAYER };
        return (200, vec![("Content-Type", "application/octet-stream".to_owned())], body.to_vec());
    }
    (404, vec![], vec![])
}

/// A folder on a host, and what its nodes say.
struct Host {
    _temporary: tempfile::TempDir,
    folder: Utf8PathBuf,
    log: Arc<Mutex<Vec<String>>>,
}

impl Host {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Utf8PathBuf::from_path_buf(temporary.path().to_owned()).unwrap();
        Self { _temporary: temporary, folder, log: Arc::default() }
    }

    /// A node that asks this for all registries.
    fn node(&self, upstream: Upstream) -> SocketAddr {
        self.node_of("one", BTreeMap::from([("*".to_owned(), vec![upstream])]))
    }

    /// A node of this cluster that asks these.
    fn node_of(&self, cluster: &str, registries: BTreeMap<String, Vec<Upstream>>) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::clone(&self.log);
        let cluster: bivouac_spec::ClusterName = cluster.parse().unwrap();
        let config = ImageCache {
            cluster: cluster.clone(),
            size: Bytes(1 << 20),
            token: Content(TOKEN.to_owned()),
            registries,
        };
        let cache = Cache {
            config,
            folder: Some(Folder::open(&self.folder).unwrap()),
            registries: Registries::new(cluster, Proxies::default()),
            log: Arc::new(move |line| locked(&log).push(line.to_owned())),
        };
        std::thread::spawn(move || accept(&listener, &Arc::new(cache)));
        address
    }

    fn said(&self, what: &str) -> bool {
        locked(&self.log).iter().any(|line| line.contains(what))
    }
}

/// Status, head and body of what a node answers to its containerd.
fn ask(node: SocketAddr, method: &str, what: &str, more: &str) -> (u16, String, Vec<u8>) {
    ask_of(node, "a.test", method, what, more)
}

/// The same of an image of this registry.
fn ask_of(
    node: SocketAddr,
    registry: &str,
    method: &str,
    what: &str,
    more: &str,
) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(node).unwrap();
    let header = ImageCache::HEADER;
    let request = format!(
        "{method} /v2/team/app/{what}?ns={registry} HTTP/1.1\r\nHost: x\r\n{header}: {TOKEN}\r\nConnection: close\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer.split_off(end + 4))
}

fn layer() -> String {
    format!("blobs/{}", Digest::of(LAYER))
}

/// What containerd asks when an image is pulled.
fn pull(node: SocketAddr) {
    let (status, head, _) = ask(node, "HEAD", "manifests/1", "Accept: a/b\r\n");
    assert_eq!(status, 200, "{head}");
    assert!(head.contains(&Digest::of(MANIFEST).to_string()) && head.contains(MEDIA), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", MANIFEST.len())), "{head}");
    let (status, head, body) = ask(node, "GET", &format!("manifests/{}", Digest::of(MANIFEST)), "");
    assert_eq!((status, &*body), (200, MANIFEST), "{head}");
    assert!(head.contains(MEDIA), "{head}");
    let (status, head, body) = ask(node, "GET", &layer(), "");
    assert_eq!((status, &*body), (200, LAYER), "{head}");
}

#[test]
fn all_nodes_of_a_host_fetch_once() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let nodes = [0, 1].map(|_| host.node(registry.upstream(None)));
    nodes.into_iter().for_each(pull);
    assert_eq!(registry.sent(), 2, "{:?}", locked(&registry.asked));

    registry.is(Mood::Away);
    nodes.into_iter().for_each(pull);
    pull(host.node(registry.upstream(None)));
    assert!(host.said("last"), "{:?}", locked(&host.log));
    let usage = cache_usage(&host.folder).unwrap();
    assert_eq!((usage.images, usage.blobs), (vec!["a.test/team/app".to_owned()], 2));
}

#[test]
fn many_at_once_fetch_once() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let nodes = [0; 8].map(|_| host.node(registry.upstream(None)));
    let threads = nodes.map(|node| std::thread::spawn(move || pull(node)));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(registry.sent(), 2, "{:?}", locked(&registry.asked));
}

#[test]
fn who_has_no_right_gets_nothing_of_what_is_there() {
    for mood in [Mood::Password, Mood::Token] {
        let (host, registry) = (Host::new(), Registry::start(mood));
        pull(host.node(registry.upstream(Some(PASSWORD))));
        let sent = registry.sent();
        for wrong in [None, Some("Basic d3Jvbmc6d3Jvbmc=")] {
            let node = host.node(registry.upstream(wrong));
            for what in
                ["manifests/1".to_owned(), format!("manifests/{}", Digest::of(MANIFEST)), layer()]
            {
                for method in ["HEAD", "GET"] {
                    let (status, head, body) = ask(node, method, &what, "");
                    assert_eq!((status, body.len()), (403, 0), "{method} {what}: {head}");
                }
            }
            // Nor while the registry cannot be asked.
            registry.is(Mood::Away);
            for what in ["manifests/1".to_owned(), layer()] {
                assert_eq!(ask(node, "GET", &what, "").0, 502);
            }
            registry.is(mood);
        }
        // Another who may is believed after a question, and sent what is there.
        let other = Upstream { insecure: true, ..registry.upstream(Some(PASSWORD)) };
        pull(host.node(other));
        assert_eq!(registry.sent(), sent, "{:?}", locked(&registry.asked));
    }
}

#[test]
fn others_in_the_node_are_refused() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let node = host.node(registry.upstream(None));
    pull(node);
    let mut stream = TcpStream::connect(node).unwrap();
    let request = format!("GET /v2/team/app/{}?ns=a.test HTTP/1.0\r\n\r\n", layer());
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(ask(node, "PUT", &layer(), "").0, 405);
    assert_eq!(ask(node, "GET", "tags/list", "").0, 404);
}

#[test]
fn what_is_wrong_is_not_kept() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Wrong));
    let node = host.node(registry.upstream(None));
    assert_eq!(ask(node, "GET", &layer(), "").2, b"a LAYER", "containerd checks what it gets");
    assert!(host.said("something else"));
    registry.is(Mood::Open);
    assert_eq!(ask(node, "GET", &layer(), "").2, LAYER);

    // What is damaged later is served once, and then anew.
    let path = host.folder.join("blobs").join(Digest::of(LAYER).digits());
    std::fs::write(&path, b"damaged").unwrap();
    assert_eq!(ask(node, "GET", &layer(), "").2, b"damaged");
    assert_eq!(ask(node, "GET", &layer(), "").2, LAYER);
    assert!(host.said("damaged"));
}

#[test]
fn a_part_is_sent_of_what_is_there() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let node = host.node(registry.upstream(None));
    assert_eq!(ask(node, "GET", &layer(), "Range: bytes=2-\r\n").0, 416);
    assert_eq!(ask(node, "GET", &layer(), "Range: bytes=0-\r\n").2, LAYER);
    let (status, head, body) = ask(node, "GET", &layer(), "Range: bytes=2-\r\n");
    assert_eq!((status, &*body), (206, &LAYER[2..]), "{head}");
    assert!(head.contains("Content-Range: bytes 2-6/7"), "{head}");
}

#[test]
fn a_tag_that_is_gone_is_gone() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let node = host.node(registry.upstream(None));
    pull(node);
    registry.is(Mood::Away);
    assert_eq!(ask(node, "HEAD", "manifests/1", "").0, 200, "it was there last");
    registry.is(Mood::Empty);
    assert_eq!(ask(node, "HEAD", "manifests/1", "").0, 404);
    registry.is(Mood::Away);
    let (status, head, _) = ask(node, "HEAD", "manifests/1", "");
    assert_eq!(status, 502);
    assert!(head.lines().next().unwrap().contains(&registry.address.to_string()), "{head}");
}

#[test]
fn a_tag_is_what_it_was_for_the_same_cluster() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let all = || BTreeMap::from([("*".to_owned(), vec![registry.upstream(None)])]);
    let [one, two] = ["one", "two"].map(|cluster| host.node_of(cluster, all()));
    pull(one);
    registry.is(Mood::Away);
    // In the other cluster, the name may lead to another registry.
    assert_eq!(ask(two, "HEAD", "manifests/1", "").0, 502);
    pull(one);
    // Nothing says that it was the same registry that sent the manifest: this is plain HTTP.
    let manifest = format!("manifests/{}", Digest::of(MANIFEST));
    assert_eq!(ask(two, "GET", &manifest, "").0, 502);
    registry.is(Mood::Open);
    assert_eq!(ask(two, "GET", &manifest, "").2, MANIFEST);
    assert_eq!(registry.sent(), 3, "{:?}", locked(&registry.asked));
}

#[test]
fn a_registry_that_lies_gets_nothing_of_anothers() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Password));
    let liar = Registry::start(Mood::Liar);
    let node = host.node_of(
        "one",
        BTreeMap::from([
            ("a.test".to_owned(), vec![registry.upstream(Some(PASSWORD))]),
            ("evil.test".to_owned(), vec![liar.upstream(None)]),
        ]),
    );
    pull(node);
    let what = ["manifests/1".to_owned(), format!("manifests/{}", Digest::of(MANIFEST)), layer()];
    for what in what.iter().chain(&what) {
        assert_eq!(ask_of(node, "evil.test", "HEAD", what, "").0, 200, "{what}");
        let (_, head, body) = ask_of(node, "evil.test", "GET", what, "");
        assert_eq!(body, b"a lie", "{what}: {head}");
    }
    assert_eq!(ask_of(node, "evil.test", "GET", &layer(), "Range: bytes=2-\r\n").0, 416);
    // Who has it can tell, and from then on needs not send it.
    liar.is(Mood::Open);
    for _ in 0..2 {
        assert_eq!(ask_of(node, "evil.test", "GET", &layer(), "").2, LAYER);
    }
    assert!(host.said("came as something else"), "{:?}", locked(&host.log));
    pull(node);
}

#[test]
fn a_full_or_missing_folder_breaks_no_pull() {
    let (host, registry) = (Host::new(), Registry::start(Mood::Open));
    let node = host.node(registry.upstream(None));
    // As if there were no room: nothing can be made where it belongs.
    std::fs::remove_dir_all(host.folder.join("incoming")).unwrap();
    std::fs::write(host.folder.join("incoming"), "").unwrap();
    pull(node);
    pull(node);
    assert_eq!(registry.sent(), 4);
    assert!(host.said("is not kept"), "{:?}", locked(&host.log));
}
