//! A node: something that runs commands and holds files.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use bivouac_spec::{NodeName, Problem};
use camino::Utf8Path;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes that come from a node.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;

/// Bytes that go to a node.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A node that exists.
#[async_trait]
pub trait Node: Send + Sync {
    /// Its name.
    fn name(&self) -> &NodeName;

    /// Its address, which never changes.
    fn address(&self) -> IpAddr;

    /// Starts a command in the node.
    ///
    /// # Errors
    /// When the node does not run, or the command cannot be started.
    async fn exec(&self, request: &ExecRequest) -> Result<Process, Problem>;

    /// Writes a file of root's with these permission bits, whole or not at all.
    ///
    /// # Errors
    /// When the node does not run or the file cannot be written.
    async fn put(&self, path: &Utf8Path, mode: u32, content: Reader) -> Result<(), Problem>;

    /// Reads a file.
    ///
    /// # Errors
    /// When the node does not run or there is no such file.
    async fn get(&self, path: &Utf8Path) -> Result<Reader, Problem>;

    /// The log of a service, or of the agent. Works for a stopped node where the ground keeps its files.
    ///
    /// # Errors
    /// When there is no such log; the help names the ones there are.
    async fn logs(&self, request: &LogRequest) -> Result<Reader, Problem>;

    /// An address at which a TCP port of the node can be reached from here.
    ///
    /// # Errors
    /// When the ground cannot reach it.
    async fn forward(&self, port: u16) -> Result<SocketAddr, Problem>;
}

/// A command to run in a node.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// Program and arguments. The program is looked up in the node's `PATH`.
    pub command: Vec<String>,
    /// Added to the node's environment.
    pub environment: BTreeMap<String, String>,
    /// Where its standard streams go.
    pub stdio: Stdio,
}

impl ExecRequest {
    /// A command with its streams as pipes.
    pub fn piped<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { command, ..Self::default() }
    }
}

/// Where the standard streams of a command go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stdio {
    /// To the pipes of the [`Process`].
    #[default]
    Piped,
    /// Standard input is empty; output goes to the pipes of the [`Process`].
    NoInput,
    /// They are this process's own, a terminal included.
    Inherited,
}

/// A command that runs in a node. Dropping it ends the command.
pub struct Process {
    /// Its standard input, for [`Stdio::Piped`].
    pub stdin: Option<Writer>,
    /// Its standard output, unless inherited.
    pub stdout: Option<Reader>,
    /// Its standard error, unless inherited.
    pub stderr: Option<Reader>,
    /// Ends when the command ends, with its exit code, or 128 + N when signal N ended it.
    pub exit: BoxFuture<'static, Result<i32, Problem>>,
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").finish_non_exhaustive()
    }
}

/// Which log, and how much of it.
#[derive(Debug, Clone, Default)]
pub struct LogRequest {
    /// The service; the agent's own log when absent.
    pub service: Option<String>,
    /// Only so many lines from its end.
    pub tail: Option<usize>,
    /// Go on with what is written later.
    pub follow: bool,
}
