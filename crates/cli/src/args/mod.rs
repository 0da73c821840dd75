//! What can be typed. The texts here are the reference: `docs/reference/cli.md` is made from them.

use bivouac_providers::docker::EngineEnvironment;
use bivouac_spec::cluster::{DockerProvider, LinuxProvider, Provider};
use bivouac_spec::{ClusterName, NodeName};
use camino::Utf8PathBuf;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

mod life;
mod see;
mod snapshot;

pub use life::{
    Down, Follow, Node, NodeCommand, Plan, Restart, RoleName, Service, ServiceCommand, Source,
    Start, Stop, Up, Upgrade,
};
pub use see::{EventFormat, Events, Logs, Status};
pub use snapshot::{
    Fork, Snapshot, SnapshotCommand, SnapshotDelete, SnapshotRestore, SnapshotSave,
};

/// What the environment says, in the help of the command itself. Read in [`crate::home`], and nowhere else.
const ENVIRONMENT: &str = "\
Environment:
  BIVOUAC_STATE_DIR  in place of --state-dir
  BIVOUAC_STORE      in place of --store
  BIVOUAC_IMAGE_CACHE
                     in place of --image-cache
  BIVOUAC_PROGRESS   in place of --progress
  KUBECONFIG         the kubeconfig file; the first where there are several
  NO_COLOR           when set, nothing is colored
  DOCKER_HOST        the Docker engine: unix://, tcp:// or ssh://
  DOCKER_CONTEXT     the context of the docker command whose engine is used, unless DOCKER_HOST is set
  DOCKER_CONFIG      the folder of the docker command's settings; ~/.docker when absent
  DOCKER_CERT_PATH, DOCKER_TLS_VERIFY, DOCKER_API_VERSION
                     as for the docker command
  XDG_RUNTIME_DIR    where the socket of your own Podman is
Under sudo, the home folder is that of the user who called it.";

/// Brings up real clusters on the ground you have.
///
/// `bivouac up` makes a Kubernetes cluster of one node in seconds; a cluster file (see `bivouac init`) asks for more. Run
/// `bivouac doctor` first if you want to know whether this machine can do it.
///
/// Exit codes: 0 done, 1 failed, 2 wrong command or cluster file, 3 the ground lacks something, 4 timed out, 5 partly done,
/// 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "bivouac", version, propagate_version = true, max_term_width = 100, after_long_help = ENVIRONMENT)]
pub struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command. What is absent comes from the environment, see [`crate::home`].
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct GlobalOptions {
    /// The folder with what bivouac knows of its clusters; `$BIVOUAC_STATE_DIR`, or /var/lib/bivouac, when absent.
    #[arg(long, global = true, value_parser = folder, value_hint = ValueHint::DirPath)]
    pub state_dir: Option<Utf8PathBuf>,
    /// The folder with node images and what they are built from; `$BIVOUAC_STORE`, or `STATE_DIR/store`, when absent.
    #[arg(long, global = true, value_parser = folder, value_hint = ValueHint::DirPath)]
    pub store: Option<Utf8PathBuf>,
    /// The folder of the cache of container images; `$BIVOUAC_IMAGE_CACHE`, or `STORE/cache`, when absent.
    #[arg(long, global = true, value_parser = folder, value_hint = ValueHint::DirPath)]
    pub image_cache: Option<Utf8PathBuf>,
    /// How progress is shown on standard error; `$BIVOUAC_PROGRESS`, or `auto`, when absent.
    #[arg(long, global = true, value_enum)]
    pub progress: Option<ProgressStyle>,
}

/// What every command works with.
#[derive(Debug)]
pub struct Global {
    /// The folder with what bivouac knows of its clusters.
    pub state_dir: Utf8PathBuf,
    /// The folder with node images and what they are built from.
    pub store: Utf8PathBuf,
    /// The folder of the cache of container images.
    pub image_cache: Utf8PathBuf,
    /// How progress is shown.
    pub progress: ProgressStyle,
    /// Whether standard error may be colored.
    pub color: bool,
    /// What the environment says of container engines.
    pub docker: EngineEnvironment,
}

/// A folder, from wherever it is meant: what runs in the background must not depend on the current one.
pub fn folder(text: &str) -> Result<Utf8PathBuf, String> {
    if text.is_empty() {
        return Err("a folder must not be empty".to_owned());
    }
    camino::absolute_utf8(text).map_err(|error| error.to_string())
}

/// A ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProviderName {
    /// This machine's kernel.
    Linux,
    /// Containers of a Docker engine.
    Docker,
    /// The same containers, made by `docker compose`.
    Compose,
}

impl ProviderName {
    /// The ground with its default settings.
    pub fn settings(self) -> Provider {
        match self {
            Self::Linux => Provider::Linux(LinuxProvider::default()),
            Self::Docker => Provider::Docker(DockerProvider::default()),
            Self::Compose => Provider::Compose(DockerProvider::default()),
        }
    }
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// Bars on a terminal, lines elsewhere.
    #[default]
    Auto,
    /// A line for each thing that happens.
    Lines,
    /// A JSON document for each thing that happens.
    Json,
    /// Nothing.
    None,
}

