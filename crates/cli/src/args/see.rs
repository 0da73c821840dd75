//! What a cluster is, and what happened to it.

use bivouac_spec::{ClusterName, NodeName};
use camino::Utf8PathBuf;
use clap::{Args, ValueEnum, ValueHint};

use super::{Chosen, Format};

/// Show how a cluster is.
#[derive(Debug, Args)]
pub struct Status {
    /// The cluster; the only one when absent.
    pub name: Option<ClusterName>,
    /// Show the services of each node too.
    #[arg(long, short)]
    pub services: bool,
    /// How it is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Show what was done to a cluster.
#[derive(Debug, Args)]
pub struct Events {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// Go on with what happens later, until the cluster is removed.
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many events from the end.
    #[arg(long, short = 'n', value_name = "EVENTS")]
    pub tail: Option<usize>,
    /// How they are written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: EventFormat,
}

/// How events are written to standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum EventFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON document for each event, on a line of its own.
    Json,
}

/// Show a log, or gather all of them.
#[derive(Debug, Args)]
pub struct Logs {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// The node; the only one when absent.
    pub node: Option<NodeName>,
    /// The service; the agent when absent.
    pub service: Option<String>,
    /// Go on with what is written later.
    #[arg(long, short)]
    pub follow: bool,
    /// Only so many lines from the end.
    #[arg(long, short = 'n', value_name = "LINES")]
    pub tail: Option<usize>,
    /// Write all that a bug report needs into this file, a .tar.gz: the cluster, its ground, what was done, and the end of every log. Secrets
    /// are removed.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["node", "service", "follow", "tail"])]
    pub archive: Option<Utf8PathBuf>,
    /// Replace a file that is there.
    #[arg(long, requires = "archive")]
    pub force: bool,
}
