//! Progress as data. Renderers (bars, lines, JSON) are consumers of these values; nothing here prints.

use serde::Serialize;

/// Receives events, possibly from several threads at once.
pub type OnEvent<'a> = &'a (dyn Fn(Event) + Sync);

/// One thing that is going to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Stable within one build: `program/kube`, `base`, `image/coredns`, `node`.
    pub id: String,
    /// For people: `kube v1.36.3`.
    pub name: String,
    /// About how many seconds it takes on two cores from nothing. A renderer weighs bars and what is left by it.
    pub weight: u32,
}

/// What `done` and `total` count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Go packages.
    Packages,
    /// Files.
    Files,
    /// Parts of a hundred.
    Percent,
}

/// What happens during a build or an import, in the order in which it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// All steps, before the first starts.
    Planned {
        /// In the order in which they are likely to finish.
        steps: Vec<Step>,
    },
    /// Work on a step begins.
    Started {
        /// The step's id.
        step: String,
    },
    /// Another process is making the same thing; this one waits for it.
    Waiting {
        /// The step's id.
        step: String,
    },
    /// How far a step is.
    Progress {
        /// The step's id.
        step: String,
        /// Amount so far.
        done: u64,
        /// Amount in all, where known.
        total: Option<u64>,
        /// What is counted.
        unit: Unit,
    },
    /// Something worth a line: which way a program comes, what was found damaged.
    Note {
        /// The step's id.
        step: String,
        /// For people.
        text: String,
    },
    /// A step is done.
    Finished {
        /// The step's id.
        step: String,
        /// Bytes of what it made.
        size: u64,
        /// How long it took.
        millis: u64,
    },
    /// A step needed no work: the result was in the store.
    Reused {
        /// The step's id.
        step: String,
        /// Bytes of what is reused.
        size: u64,
    },
    /// A step failed; the call returns the error.
    Failed {
        /// The step's id.
        step: String,
        /// The error's message.
        error: String,
    },
}

/// A step's view of the event stream.
#[derive(Clone, Copy)]
pub(crate) struct Reporter<'a> {
    pub(crate) step: &'a str,
    pub(crate) on_event: OnEvent<'a>,
}

impl Reporter<'_> {
    pub(crate) fn note(&self, text: impl Into<String>) {
        (self.on_event)(Event::Note { step: self.step.into(), text: text.into() });
    }

    pub(crate) fn progress(&self, done: u64, total: Option<u64>, unit: Unit) {
        (self.on_event)(Event::Progress { step: self.step.into(), done, total, unit });
    }

    pub(crate) fn waiting(&self) {
        (self.on_event)(Event::Waiting { step: self.step.into() });
    }

    pub(crate) fn started(&self) {
        (self.on_event)(Event::Started { step: self.step.into() });
    }

    pub(crate) fn reused(&self, size: u64) {
        (self.on_event)(Event::Reused { step: self.step.into(), size });
    }

    pub(crate) fn finished(&self, size: u64, since: std::time::Instant) {
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        (self.on_event)(Event::Finished { step: self.step.into(), size, millis });
    }

    pub(crate) fn failed(&self, error: &crate::Error) {
        (self.on_event)(Event::Failed { step: self.step.into(), error: error.to_string() });
    }
}