/// How data is written to standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a cluster, or make it whole again, and wait until it is usable.
    Up(Up),
    /// Show what `up` would do, and change nothing.
    Plan(Plan),
    /// Remove a cluster and everything of it.
    #[command(visible_alias = "delete")]
    Down(Down),
    /// Stop a cluster, or nodes of it, and keep all data.
    Stop(Stop),
    /// Start a cluster, or nodes of it, where `stop` or a reboot left them.
    Start(Start),
    /// Stop and start a cluster, or nodes of it.
    Restart(Restart),
    /// Add and remove nodes of a cluster.
    Node(Node),
    /// Bring a cluster to another version, or to the node image of this bivouac, node by node.
    Upgrade(Upgrade),
    /// Save what a cluster is at this moment, and go back to it.
    ///
    /// A snapshot holds all data of all nodes: what is in the API, volumes, images that were loaded, and the keys. It does not hold memory,
    /// nor files of nodes outside `/var` (such as those of a `hostPath` volume elsewhere) or in `/var/cache`. The cluster goes on
    /// running while it is saved and stands still for a moment only. Snapshots outlive their cluster. Before a test suite: `bivouac
    /// snapshot save seeded`; before each test: `bivouac snapshot restore seeded`; or side by side: `bivouac fork test-1 --snapshot
    /// seeded`.
    Snapshot(Snapshot),
    /// Make a second cluster of what a cluster is at this moment, or was when it was saved. Both run side by side.
    ///
    /// The second has the same objects, volumes and images on nodes of the same names. Its nodes and pods have addresses of their own,
    /// and ports of the host that the cluster file names are replaced by free ones, which are told. Labels, taints and cordons that kubectl
    /// put on Nodes are lost. What happens to one does not happen
    /// to the other. Clusters of Incus, and those that kubeadm has made, cannot be forked.
    Fork(Fork),
    /// Start clusters when this machine starts.
    Service(Service),
    /// Show how a cluster is: nodes, services, what is wrong and what to do.
    Status(Status),
    /// List the clusters.
    #[command(visible_alias = "ls")]
    List(List),
    /// Print the kubeconfig of a cluster.
    Kubeconfig(Kubeconfig),
    /// Run kubectl, of the cluster's own version, on a cluster.
    Kubectl(Kubectl),
    /// Run the incus client, of the cluster's own version, on a cluster of Incus.
    Incus(Incus),
    /// Run a command in a node.
    Exec(Exec),
    /// Show the log of a node's agent, or of a service in it, or gather all for a bug report.
    Logs(Logs),
    /// Show what was done to a cluster.
    Events(Events),
    /// Put a container image on all nodes.
    Load(Load),
    /// Write a cluster as documents, to make it without bivouac.
    Export(Export),
    /// Try everything that a cluster needs of each ground, and say how to mend what fails.
    Doctor(Doctor),
    /// Build, list, check and prune node images.
    Image(Image),
    /// Measure how long it takes until a cluster is usable.
    ///
    /// The cluster is called `bench`. One of that name is removed before the first run, and after each. With `--life` that holds for the
    /// cluster `bench-fork` and for the snapshot `bench` of `bench`, too.
    Bench(Bench),
    /// Write a cluster file with every field explained.
    Init(Init),
    /// Print the JSON schema of the cluster file, for editors.
    Schema,
    /// Print this command line as a Markdown document.
    #[command(hide = true)]
    Reference,
    /// Print the completion script of a shell.
    Completion(Completion),
    /// Print the version of bivouac and of what its clusters run.
    Version(Version),
}

/// Which existing cluster is meant.
#[derive(Debug, Args)]
pub struct Chosen {
    /// The cluster; the only one when absent.
    #[arg(long, short, value_name = "NAME")]
    pub cluster: Option<ClusterName>,
}

