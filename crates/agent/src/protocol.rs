//! What is said over the agent's socket: one JSON request a line, answered by JSON lines.
//!
//! ```text
//! {"status":{"follow":true}}        a NodeStatus, then one more whenever it changes
//! {"restart":{"service":"kubelet"}} {"done":true} or {"problem":{…}}
//! {"apply":{}}                      {"done":true} when the status shows the new config, or {"problem":{…}}: refused or half done
//! {"stop":{}}                       {"done":true}, then everything is stopped in order
//! ```

use bivouac_spec::Problem;
use serde::{Deserialize, Serialize};

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// The status of the node, once or whenever it changes.
    Status {
        #[serde(default)]
        follow: bool,
    },
    /// Starts a service anew.
    Restart { service: String },
    /// Reads the config again and makes the node equal to it.
    Apply {},
    /// Stops the node.
    Stop {},
}

/// The answer to a request other than for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// It is being done.
    Done(bool),
    /// It cannot be done.
    Problem(Problem),
}
