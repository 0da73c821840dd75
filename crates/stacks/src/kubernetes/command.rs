//! Commands of services.

use std::fmt::Display;

use bivouac_spec::node::{Limits, Probe, Restart, Service, Stop};
use bivouac_spec::quantity::Span;

use super::layout::Layout;
use super::{tuning, versions};

/// The most open files that anything here asks for.
const OPEN_FILES: u64 = 1_048_576;

/// A command that is being put together, flag by flag.
pub(super) struct Command(Vec<String>);

impl Command {
    pub(super) fn new(program: &str) -> Self {
        Self(vec![format!("{}/{program}", versions::PROGRAMS)])
    }

    pub(super) fn flag(mut self, name: &str, value: impl Display) -> Self {
        self.0.push(format!("--{name}={value}"));
        self
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
        }
    }
}

/// What a service or task waits for.
pub(super) fn after<const N: usize>(units: [&str; N]) -> Vec<String> {
    units.map(str::to_owned).into()
}
