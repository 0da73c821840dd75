//! How errors of an engine become problems that name the object.

use std::fmt::Display;
use std::io;

use bivouac_spec::{Class, Problem};
use bollard::errors::Error;

/// What helps when the engine's disk is full.
pub(super) const FULL: &str =
    "free space where the engine keeps its data, for example with `docker system prune`";

/// What helps when the engine does not answer any more.
pub(super) const LOST: &str = "see that the engine runs, then run the command again";

/// Turns an error into a [`Problem`] with a code of this provider.
pub(super) trait OrProblem<T> {
    /// A failure with the code `provider.docker.CODE`, this message, and the error as its cause. Trouble that has the same cause
    /// and the same remedy wherever it strikes has a code of its own.
    fn or_problem(self, code: &str, message: impl Display) -> Result<T, Problem>;
}

impl<T> OrProblem<T> for Result<T, Error> {
    fn or_problem(self, code: &str, message: impl Display) -> Result<T, Problem> {
        self.map_err(|error| explain(code, message, &error))
    }
}

impl<T> OrProblem<T> for bivouac_sys::Result<T> {
    fn or_problem(self, code: &str, message: impl Display) -> Result<T, Problem> {
        self.map_err(|error| failed(code, message).because(&error))
    }
}

impl<T> OrProblem<T> for io::Result<T> {
    fn or_problem(self, code: &str, message: impl Display) -> Result<T, Problem> {
        self.map_err(|error| failed(code, message).because(&error))
    }
}

impl<T> OrProblem<T> for serde_json::Result<T> {
    fn or_problem(self, code: &str, message: impl Display) -> Result<T, Problem> {
        self.map_err(|error| failed(code, message).because(&error))
    }
}

/// A failure with the code `provider.docker.CODE`.
pub(super) fn failed(code: &str, message: impl Display) -> Problem {
    Problem::failed(format!("provider.docker.{code}"), message.to_string())
}

/// A deadline that passed, with the code `provider.docker.CODE`.
pub(super) fn timed_out(code: &str, message: impl Display) -> Problem {
    Problem::new(Class::TimedOut, format!("provider.docker.{code}"), message.to_string())
}

/// A port of the host that somebody else has.
pub(super) fn port_taken(message: impl Display) -> Problem {
    unfit("port_taken", message).help("choose another `hostPort` in `spec.ports`, or free it")
}

/// Something that the ground lacks, with the code `provider.docker.CODE`.
pub(super) fn unfit(code: &str, message: impl Display) -> Problem {
    Problem::new(Class::Unfit, format!("provider.docker.{code}"), message.to_string())
}

/// A wrong command or cluster file, with the code `provider.docker.CODE`.
pub(super) fn usage(code: &str, message: impl Display) -> Problem {
    Problem::usage(format!("provider.docker.{code}"), message.to_string())
}

/// What an error of the engine means, as [`OrProblem::or_problem`] tells it.
pub(super) fn explain(code: &str, message: impl Display, error: &Error) -> Problem {
    match error {
        Error::DockerResponseServerError { message: said, .. }
        | Error::DockerStreamError { error: said } => answered(code, message, said),
        Error::RequestTimeoutError => {
            let mut problem = timed_out("timeout", message);
            problem.causes.push("the engine did not answer in time".to_owned());
            problem.help("look at the engine's own log, then run the command again")
        }
        _ => {
            let lost = is_lost(error);
            let problem = failed(if lost { "connection" } else { code }, message).because(error);
            if lost { problem.help(LOST) } else { problem }
        }
    }
}

/// What the engine said, in its own words.
fn answered(code: &str, message: impl Display, said: &str) -> Problem {
    let said = said.trim();
    let full = is_disk_full(said);
    let mut problem = failed(if full { "disk_full" } else { code }, message);
    problem.causes.push(said.to_owned());
    if full {
        problem = problem.help(FULL);
    }
    problem
}

/// Whether an engine, or a command that asked it, says that its disk is full.
pub(super) fn is_disk_full(said: &str) -> bool {
    said.contains("no space left on device") || said.contains("disk quota exceeded")
}

/// Whether an engine says that it has not the image which a container is to be made from.
pub(super) fn is_image_gone(error: &Error) -> bool {
    status(error) == Some(404) && said(error).contains("image")
}

/// The connection could not be made or broke: the engine was stopped, or is being started again.
fn is_lost(error: &Error) -> bool {
    match error {
        Error::HyperLegacyError { .. }
        | Error::HyperResponseError { .. }
        | Error::SocketNotFoundError(_) => true,
        Error::IOError { err } => err.kind() != io::ErrorKind::InvalidData,
        _ => false,
    }
}

/// The HTTP status of an answer that is an error.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What the engine said, if it answered at all.
pub(super) fn said(error: &Error) -> &str {
    match error {
        Error::DockerResponseServerError { message, .. } => message,
        _ => "",
    }
}

/// Takes an answer that there is no such thing for success.
pub(super) fn absent_is_success<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if status(&error) == Some(404) => Ok(None),
        Err(error) => Err(error),
    }
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

    fn answer(status_code: u16, message: &str) -> Error {
        Error::DockerResponseServerError { status_code, message: message.to_owned() }
    }

    #[test]
    fn trouble_of_the_engine_is_told_in_its_own_words() {
        let tell = |error| {
            let result: Result<(), Error> = Err(error);
            result.or_problem("start", "node a cannot be started").unwrap_err()
        };
        let problem = tell(answer(500, "driver failed\n"));
        assert_eq!(problem.code, "provider.docker.start");
        assert_eq!(problem.causes, ["driver failed"]);
        let problem = tell(answer(500, "mkdir /x: no space left on device"));
        assert_eq!(problem.code, "provider.docker.disk_full");
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let problem = tell(Error::IOError { err: reset });
        assert_eq!(problem.code, "provider.docker.connection");
        assert!(problem.help.unwrap().contains("again"));
        assert_eq!(tell(Error::RequestTimeoutError).class, Class::TimedOut);
    }

    #[test]
    fn only_what_is_not_there_is_absent() {
        assert!(absent_is_success::<()>(Err(answer(404, "no such container"))).unwrap().is_none());
        assert!(absent_is_success::<()>(Err(answer(409, "in use"))).is_err());
    }
}
