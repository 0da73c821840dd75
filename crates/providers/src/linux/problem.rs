//! How errors of kernel calls and files become problems that name the object.

use std::error::Error;
use std::fmt::Display;

use bivouac_spec::{ClusterName, NodeName, Problem};

/// Turns an error into a [`Problem`] with a code of this provider.
pub(super) trait OrProblem<T> {
    /// A failure with the code `provider.linux.CODE`, this message, and the error as its cause.
    fn or_problem(self, code: &str, message: impl Display) -> Result<T, Problem>;
}

impl<T, E: Error> OrProblem<T> for Result<T, E> {
    fn or_problem(self, code: &str, message: impl Display) -> Result<T, Problem> {
        self.map_err(|error| failed(code, message).because(&error))
    }
}

/// A failure with the code `provider.linux.CODE`.
pub(super) fn failed(code: &str, message: impl Display) -> Problem {
    Problem::failed(format!("provider.linux.{code}"), message.to_string())
}

/// The node was made and does not run.
pub(super) fn not_running(cluster: &ClusterName, node: &NodeName) -> Problem {
    failed("not_running", format_args!("node {node} of cluster {cluster} does not run"))
        .help(format!("start it with `bivouac start -c {cluster}`"))
}

/// One problem of several.
pub(super) fn join(mut problems: Vec<Problem>) -> Result<(), Problem> {
    let Some(mut first) = (!problems.is_empty()).then(|| problems.remove(0)) else {
        return Ok(());
    };
    for other in problems {
        first.causes.push(format!("also: {}", other.message));
        first.causes.extend(other.causes);
    }
    Err(first)
}
