//! A few threads for what blocks: they appear when there is work, are used again, and end when there is none for a while.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::logs::locked;

const MOST: usize = 16;
const IDLE: Duration = Duration::from_secs(3);

type Job = Box<dyn FnOnce() + Send>;

/// Threads that take jobs in order.
#[derive(Clone, Default)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wanted: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

impl Pool {
    /// Runs the job soon, in some thread.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = locked(&self.shared.state);
        state.jobs.push_back(Box::new(job));
        if state.jobs.len() <= state.idle || state.threads >= MOST {
            self.shared.wanted.notify_one();
            return;
        }
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("pool".to_owned()).stack_size(1 << 20);
        if thread.spawn(move || shared.work()).is_ok() {
            state.threads += 1;
        }
    }
}

impl Shared {
    fn work(&self) {
        let mut state = locked(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = locked(&self.state);
                continue;
            }
            state.idle += 1;
            let (guard, waited) =
                self.wanted.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn jobs_that_wait_for_each_other_all_run() {
        let pool = Pool::default();
        let barrier = Arc::new(std::sync::Barrier::new(MOST));
        let (sender, receiver) = mpsc::channel();
        for _ in 0..MOST {
            let (barrier, sender) = (Arc::clone(&barrier), sender.clone());
            pool.run(move || {
                barrier.wait();
                sender.send(()).unwrap();
            });
        }
        drop(sender);
        assert_eq!(receiver.iter().count(), MOST);
        assert!(locked(&pool.shared.state).threads <= MOST);
    }
}
