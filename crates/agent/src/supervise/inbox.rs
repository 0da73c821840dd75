//! How threads of the pool tell the loop what they found.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use rustix::event::{EventfdFlags, eventfd};

use crate::machine::Event;

/// The receiving end, with a descriptor that is readable when something came.
#[derive(Debug)]
pub(super) struct Inbox {
    receiver: Receiver<Event>,
    sender: Sender,
}

/// A sending end.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    sender: mpsc::Sender<Event>,
    waker: Arc<OwnedFd>,
}

impl Inbox {
    pub(super) fn open() -> io::Result<Self> {
        let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let (sender, receiver) = mpsc::channel();
        Ok(Self { receiver, sender: Sender { sender, waker } })
    }

    pub(super) fn waker(&self) -> &OwnedFd {
        &self.sender.waker
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Everything that came.
    pub(super) fn take(&self) -> Vec<Event> {
        // First the counter: what comes after it wakes anew.
        let _ = rustix::io::read(self.waker(), &mut [0; 8]);
        self.receiver.try_iter().collect()
    }
}

impl Sender {
    pub(super) fn send(&self, event: Event) {
        // Refused only when the loop has ended, which nobody has to hear of then.
        if self.sender.send(event).is_ok() {
            let _ = rustix::io::write(&self.waker, &1u64.to_ne_bytes());
        }
    }
}
