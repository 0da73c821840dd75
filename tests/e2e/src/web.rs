//! As little HTTP and TCP as the tests need on the host.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// How long a connection may take: packets to an address that nobody has are lost.
const REACHED: Duration = Duration::from_secs(5);
/// How long an answer may take.
const ANSWERED: Duration = Duration::from_secs(30);
/// Below the ports that the kernel gives to connections to elsewhere: one of those may come between, and take what was free.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The answer to `GET /` at an address such as `10.89.0.2:80`, head and body.
///
/// # Errors
/// A sentence, when there is none or it is no success.
pub fn fetch(address: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let target = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&target, REACHED)?;
        stream.set_read_timeout(Some(ANSWERED))?;
        write!(stream, "GET / HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|error| format!("{address} does not answer: {error}"))?;
    let success = answer.split_whitespace().nth(1).is_some_and(|status| status == "200");
    if success { Ok(answer) } else { Err(format!("{address} answers: {answer}")) }
}

/// Answers one HTTP request on a free port of `address`; gives the port, and whoever asked once it was asked.
///
/// # Panics
/// When the address cannot be bound.
pub fn serve_once(address: IpAddr) -> (u16, Receiver<IpAddr>) {
    let listener = TcpListener::bind((address, 0));
    let listener = listener.unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"));
    let port = listener.local_addr().expect("a bound listener has an address").port();
    let (asked, asker) = channel();
    thread::spawn(move || {
        let Ok((mut stream, peer)) = listener.accept() else { return };
        let mut request = [0; 1024];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 8\r\n\r\noutside\n");
        let _ = asked.send(peer.ip());
    });
    (port, asker)
}

/// Ports of the host that nobody uses now, each another one.
///
/// # Panics
/// When all are used.
#[must_use]
pub fn free_ports<const N: usize>() -> [u16; N] {
    // Where runs of the tests begin differs, and nothing is given twice in one.
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let size = PORTS.end - PORTS.start;
    let start = u16::try_from(std::process::id() % u32::from(size)).unwrap_or_default();
    [(); N].map(|()| {
        let mut candidates = (0..size).map(|_| {
            let offset = (start + GIVEN.fetch_add(1, Ordering::Relaxed) % size) % size;
            PORTS.start + offset
        });
        let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        candidates.find(is_free).expect("some port is free")
    })
}
