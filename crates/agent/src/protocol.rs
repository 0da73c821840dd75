//! What is said over the agent's socket: one JSON request a line, answered by JSON lines.
//!
//! ```text
//! {"status":{"follow":true}}        a NodeStatus, then one more whenever it changes
//! {"restart":{"service":"kubelet"}} {"done":true} or {"problem":{…}}
//! {"apply":{}}                      {"done":true} when the status shows the new config, or {"problem":{…}}: refused or half done
//! {"pause":{"patience":10000}}     {"paused":17} when so many processes are stopped and nothing else runs in the node, until this connection ends or so many ms have passed
//! {"thaw":{}}                       {"done":true}: all of it runs again; an end without an answer: it did before already
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
    /// Stops every process but the agent, the client and who started it, for as long as the connection lasts.
    Pause {
        /// Milliseconds after which they go on in any case.
        patience: u64,
    },
    /// Ends a pause of the same client.
    Thaw {},
    /// Stops the node.
    Stop {},
}

/// The answer to a request other than for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// It is being done.
    Done(bool),
    /// So many processes are stopped.
    Paused(u32),
    /// It cannot be done.
    Problem(Problem),
}