/// List the clusters.
#[derive(Debug, Args)]
pub struct List {
    /// How they are written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Print the kubeconfig of a cluster.
#[derive(Debug, Args)]
pub struct Kubeconfig {
    /// The cluster; the only one when absent.
    pub name: Option<ClusterName>,
    /// Merge it into the user's kubeconfig instead of printing it.
    #[arg(long)]
    pub merge: bool,
}

/// Run kubectl on a cluster.
#[derive(Debug, Args)]
pub struct Kubectl {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// What kubectl is told: `bivouac kubectl -- get pods`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Run the incus client on a cluster. It runs in a node, so paths are those of the node; `-` is standard input and output.
#[derive(Debug, Args)]
pub struct Incus {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// What the client is told: `bivouac incus -- launch debian c1`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<String>,
}

/// Run a command in a node.
#[derive(Debug, Args)]
pub struct Exec {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// The node.
    pub node: NodeName,
    /// The command; a shell when absent.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

/// Put container images on all nodes.
#[derive(Debug, Args)]
pub struct Load {
    /// The cluster.
    #[command(flatten)]
    pub chosen: Chosen,
    /// A docker or OCI archive, an OCI layout folder, or the name of an image of the container engine that the `docker` command would use.
    #[arg(required = true, value_name = "IMAGE|ARCHIVE", value_hint = ValueHint::FilePath)]
    pub images: Vec<String>,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Write a cluster as documents.
#[derive(Debug, Args)]
pub struct Export {
    /// For whom.
    #[command(subcommand)]
    pub command: ExportCommand,
}

/// For whom a cluster is written.
#[derive(Debug, Subcommand)]
pub enum ExportCommand {
    /// Write a folder from which `docker compose up` makes the cluster, on this machine or another.
    Compose(ExportCompose),
}

/// Write a folder for `docker compose`.
#[derive(Debug, Args)]
pub struct ExportCompose {
    /// The cluster file; `-` for standard input. When absent, the cluster as it was made, or one control plane with all
    /// defaults.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<Utf8PathBuf>,
    /// The cluster's name; that of the file, or `default`, when absent.
    pub name: Option<ClusterName>,
    /// The folder: an empty or absent one, or an export of the same cluster, which is replaced and keeps its keys.
    #[arg(long, value_name = "FOLDER", value_parser = folder, value_hint = ValueHint::DirPath)]
    pub output_dir: Utf8PathBuf,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Try everything that a cluster needs.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Only this ground; all that there are when absent.
    #[arg(long, short, value_enum)]
    pub provider: Option<ProviderName>,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Node images.
#[derive(Debug, Args)]
pub struct Image {
    /// What to do.
    #[command(subcommand)]
    pub command: ImageCommand,
}

/// What to do with node images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Build a node image of this bivouac, unless it is there. `up` does it by itself.
    #[command(disable_version_flag = true)] // it has an option of that name
    Build {
        /// What nodes of the image are for.
        #[arg(long, value_enum, default_value_t)]
        stack: ImageStack,
        /// The version of Kubernetes, such as `v1.36.1`; the newest when absent.
        #[arg(long)]
        version: Option<String>,
        /// A folder with another `bundle.lock` and its modules, instead of the built-in one.
        #[arg(long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
        bundle: Option<Utf8PathBuf>,
        /// How the result is written.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// List the node images in the store.
    #[command(visible_alias = "ls")]
    List {
        /// How they are written.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Read every byte in the store and compare it with what was made.
    Verify {
        /// How the result is written.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Remove node images that no cluster uses, and what only they are built from.
    Prune {
        /// Remove the node images of this bivouac too that no cluster uses.
        #[arg(long)]
        all: bool,
        /// How the result is written.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
    /// Show what the cache of container images holds: what clusters with `imageCache` pulled.
    Cache {
        /// Remove all of it. Nodes fetch again what they need.
        #[arg(long)]
        empty: bool,
        /// How it is written.
        #[arg(long, short, value_enum, default_value_t)]
        output: Format,
    },
}

/// What a node image is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ImageStack {
    /// Kubernetes
    #[default]
    Kubernetes,
    /// Incus, and the image of its instances
    Incus,
}

impl From<ImageStack> for bivouac_image::Stack {
    fn from(stack: ImageStack) -> Self {
        match stack {
            ImageStack::Kubernetes => Self::Kubernetes,
            ImageStack::Incus => Self::Incus,
        }
    }
}

/// Measure how long it takes until a cluster is usable.
#[derive(Debug, Args)]
pub struct Bench {
    /// The cluster file; one control plane when absent. Its name is replaced by `bench`.
    #[arg(long, short, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<Utf8PathBuf>,
    /// Where nodes run, for a cluster file that does not say so or in place of one.
    #[arg(long, short, value_enum)]
    pub provider: Option<ProviderName>,
    /// What runs on the nodes, in place of a file.
    #[arg(long, value_enum, conflicts_with = "file", default_value_t)]
    pub stack: ImageStack,
    /// Workers beside one control plane, or members beside the first, in place of a file.
    #[arg(long, conflicts_with = "file", default_value_t = 0)]
    pub workers: u32,
    /// Then change the cluster: save it, restore it, fork it, stop and start it, add a node.
    #[arg(long)]
    pub life: bool,
    /// How often.
    #[arg(long, short = 'n', default_value_t = 5)]
    pub runs: u32,
    /// What the cluster is called in place of `bench`, so that tests leave one of that name alone.
    #[arg(long, hide = true, value_name = "NAME", default_value = "bench")]
    pub name: ClusterName,
    /// How the result is written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// Write a cluster file.
#[derive(Debug, Args)]
pub struct Init {
    /// Where; `-` for standard output.
    #[arg(default_value = "cluster.yaml", value_hint = ValueHint::FilePath)]
    pub file: Utf8PathBuf,
    /// Replace a file that is there.
    #[arg(long)]
    pub force: bool,
}

/// Print a completion script.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// Print versions.
#[derive(Debug, Args)]
pub struct Version {
    /// How they are written.
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Format,
}

/// The whole command line, for completion and reference.
pub fn command() -> clap::Command {
    crate::complete::with_values(Arguments::command())
}
