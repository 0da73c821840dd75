//! A request to stop that wakes whoever waits: child processes are ended, waits for locks are left.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;

type Action = Box<dyn Fn() + Send>;

#[derive(Default)]
struct State {
    cancelled: bool,
    next: u64,
    actions: BTreeMap<u64, Action>,
}

/// Shared between the caller, who may cancel from any thread, and the work.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Mutex<State>>);

impl Cancel {
    /// Not cancelled yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything that works under this token to stop. Safe to call often.
    pub fn cancel(&self) {
        let mut state = self.state();
        state.cancelled = true;
        for action in state.actions.values() {
            action();
        }
    }

    /// Whether somebody asked.
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// Fails when somebody asked.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Runs `action` when cancelled, at once if that has happened, until the guard is dropped.
    pub(crate) fn on_cancel(&self, action: impl Fn() + Send + 'static) -> OnCancel<'_> {
        let mut state = self.state();
        if state.cancelled {
            action();
        }
        let id = state.next;
        state.next += 1;
        state.actions.insert(id, Box::new(action));
        OnCancel { cancel: self, id }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Cancel").field("cancelled", &self.is_cancelled()).finish()
    }
}

/// Keeps an action registered.
pub(crate) struct OnCancel<'a> {
    cancel: &'a Cancel,
    id: u64,
}

impl Drop for OnCancel<'_> {
    fn drop(&mut self) {
        self.cancel.state().actions.remove(&self.id);
    }
}
