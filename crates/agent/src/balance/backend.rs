//! One backend: whether it is up, and who is told when it goes out.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bivouac_spec::node::{Expect, HttpRequest};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Balancer;
use crate::probe::{Clients, judge};

/// The wait between two questions to what is up, and to anything else.
const CALM: Duration = Duration::from_secs(1);
const EAGER: Duration = Duration::from_millis(250);
/// So many answers that are not yes, one after the other, and it is out.
const MISSES: u32 = 2;

/// Whether connections to a backend make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Up,
    /// It was not asked yet, or said no once.
    Unknown,
    Out,
}

/// What is known of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) state: State,
    misses: u32,
    /// It is out because nobody listens there.
    refuses: bool,
}

/// A change that matters to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It is up for the first time.
    First,
    Back,
    /// It gives no good answers. It may be slow, and all that there is.
    Out,
    /// Nobody listens there.
    Refused,
}

impl Health {
    pub(super) const NEW: Self = Self { state: State::Unknown, misses: 0, refuses: false };

    /// The answer was yes.
    pub(super) fn succeed(&mut self) -> Option<Turn> {
        (self.misses, self.refuses) = (0, false);
        match std::mem::replace(&mut self.state, State::Up) {
            State::Up => None,
            State::Unknown => Some(Turn::First),
            State::Out => Some(Turn::Back),
        }
    }

    /// The answer was not yes, or there was none.
    pub(super) fn fail(&mut self) -> Option<Turn> {
        self.misses += 1;
        if self.misses < MISSES {
            return None;
        }
        let before = std::mem::replace(&mut self.state, State::Out);
        (before != State::Out).then_some(Turn::Out)
    }

    /// Nobody listens there.
    pub(super) fn refuse(&mut self) -> Option<Turn> {
        self.state = State::Out;
        (!std::mem::replace(&mut self.refuses, true)).then_some(Turn::Refused)
    }

    fn pause(self) -> Duration {
        if self.state == State::Up && self.misses == 0 { CALM } else { EAGER }
    }
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    request: HttpRequest,
    clients: Clients,
    health: Cell<Health>,
    /// Connections that are open or being opened.
    pub(super) connections: Cell<usize>,
    /// How often its connections were closed: they wait for the next time.
    pub(super) closes: watch::Sender<u64>,
    /// Asks now and not after the pause.
    pub(super) doubt: Notify,
}

impl Backend {
    pub(super) fn new(address: SocketAddr, request: HttpRequest) -> Self {
        Self {
            address,
            request,
            clients: Clients::default(),
            health: Cell::new(Health::NEW),
            connections: Cell::new(0),
            closes: watch::Sender::new(0),
            doubt: Notify::new(),
        }
    }

    pub(super) fn state(&self) -> State {
        self.health.get().state
    }

    /// Asks for ever.
    pub(super) async fn follow(self: Rc<Self>, balancer: Rc<Balancer>) {
        loop {
            let (clients, request) = (self.clients.clone(), self.request.clone());
            let patience = balancer.patience;
            let asked = spawn_blocking(move || {
                judge(&clients.send(&request, patience)?, &Expect::success())
            });
            let answer = asked.await.unwrap_or_else(|error| Err(error.to_string()));
            match answer {
                Ok(()) => self.turn(&balancer, "", Health::succeed),
                Err(seen) => self.turn(&balancer, &seen, Health::fail),
            }
            tokio::select! {
                () = sleep(self.health.get().pause()) => {}
                () = self.doubt.notified() => {}
            }
        }
    }

    /// A connection was refused: there is nothing to ask twice.
    pub(super) fn refused(&self, balancer: &Balancer) {
        self.turn(balancer, "connection refused", Health::refuse);
    }

    fn turn(&self, balancer: &Balancer, seen: &str, change: fn(&mut Health) -> Option<Turn>) {
        let mut health = self.health.get();
        let turn = change(&mut health);
        self.health.set(health);
        let (address, open) = (self.address, self.closes.receiver_count());
        match turn {
            None => {}
            Some(Turn::First) => {
                (balancer.log)(&format!("{address} is up"));
                balancer.leave_out();
            }
            Some(Turn::Back) => {
                (balancer.log)(&format!("{address} is back"));
                balancer.leave_out();
            }
            Some(Turn::Out) if open > 0 && !balancer.any_up() => {
                let text = format!("{address} is out, and its {open} connections stay: {seen}");
                (balancer.log)(&text);
            }
            Some(Turn::Out | Turn::Refused) => {
                (balancer.log)(&format!("{address} is out, with {open} connections: {seen}"));
                self.close();
            }
        }
    }

    /// Closes the connections to it.
    fn close(&self) {
        self.closes.send_modify(|closes| *closes += 1);
    }
}

impl Balancer {
    fn any_up(&self) -> bool {
        self.backends.iter().any(|backend| backend.state() == State::Up)
    }

    /// There is a better backend now than those that are out: clients that stayed with them connect again, to that one.
    fn leave_out(&self) {
        let out = self.backends.iter().filter(|backend| backend.state() == State::Out);
        for backend in out {
            let (address, open) = (backend.address, backend.closes.receiver_count());
            if open > 0 {
                (self.log)(&format!("{address} is still out, with {open} connections"));
                backend.close();
            }
        }
    }
}
