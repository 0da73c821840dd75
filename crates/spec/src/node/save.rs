//! How a node's data leaves it: the lines between whoever takes a snapshot and `bivouac agent save` in the node.
//!
//! ```text
//! agent: {"ready":…}     all is prepared (with `--await-pause`)
//! pause                   the words of the other side: once all nodes have said so
//! agent: {"paused":…}     nothing of the node moves
//! copy                    once all nodes have said so
//! agent: {"copied":…}     the node goes on; what was there is set aside
//! send
//! agent: {"sending":…}    and then a tar, until the end of the stream
//! ```
//!
//! An end of the stream, or of the command, at any moment means that nobody wants the copy: the node goes on, and the copy is removed.

use serde::{Deserialize, Serialize};

use crate::Problem;

/// Asks a node that is ready to pause.
pub const PAUSE: &str = "pause";

/// Asks a paused node to set its data aside.
pub const COPY: &str = "copy";

/// Asks for what was set aside.
pub const SEND: &str = "send";

/// What the agent says, a line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    /// All is prepared, and the node can be paused at once.
    Ready {
        /// About how many bytes there are; 0 where that is not known.
        #[serde(default)]
        bytes: u64,
    },
    /// Nothing of the node moves.
    Paused {
        /// How many processes were stopped.
        processes: u32,
    },
    /// The node goes on, and its data is set aside.
    #[serde(rename_all = "camelCase")]
    Copied {
        /// Milliseconds from the first process that was stopped to the last that went on.
        paused_for: u64,
        /// About how many bytes there are; 0 where that is not known.
        bytes: u64,
    },
    /// A tar follows.
    Sending {
        /// About how many bytes follow; 0 where that is not known.
        bytes: u64,
    },
    /// It cannot be done. Nothing follows.
    Problem(Problem),
}

impl Said {
    /// The line that says so, with the newline.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("what is said has string keys only");
        line.push('\n');
        line
    }

    /// Reads a line; `None` when it is nothing that the agent says.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_reads_back() {
        let copied = Said::Copied { paused_for: 143, bytes: 7 };
        assert_eq!(copied.line(), "{\"copied\":{\"pausedFor\":143,\"bytes\":7}}\n");
        let problem = Said::Problem(Problem::failed("agent.save", "no\nspace"));
        assert_eq!(problem.line().matches('\n').count(), 1);
        for said in [
            Said::Ready { bytes: 5 },
            Said::Paused { processes: 17 },
            copied,
            Said::Sending { bytes: 0 },
            problem,
        ] {
            assert_eq!(Said::parse(&said.line()), Some(said));
        }
        // An agent of before says no more.
        assert_eq!(Said::parse(r#"{"ready":{}}"#), Some(Said::Ready { bytes: 0 }));
        assert_eq!(Said::parse("error: no space is left"), None);
    }
}
