//! Connections: taken from clients, made to a backend, and copied until an end.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::Balancer;
use super::backend::Backend;
use super::choice::{Candidate, order};

/// For each direction of each connection.
const BUFFER: usize = 16 << 10;
/// Before accepting again when the process has no descriptors left: only a connection that ends can help.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// The other side of an idle connection may be gone without a word: it is asked after this time, at this interval, so often.
const QUIET: Duration = Duration::from_secs(15);
const ASK_AGAIN: Duration = Duration::from_secs(5);
const QUESTIONS: u32 = 3;

/// A connection to a backend, which counts as one for as long as it lives.
struct Connection {
    stream: TcpStream,
    backend: Counted,
    /// Changes when the connections of the backend are to end.
    closes: watch::Receiver<u64>,
}

struct Counted(Rc<Backend>);

impl Counted {
    fn new(backend: &Rc<Backend>) -> Self {
        backend.connections.update(|count| count + 1);
        Self(Rc::clone(backend))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.update(|count| count - 1);
    }
}

impl Balancer {
    pub(super) async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((client, _)) => drop(spawn_local(Rc::clone(&self).serve(client))),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    (self.log)(&format!("cannot take a connection: {error}"));
                    sleep(EXHAUSTED).await;
                }
            }
        }
    }

    async fn serve(self: Rc<Self>, mut client: TcpStream) {
        tune(&client);
        let Some(mut server) = self.connect().await else { return };
        tokio::select! {
            // How it ended concerns the two sides, and both have been told.
            _ = copy_bidirectional_with_sizes(&mut client, &mut server.stream, BUFFER, BUFFER) => {}
            _ = server.closes.changed() => {}
        }
        drop(server.backend);
    }

    /// Connects to the best backend that takes the connection.
    async fn connect(&self) -> Option<Connection> {
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        let candidates: Vec<_> = self
            .backends
            .iter()
            .map(|backend| Candidate {
                state: backend.state(),
                connections: backend.connections.get(),
            })
            .collect();
        for place in order(&candidates, self.prefer, turn) {
            let backend = &self.backends[place];
            // Before it is connected: an order to close meanwhile is noticed.
            let (counted, closes) = (Counted::new(backend), backend.closes.subscribe());
            match timeout(self.patience, TcpStream::connect(backend.address)).await {
                Ok(Ok(stream)) => {
                    tune(&stream);
                    return Some(Connection { stream, backend: counted, closes });
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    drop((counted, closes));
                    backend.refused(self);
                }
                _ => backend.doubt.notify_one(),
            }
        }
        None
    }
}

/// Requests are small and wait for each other; a side that is gone must not be kept. A failure costs only that.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, QUIET);
    let _ = sockopt::set_tcp_keepintvl(stream, ASK_AGAIN);
    let _ = sockopt::set_tcp_keepcnt(stream, QUESTIONS);
}
