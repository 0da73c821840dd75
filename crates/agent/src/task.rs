//! One try of a task. A task of several requests remembers how far it got, so that a try goes on where the last one ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bivouac_spec::node::unit::Request;
use bivouac_spec::node::{Run, paths};
use camino::Utf8Path;

use crate::images::{self, Selection};
use crate::logs::Log;
use crate::machine::Answer;
use crate::probe::{Tools, judge};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Then a command is killed, and tried again.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);

/// A task and how far it is.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    run: Run,
    done: Arc<AtomicUsize>,
    cancelled: Arc<AtomicBool>,
    log: Option<Arc<Log>>,
}

impl Work {
    pub(crate) fn new(run: Run, log: Option<Arc<Log>>) -> Self {
        Self { run, done: Arc::default(), cancelled: Arc::default(), log }
    }

    /// Nobody wants it any more: a try that is under way sends no further requests. A command of it runs to its end.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Tries once; `note` is told what it is at.
    pub(crate) fn attempt(&self, tools: &Tools, note: &dyn Fn(String)) -> Answer {
        match &self.run {
            Run::Command(argv) => {
                let done = tools.processes.finish(argv, Some(COMMAND_TIMEOUT), self.log.as_deref());
                done.map_or_else(Answer::not_yet, |()| Answer::Yes)
            }
            Run::Requests(requests) => self.send(requests, tools, note),
            Run::Images { directory, containerd } => register(directory, containerd),
        }
    }

    fn send(&self, requests: &[Request], tools: &Tools, note: &dyn Fn(String)) -> Answer {
        let first = self.done.load(Ordering::Relaxed);
        for (index, request) in requests.iter().enumerate().skip(first) {
            if self.cancelled.load(Ordering::Relaxed) {
                return Answer::not_yet("given up");
            }
            let place = || format!("{} ({} of {})", request.name, index + 1, requests.len());
            if index > first {
                note(place());
            }
            let reply = tools.clients.send(&request.request, REQUEST_TIMEOUT);
            if let Err(seen) = reply.and_then(|reply| judge(&reply, &request.expect)) {
                let detail = format!("{}: {seen}", place());
                return Answer::NotYet { detail, advanced: index > first };
            }
            self.done.store(index + 1, Ordering::Relaxed);
        }
        Answer::Yes
    }
}

fn register(directory: &Utf8Path, containerd: &Utf8Path) -> Answer {
    // What came with the node image must never be collected; what a person loaded may be.
    let pinned = directory == paths::IMAGES;
    match images::register(&Selection { directory, containerd, names: None, pinned }) {
        Ok(_) => Answer::Yes,
        Err(error) => Answer::not_yet(images::sentence(&error)),
    }
}
