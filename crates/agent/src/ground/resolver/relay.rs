//! The server for pods of IPv6 alone. The kernel translates no packet into one of the other family, so questions are asked anew:
//!
//! ```text
//! pod --> [ADDRESS]:53 --[relay]--> 127.0.0.11:53, which the engine translates as for every process of the node
//! ```

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use crate::logs::locked;

const PORT: u16 = 53;
/// How many questions of datagrams, and how many connections, are open at once. A server that says nothing holds up nobody else before there
/// are so many. Who is one too many asks again.
const AT_ONCE: usize = 256;
/// Longer than those who ask wait for one answer.
const ANSWERED: Duration = Duration::from_secs(5);
/// Longer than those who ask keep a connection without a question.
const IDLE: Duration = Duration::from_secs(15);
/// Until the node may have files or memory again: a socket that had none for the next one only says so anew.
const SCARCE: Duration = Duration::from_millis(100);
const LARGEST: usize = u16::MAX as usize;
const STACK: usize = 128 << 10;

/// Those that run. They do so for as long as the agent does.
static RUNNING: Mutex<BTreeSet<(Ipv6Addr, Ipv4Addr)>> = Mutex::new(BTreeSet::new());

/// Answers at one address what the server at the other says.
///
/// # Errors
/// When the address is not the node's, somebody else answers there, or there is no room for threads.
pub(super) fn ensure(offered: Ipv6Addr, behind: Ipv4Addr) -> io::Result<()> {
    let mut running = locked(&RUNNING);
    if running.contains(&(offered, behind)) {
        return Ok(());
    }
    let server = SocketAddr::from((behind, PORT));
    // Threads come first: whoever gets no socket ends, and nothing is bound when this is tried again.
    let datagrams = start_with(move |socket| relay_datagrams(&Arc::new(socket), server))?;
    let connections = start_with(move |listener| relay_connections(&listener, server))?;
    let socket = UdpSocket::bind((offered, PORT))?;
    let listener = TcpListener::bind((offered, PORT))?;
    // Both wait for it.
    let _ = (datagrams.send(socket), connections.send(listener));
    running.insert((offered, behind));
    Ok(())
}

/// A thread that begins when it is sent what it works on.
fn start_with<T: Send + 'static>(work: impl FnOnce(T) + Send + 'static) -> io::Result<Sender<T>> {
    let (give, take) = channel();
    start(move || {
        if let Ok(given) = take.recv() {
            work(given);
        }
    })?;
    Ok(give)
}

fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name("resolver".to_owned()).stack_size(STACK);
    thread.spawn(work).map(drop)
}

/// Starts a thread for it, unless so many have not ended yet, or there is no room for one.
fn start_counted(open: &Arc<AtomicUsize>, work: impl FnOnce() + Send + 'static) {
    if open.fetch_add(1, Ordering::Relaxed) >= AT_ONCE {
        open.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    let counted = Arc::clone(open);
    let started = start(move || {
        work();
        counted.fetch_sub(1, Ordering::Relaxed);
    });
    if started.is_err() {
        open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn relay_datagrams(socket: &Arc<UdpSocket>, server: SocketAddr) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut buffer = vec![0; LARGEST];
    loop {
        let (length, asker) = match socket.recv_from(&mut buffer) {
            Ok(received) => received,
            Err(error) if goes_on(&error) => continue,
            Err(_) => return,
        };
        let (question, socket) = (buffer[..length].to_vec(), Arc::clone(socket));
        start_counted(&open, move || {
            // Who gets no answer asks again.
            if let Ok(answer) = ask(server, &question) {
                let _ = socket.send_to(&answer, asker);
            }
        });
    }
}

fn ask(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWERED))?;
    socket.send(question)?;
    let mut answer = vec![0; LARGEST];
    let length = socket.recv(&mut answer)?;
    answer.truncate(length);
    Ok(answer)
}

fn relay_connections(listener: &TcpListener, server: SocketAddr) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let asker = match listener.accept() {
            Ok((asker, _)) => asker,
            Err(error) if goes_on(&error) => continue,
            Err(_) => return,
        };
        start_counted(&open, move || {
            // It ends when one of both has nothing more to say.
            let _ = relay_messages(asker, server);
        });
    }
}

/// Whether a socket with this error may still be asked. It comes back at once when the error is that of somebody who asked, and after a while
/// when the node lacks something.
fn goes_on(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, Interrupted};
    let is_no_socket = [Errno::BADF, Errno::INVAL].map(|errno| Some(errno.raw_os_error()));
    if is_no_socket.contains(&error.raw_os_error()) {
        return false;
    }
    if ![ConnectionAborted, ConnectionRefused, Interrupted].contains(&error.kind()) {
        thread::sleep(SCARCE);
    }
    true
}

fn relay_messages(mut asker: TcpStream, server: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect_timeout(&server, ANSWERED)?;
    for stream in [&asker, &server] {
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_write_timeout(Some(IDLE))?;
    }
    loop {
        pass(&mut asker, &mut server)?;
        pass(&mut server, &mut asker)?;
    }
}

/// One message, with its length before it (RFC 1035, section 4.2.2).
fn pass(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut length = [0; 2];
    from.read_exact(&mut length)?;
    let mut message = length.to_vec();
    message.resize(length.len() + usize::from(u16::from_be_bytes(length)), 0);
    from.read_exact(&mut message[length.len()..])?;
    to.write_all(&message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn nobody_waits_for_the_answer_of_another() {
        const MANY: u8 = 40;
        let (server, socket) = (UdpSocket::bind(LOCAL).unwrap(), UdpSocket::bind(LOCAL).unwrap());
        let (behind, offered) = (server.local_addr().unwrap(), socket.local_addr().unwrap());
        start(move || relay_datagrams(&Arc::new(socket), behind)).unwrap();
        let askers = [(); MANY as usize].map(|()| UdpSocket::bind(LOCAL).unwrap());
        for (number, asker) in (0..).zip(&askers) {
            asker.send_to(&[number], offered).unwrap();
        }
        // All of them are asked before the first one is answered.
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = [(); MANY as usize].map(|()| {
            let mut question = [0];
            (server.recv_from(&mut question).unwrap().1, question)
        });
        for (from, question) in asked {
            server.send_to(&question, from).unwrap();
        }
        for (number, asker) in (0..).zip(&askers) {
            let mut answer = [MANY];
            asker.set_read_timeout(Some(PATIENCE)).unwrap();
            asker.recv(&mut answer).unwrap();
            assert_eq!(answer, [number]);
        }
    }

    #[test]
    fn only_what_is_no_socket_any_more_ends_a_relay() {
        let of = |errno: Errno| goes_on(&io::Error::from(errno));
        assert_eq!([Errno::BADF, Errno::INVAL].map(of), [false; 2]);
        assert_eq!(
            [Errno::MFILE, Errno::NOBUFS, Errno::CONNREFUSED, Errno::INTR].map(of),
            [true; 4]
        );
    }
}
