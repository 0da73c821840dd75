//! A registry.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;

use super::http::{Answer, Request};
use crate::TestImage;

const PATIENCE: Duration = Duration::from_secs(20);
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// What a token server gives.
const TOKEN: &str = "a-token-of-the-test";

/// Who may pull.
#[derive(Debug, Clone)]
pub enum Login {
    /// Everybody.
    Anybody,
    /// Who says this user and password.
    Basic(String, String),
    /// Who has a token, which the same server gives for this user and password.
    Token(String, String),
}

/// A registry on a port of all addresses of the host.
#[derive(Debug)]
pub struct TestRegistry {
    port: u16,
    pulls: Arc<AtomicUsize>,
    paths: Arc<Mutex<Vec<String>>>,
    away: Arc<AtomicBool>,
}

struct Shop {
    login: Login,
    /// How nodes reach it: `10.89.0.1:40000`.
    known_as: String,
    /// Manifests and blobs, by digest, and the kind of each.
    blobs: BTreeMap<String, (&'static str, Vec<u8>)>,
    /// Digests of manifests, by `name:tag`.
    tags: BTreeMap<String, String>,
    pulls: Arc<AtomicUsize>,
    paths: Arc<Mutex<Vec<String>>>,
}

impl TestRegistry {
    /// A registry with these images, by name without host and with tag. `host` is where nodes find it; it speaks HTTP without TLS.
    /// It ends with the tests.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(
        host: &str,
        login: Login,
        tls: Option<Arc<ServerConfig>>,
        images: &[(&str, &TestImage)],
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("some port is free");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let (pulls, paths) = (Arc::default(), Arc::default());
        let (mut blobs, mut tags) = (BTreeMap::new(), BTreeMap::new());
        for (name, image) in images {
            let (manifest, content) = image.registry_blobs();
            tags.insert((*name).to_owned(), manifest.clone());
            blobs.extend(content.into_iter().map(|(digest, content)| {
                let kind = if digest == manifest { MANIFEST } else { "application/octet-stream" };
                (digest, (kind, content))
            }));
        }
        let known_as = format!("{host}:{port}");
        let away = Arc::new(AtomicBool::new(false));
        let registry = Self {
            port,
            pulls: Arc::clone(&pulls),
            paths: Arc::clone(&paths),
            away: Arc::clone(&away),
        };
        let shop = Arc::new(Shop { login, known_as, blobs, tags, pulls, paths });
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if away.load(Ordering::SeqCst) {
                    continue;
                }
                let (shop, tls) = (Arc::clone(&shop), tls.clone());
                thread::spawn(move || shop.serve(stream, tls));
            }
        });
        registry
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// From now on it answers nobody.
    pub fn leave(&self) {
        self.away.store(true, Ordering::SeqCst);
    }

    /// How many manifests it gave.
    #[must_use]
    pub fn pulls(&self) -> usize {
        self.pulls.load(Ordering::SeqCst)
    }

    /// Every path that was asked for, with what was answered.
    ///
    /// # Panics
    /// When a thread of it has.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.paths.lock().expect("no thread panics with it").clone()
    }
}

impl Shop {
    fn serve(&self, stream: TcpStream, tls: Option<Arc<ServerConfig>>) {
        // Whoever says nothing is not waited for.
        if stream.set_read_timeout(Some(PATIENCE)).is_err() {
            return;
        }
        match tls {
            None => self.answer(stream),
            Some(tls) => {
                let Ok(connection) = ServerConnection::new(tls) else { return };
                self.answer(StreamOwned::new(connection, stream));
            }
        }
    }

    fn answer(&self, mut stream: impl Read + Write) {
        let Some(request) = Request::read(&mut stream) else {
            // As servers of HTTP do with the beginning of TLS: clients know by it what they talk to.
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
            return;
        };
        let answer = self.reply(&request);
        let told = format!("{} {} {}", request.method, request.path, answer.status);
        self.paths.lock().expect("no thread panics with it").push(told);
        // Whoever asked may be gone.
        let _ = answer.write(&mut stream, &request);
    }

    fn reply(&self, request: &Request) -> Answer {
        if request.path == "/token" {
            return self.token(request);
        }
        if let Some(refusal) = self.refusal(request) {
            return refusal;
        }
        let parts: Vec<&str> = request.path.trim_start_matches("/v2/").split('/').collect();
        let [name @ .., kind, reference] = parts.as_slice() else {
            return Answer::new("200 OK", "application/json", "{}");
        };
        let tagged = format!("{}:{reference}", name.join("/"));
        let digest = match *kind {
            "manifests" => self.tags.get(&tagged).map_or(*reference, String::as_str),
            _ => reference,
        };
        let Some((media, content)) = self.blobs.get(digest) else {
            let body = json!({"errors": [{"code": "NAME_UNKNOWN"}]}).to_string();
            return Answer::new("404 Not Found", "application/json", body);
        };
        if *kind == "manifests" && request.method == "GET" {
            self.pulls.fetch_add(1, Ordering::SeqCst);
        }
        let mut answer = Answer::new("200 OK", media, content.clone());
        answer.headers.push(("Docker-Content-Digest", digest.to_owned()));
        answer
    }

    /// The answer to those who may not pull.
    fn refusal(&self, request: &Request) -> Option<Answer> {
        let said = request.header("authorization").unwrap_or_default();
        let challenge = match &self.login {
            Login::Anybody => return None,
            Login::Basic(user, password) => {
                if said == basic(user, password) {
                    return None;
                }
                "Basic realm=\"test\"".to_owned()
            }
            Login::Token(..) => {
                if said == format!("Bearer {TOKEN}") {
                    return None;
                }
                format!("Bearer realm=\"https://{}/token\",service=\"test\"", self.known_as)
            }
        };
        let body = json!({"errors": [{"code": "UNAUTHORIZED"}]}).to_string();
        let mut answer = Answer::new("401 Unauthorized", "application/json", body);
        answer.headers.push(("WWW-Authenticate", challenge));
        Some(answer)
    }

    fn token(&self, request: &Request) -> Answer {
        let Login::Token(user, password) = &self.login else {
            return Answer::new("404 Not Found", "text/plain", "");
        };
        // As the newer way to ask for one is unknown to many.
        if request.method != "GET" {
            return Answer::new("405 Method Not Allowed", "text/plain", "");
        }
        if request.header("authorization") != Some(&basic(user, password)) {
            return Answer::new("401 Unauthorized", "text/plain", "");
        }
        Answer::new("200 OK", "application/json", json!({"token": TOKEN}).to_string())
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
