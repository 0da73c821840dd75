//! As little HTTP and TCP as the tests need on the host.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(5);

/// The answer to `GET /` at an address such as `10.89.0.2:80`, head and body.
///
/// # Errors
/// A sentence, when there is none or it is no success.
pub fn fetch(address: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let target = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
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
    let listeners =
        [(); N].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("some port is free"));
    // All are held until each is known: the kernel may give the same twice.
    listeners
        .each_ref()
        .map(|listener| listener.local_addr().expect("a bound listener has an address").port())
}
