//! The life of a cluster: from `up` to `down`.

use bivouac_spec::cluster::Role;
use bivouac_spec::{ClusterName, NodeName};
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
    /// How long the nodes may take to be usable once they are started, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub timeout: u64,
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
