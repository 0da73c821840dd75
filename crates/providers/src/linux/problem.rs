//! How errors of kernel calls and files become problems that name the object.

use std::error::Error;
use std::fmt::Display;
use std::time::Duration;

use bivouac_spec::{ClusterName, NodeName, Problem};
use bivouac_sys::filesystem::FileLock;
use camino::Utf8Path;

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

/// Takes a lock on something that `object` names.
pub(super) fn acquire(
    path: &Utf8Path,
    verb: &str,
    patience: Duration,
    object: impl Display,
) -> Result<FileLock, Problem> {
    FileLock::acquire(path, verb, patience).map_err(|error| {
        let problem = if error.is_timeout() {
            failed("lock", format_args!("{object} is locked by another command"))
        } else {
            failed("lock", format_args!("{object} cannot be locked"))
        };
        problem.because(&error)
    })
}

/// The node was made and does not run.
pub(super) fn not_running(cluster: &ClusterName, node: &NodeName) -> Problem {
    failed("not_running", format_args!("node {node} of cluster {cluster} does not run"))
        .help(format!("start it with `bivouac start {cluster}`"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_is_a_command_that_there_is() {
        let problem = not_running(&"demo".parse().unwrap(), &"worker-0".parse().unwrap());
        assert_eq!(problem.message, "node worker-0 of cluster demo does not run");
        assert_eq!(problem.help.as_deref(), Some("start it with `bivouac start demo`"));
    }

    #[test]
    fn only_a_held_lock_is_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(dir.path()).unwrap();
        let ask = |path: &Utf8Path| acquire(path, "start", Duration::ZERO, "node a");
        assert_eq!(ask(&path.join("no/lock")).unwrap_err().message, "node a cannot be locked");
        let _lock = ask(&path.join("lock")).unwrap();
        let problem = ask(&path.join("lock")).unwrap_err();
        assert_eq!(problem.message, "node a is locked by another command");
    }
}
