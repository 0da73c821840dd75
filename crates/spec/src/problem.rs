//! The one shape of everything that goes wrong: crates have their own error types and turn them into a [`Problem`] where they
//! meet a seam, so that a terminal, JSON output and exit codes need to know only this.

use std::error::Error;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of trouble it is. Decides the exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Something did not work.
    Failed,
    /// The command or the cluster file is wrong; nothing was changed.
    Usage,
    /// The ground lacks something that the cluster needs; nothing was changed.
    Unfit,
    /// A deadline passed.
    TimedOut,
    /// Some of the work was done, some not.
    Partial,
    /// The user stopped it.
    Interrupted,
}

impl Class {
    /// The exit code of a command that ends with this.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unfit => 3,
            Self::TimedOut => 4,
            Self::Partial => 5,
            Self::Interrupted => 130,
        }
    }
}

/// A place in a file that a user wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The file as the user named it.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// One thing that went wrong, with all that a user needs to go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable, for scripts and for searching the documentation: `provider.linux.no_overlay`.
    pub code: String,
    /// What kind of trouble it is.
    pub class: Class,
    /// What happened to which object, in lower case without a full stop.
    pub message: String,
    /// Where in the user's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Location>,
    /// What it came from, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// The next step: one imperative sentence with a command or a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

impl Problem {
    /// A problem of the given class.
    pub fn new(class: Class, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (code, message) = (code.into(), message.into());
        Self { code, class, message, at: None, causes: Vec::new(), help: None }
    }

    /// Something that did not work ([`Class::Failed`]).
    pub fn failed(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Class::Failed, code, message)
    }

    /// A wrong command or cluster file ([`Class::Usage`]).
    pub fn usage(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Class::Usage, code, message)
    }

    /// The error and what it came from, as a failure with `code`.
    pub fn from_error(code: impl Into<String>, error: &dyn Error) -> Self {
        let mut problem = Self::failed(code, error.to_string());
        problem.causes = causes_of(error);
        problem
    }

    /// The same with the next step.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same with the error that it came from, and that one's own sources.
    #[must_use]
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.causes.push(error.to_string());
        self.causes.extend(causes_of(error));
        self
    }

    /// The same at a place in the user's file.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.at = Some(location);
        self
    }
}

fn causes_of(error: &dyn Error) -> Vec<String> {
    std::iter::successors(error.source(), |&cause| cause.source())
        .map(ToString::to_string)
        .collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Problem {}

/// Several problems that were found together. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `Err` when there are problems.
    ///
    /// # Errors
    /// The problems themselves.
    pub fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self(problems)) }
    }

    /// The problems, at least one.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }

    /// The class of the whole: the first problem's.
    #[must_use]
    pub fn class(&self) -> Class {
        self.0.first().map_or(Class::Failed, |problem| problem.class)
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl Error for Problems {}
