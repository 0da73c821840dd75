//! Snapshots and forks.

use bivouac_spec::{ClusterName, SnapshotName};
use clap::{Args, Subcommand};

use super::{Follow, Format};

/// Snapshots of clusters.
#[derive(Debug, Args)]
pub struct Snapshot {
    /// What to do.
    #[command(subcommand)]
    pub command: SnapshotCommand,
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Save what a cluster is at this moment. It goes on running.
    Save(SnapshotSave),
    /// List the snapshots.
    #[command(visible_alias = "ls")]
    List(SnapshotList),
    /// Make a cluster what it was when it was saved. What it is now is lost.
    ///
    /// Its data, its nodes, its addresses and keys are as they were; a cluster that was removed comes back. When it is cut short, the
    /// cluster can do nothing else until the same command has finished it.
    Restore(SnapshotRestore),
    /// Delete snapshots.
    #[command(visible_alias = "rm")]
    Delete(SnapshotDelete),
}

/// Save a cluster. All of its nodes must run.
#[derive(Debug, Args)]
pub struct SnapshotSave {
    /// What the snapshot is to be called.
    pub snapshot: SnapshotName,
    /// The cluster; the only one when absent.
    pub cluster: Option<ClusterName>,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// List snapshots.
#[derive(Debug, Args)]
pub struct SnapshotList {
    /// Only those of this cluster, which may be gone.
    pub cluster: Option<ClusterName>,
    /// How they are written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Go back to a snapshot.
#[derive(Debug, Args)]
pub struct SnapshotRestore {
    /// The snapshot.
    pub snapshot: SnapshotName,
    /// The cluster that was saved; the one that has a snapshot of this name when absent.
    pub cluster: Option<ClusterName>,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Delete snapshots of a cluster.
#[derive(Debug, Args)]
pub struct SnapshotDelete {
    /// The snapshots.
    #[arg(required = true, value_name = "SNAPSHOT")]
    pub snapshots: Vec<SnapshotName>,
    /// The cluster that was saved; the only one with snapshots when absent.
    #[arg(long, short, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
}

/// Fork a cluster.
#[derive(Debug, Args)]
pub struct Fork {
    /// What the second cluster is to be called.
    #[arg(value_name = "NEW")]
    pub new: ClusterName,
    /// The first cluster; the only one when absent.
    pub cluster: Option<ClusterName>,
    /// What it was when this snapshot was saved. The cluster may be gone.
    #[arg(long, short, value_name = "NAME")]
    pub snapshot: Option<SnapshotName>,
    /// How it is waited for.
    #[command(flatten)]
    pub follow: Follow,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}
