//! A proxy that leads everywhere to one port.

use std::io::Write as _;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::http::Request;

/// An HTTP proxy on a port of all addresses of the host. Whatever it is asked to connect to, it connects to one port of the host, and
/// remembers what that was.
#[derive(Debug)]
pub struct TestProxy {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl TestProxy {
    /// A proxy that leads to this port of the host. It ends with the tests.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("some port is free");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let proxy = Self { port, asked: Arc::clone(&asked) };
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                thread::spawn(move || connect(stream, to, &asked));
            }
        });
        proxy
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What it was asked to connect to, such as `registry.test:443`.
    ///
    /// # Panics
    /// When a thread of it has.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panics with it").clone()
    }
}

/// Who uses a proxy waits for its answer before going on, so that nothing is behind the head.
fn connect(mut stream: TcpStream, to: u16, asked: &Mutex<Vec<String>>) {
    let Some(request) = Request::read(&mut stream) else { return };
    asked.lock().expect("no thread panics with it").push(request.path.clone());
    if request.method != "CONNECT" {
        let _ = stream.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nConnection: close\r\n\r\n");
        return;
    }
    let Ok(target) = TcpStream::connect((Ipv4Addr::LOCALHOST, to)) else { return };
    if stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").is_err() {
        return;
    }
    let (Ok(from_client), Ok(from_target)) = (stream.try_clone(), target.try_clone()) else {
        return;
    };
    thread::spawn(move || pass(from_client, target));
    pass(from_target, stream);
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    // Either end may go at any time.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
