//! Services and tasks, put together.

use std::fmt::Display;

use bivouac_spec::node::unit::Request;
use bivouac_spec::node::{Expect, HttpRequest, Limits, Probe, Restart, Run, Service, Stop, Task};
use bivouac_spec::quantity::Span;

use super::layout::Layout;
use super::{tuning, versions};

/// The most open files that anything here asks for.
const OPEN_FILES: u64 = 1_048_576;

/// A command that is being put together, flag by flag.
pub(super) struct Command(Vec<String>);

impl Command {
    pub(super) fn new(program: &str) -> Self {
        Self::at(&format!("{}/{program}", versions::PROGRAMS))
    }

    /// A program that lies elsewhere.
    pub(super) fn at(path: &str) -> Self {
        Self(vec![path.to_owned()])
    }

    pub(super) fn word(mut self, word: &str) -> Self {
        self.0.push(word.to_owned());
        self
    }

    pub(super) fn flag(mut self, name: &str, value: impl Display) -> Self {
        self.0.push(format!("--{name}={value}"));
        self
    }

    pub(super) fn flags<'a>(self, flags: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        flags.into_iter().fold(self, |command, (name, value)| command.flag(name, value))
    }

    /// The same command as the arguments of another.
    pub(super) fn through(self, other: &[&str]) -> Self {
        Self(other.iter().map(|word| (*word).to_owned()).chain(self.0).collect())
    }

    /// A service of the same name as its program.
    pub(super) fn service(self, layout: &Layout<'_>, name: &str, ready: Probe) -> Service {
        Service {
            name: name.to_owned(),
            command: self.0,
            environment: tuning::swift(),
            after: Vec::new(),
            ready: Some(ready),
            restart: Restart::default(),
            stop: Stop { grace: Span::seconds(5), ..Stop::default() },
            limits: Limits {
                open_files: Some(OPEN_FILES.min(layout.facts.open_files)),
                ..Limits::default()
            },
            oom_score: None,
            watch: Vec::new(),
        }
    }
}

/// What a service or task waits for.
pub(super) fn after<const N: usize>(units: [&str; N]) -> Vec<String> {
    units.map(str::to_owned).into()
}

/// A task that waits until each of these is answered with success, one after the other.
pub(super) fn ask(name: &str, after: Vec<String>, questions: Vec<(&str, HttpRequest)>) -> Task {
    let request = |(what, request): (&str, HttpRequest)| Request {
        name: what.to_owned(),
        request,
        expect: Expect::success(),
    };
    let run = Run::Requests(questions.into_iter().map(request).collect());
    Task { name: name.to_owned(), after, run, watch: Vec::new(), late: false }
}

/// A task that runs a command.
pub(super) fn run(name: &str, after: Vec<String>, command: &[&str]) -> Task {
    let run = Run::Command(command.iter().map(|word| (*word).to_owned()).collect());
    Task { name: name.to_owned(), after, run, watch: Vec::new(), late: false }
}
