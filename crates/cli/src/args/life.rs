//! The life of a cluster: from `up` to `down`.

use bivouac_spec::cluster::Role;
use bivouac_spec::quantity::Span;
use bivouac_spec::{ClusterName, NodeName};
use bivouac_stacks::Drain;
use camino::Utf8PathBuf;
use clap::{Args, Subcommand, ValueEnum, ValueHint};

use super::{Chosen, Format, ProviderName};

/// Make a cluster, or make it whole again, and wait until it is usable.
#[derive(Debug, Args)]
pub struct Up {
    /// The cluster.
    #[command(flatten)]
    pub source: Source,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// Only show what would be done, like `bivouac plan`.
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Which cluster is asked for.
#[derive(Debug, Args)]
pub struct Source {
    /// The cluster file; `-` for standard input. When absent, the cluster as it was made, or one control plane with all
    /// defaults.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<Utf8PathBuf>,
    /// The cluster's name; that of the file, or `default`, when absent.
    pub name: Option<ClusterName>,
    /// Where nodes run, for a cluster file that does not say so or in place of one.
    #[arg(long, short, value_enum)]
    pub provider: Option<ProviderName>,
}

/// Show what `up` would do, and change nothing.
#[derive(Debug, Args)]
pub struct Plan {
    /// The cluster.
    #[command(flatten)]
    pub source: Source,
    /// How the plan is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Remove a cluster and everything of it.
#[derive(Debug, Args)]
pub struct Down {
    /// The cluster file; only its name counts.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<Utf8PathBuf>,
    /// The cluster; the only one, or `default`, when absent.
    #[arg(conflicts_with = "file")]
    pub name: Option<ClusterName>,
    /// Remove all clusters that the state folder knows, whichever ground they are on.
    #[arg(long, conflicts_with_all = ["name", "file"])]
    pub all: bool,
    /// Only show what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// How a cluster that comes up is waited for.
#[derive(Debug, Args)]
pub struct Follow {
    /// How long the nodes may take to be usable once they are started, such as `90s` or `10m`.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_timeout)]
    pub timeout: Span,
    /// The kubeconfig file to merge the access into; `$KUBECONFIG` or ~/.kube/config when absent.
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<Utf8PathBuf>,
    /// Leave kubeconfig files alone.
    #[arg(long, conflicts_with = "kubeconfig")]
    pub no_kubeconfig: bool,
}

/// Stop a cluster.
#[derive(Debug, Args)]
pub struct Stop {
    /// The cluster; the only one when absent.
    pub name: Option<ClusterName>,
    /// Only this node; can be given several times.
    #[arg(long = "node", short = 'N', value_name = "NODE", conflicts_with = "all")]
    pub nodes: Vec<NodeName>,
    /// Stop all clusters that the state folder knows.
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Start a cluster.
#[derive(Debug, Args)]
pub struct Start {
    /// The cluster; the only one when absent.
    pub name: Option<ClusterName>,
    /// Only this node; can be given several times.
    #[arg(long = "node", short = 'N', value_name = "NODE", conflicts_with = "all")]
    pub nodes: Vec<NodeName>,
    /// Start all clusters that the state folder knows.
    #[arg(long, conflicts_with = "name")]
    pub all: bool,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Stop and start a cluster.
#[derive(Debug, Args)]
pub struct Restart {
    /// The cluster; the only one when absent.
    pub name: Option<ClusterName>,
    /// Only this node; can be given several times.
    #[arg(long = "node", short = 'N', value_name = "NODE")]
    pub nodes: Vec<NodeName>,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Nodes of a cluster.
#[derive(Debug, Args)]
pub struct Node {
    /// What to do.
    #[command(subcommand)]
    pub command: NodeCommand,
}

/// What to do with nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// Add nodes to a cluster, and wait until they are usable.
    Add(NodeAdd),
    /// Take nodes out of a cluster: their work is moved, then they are removed with their data.
    Remove(NodeRemove),
}

/// Add nodes.
#[derive(Debug, Args)]
pub struct NodeAdd {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// What the new nodes do; `worker`, or `member` in a cluster of Incus, when absent.
    #[arg(long, value_enum)]
    pub role: Option<RoleName>,
    /// The group that they belong to, by the name that its nodes start with; the first of the role when absent.
    #[arg(long, value_name = "NAME", conflicts_with = "role")]
    pub group: Option<String>,
    /// How many.
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// Only show what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Remove nodes.
#[derive(Debug, Args)]
pub struct NodeRemove {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// The nodes.
    #[arg(required = true)]
    pub nodes: Vec<NodeName>,
    /// How their work leaves them.
    #[command(flatten)]
    pub drain: DrainOptions,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// Only show what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// How work leaves nodes that are removed.
#[derive(Debug, Args)]
pub struct DrainOptions {
    /// How long the pods of each node may take to leave it, such as `5m`; what the cluster file says (`drainTimeout`), or `2m`, when
    /// absent.
    #[arg(long, value_name = "TIME", value_parser = parse_drain_timeout)]
    pub drain_timeout: Option<Span>,
    /// Wait for no pods: they end with their node, and no disruption budget is asked.
    #[arg(long, conflicts_with = "drain_timeout")]
    pub no_drain: bool,
}

impl DrainOptions {
    /// How work leaves, in place of what the cluster says.
    pub fn drain(&self) -> Option<Drain> {
        let within = self.drain_timeout.map(Drain::Within);
        if self.no_drain { Some(Drain::No) } else { within }
    }
}

/// A number alone is seconds.
fn parse_timeout(text: &str) -> Result<Span, String> {
    let seconds = text.parse::<u32>().map(|seconds| format!("{seconds}s"));
    let span = seconds.as_deref().unwrap_or(text).parse::<Span>();
    span.map_err(|error| format!("{error}; write a number and a unit: s, m or h"))
}

fn parse_drain_timeout(text: &str) -> Result<Span, String> {
    match text.parse::<Span>() {
        Ok(span) if span == Span::millis(0) => {
            Err("no pod leaves a node in no time; `--no-drain` does not wait for pods".to_owned())
        }
        Ok(span) => Ok(span),
        Err(error) => Err(format!("{error}; write a number and a unit: s, m or h")),
    }
}

/// What a new node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// It runs pods.
    Worker,
    /// It holds the cluster's state, with the others of its kind.
    ControlPlane,
    /// It runs instances of Incus, and holds the cluster's state with the others.
    Member,
}

impl RoleName {
    /// The role.
    pub const fn role(self) -> Role {
        match self {
            Self::Worker => Role::Worker,
            Self::ControlPlane => Role::ControlPlane,
            Self::Member => Role::Member,
        }
    }
}

/// Bring a cluster to another version, node by node: control planes first, then workers, each well before the next. Data stays.
///
/// What fails is taken back: the nodes that were upgraded get their old version again. What is interrupted is finished by the same
/// command, and taken back by `--to` the old version.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// The cluster; the only one when absent.
    pub name: Option<ClusterName>,
    /// The version, such as `v1.36.3`. The newest that this bivouac has when absent; nodes that have it are made anew if this bivouac
    /// has another node image for it.
    #[arg(long, value_name = "VERSION")]
    pub to: Option<String>,
    /// How work leaves a node before that is stopped.
    #[command(flatten)]
    pub drain: DrainOptions,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// Only show what would be done.
    #[arg(long)]
    pub dry_run: bool,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Clusters at the start of this machine.
#[derive(Debug, Args)]
pub struct Service {
    /// What to do.
    #[command(subcommand)]
    pub command: ServiceCommand,
}

/// What to do with the service that starts clusters.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Have systemd start all clusters of this state folder when the machine starts.
    Install {
        /// Print the unit, and install nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Take that back. Clusters that run go on.
    Uninstall,
}
