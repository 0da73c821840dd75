//! What whoever holds the node asks of it from outside: commands, files and logs over a connection that may be lost.
//!
//! ```text
//! provider --frames--> stdin   agent exec | put        nobody there any more: the command ends, the file is not made
//!          <--bytes--- stdout  agent exec | get | logs
//!          <--Answer-- stderr  its first line: started, or why not; then the command's own
//! ```
//!
//! Each is a process of its own, started in the node by the ground (a container engine's `exec`), beside the agent that supervises.
//! The words are those of [`bivouac_spec::node::stream`]. Not here: what the ground can do from outside by itself.

mod exec;
mod files;
mod logs;
mod lookup;

use std::io::{self, Write};
use std::process::ExitCode;

use bivouac_spec::Problem;
use bivouac_spec::node::stream::Answer;

pub use exec::{ExecRequest, exec};
pub use files::{get, put};
pub use logs::{LogRequest, logs};

/// Says what became of it, first of all.
fn answer(answer: &Answer) {
    // Nobody is left to tell when standard error cannot be written: the command ends with its input.
    let _ = io::stderr().lock().write_all(answer.line().as_bytes());
}

fn started() {
    answer(&Answer::Started(true));
}

/// Says why it is not or not wholly done.
fn give_up(problem: Problem, code: u8) -> ExitCode {
    answer(&Answer::Problem(problem));
    ExitCode::from(code)
}

/// The same with the exit code of the problem's class.
fn refuse(problem: Problem) -> ExitCode {
    let code = problem.class.exit_code();
    give_up(problem, code)
}
