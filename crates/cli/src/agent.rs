//! `bivouac agent …`: what runs inside nodes. Synchronous, and hidden: people use `status`, `logs` and `exec`.

use std::io::Write;
use std::process::ExitCode;

use bivouac_agent::RunOptions;
use bivouac_spec::Problem;
use bivouac_spec::node::paths;
use camino::Utf8PathBuf;
use clap::{Parser, Subcommand};

use crate::report;

/// What runs inside a node.
#[derive(Debug, Parser)]
#[command(name = "bivouac agent", no_binary_name = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make this node what its config says, and keep it so.
    Run {
        /// The node config.
        #[arg(long, default_value = paths::CONFIG)]
        config: Utf8PathBuf,
        /// The kernel is shared with a host: leave its parameters as they are.
        #[arg(long)]
        shares_kernel: bool,
        /// Says in process lists which node this is; means nothing else.
        #[arg(long)]
        label: Option<String>,
    },
    /// Print the status of this node as JSON.
    Status {
        /// Print it again, on a line, whenever it changes.
        #[arg(long)]
        follow: bool,
    },
    /// Register the images of a container image directory in this node's containerd.
    Images {
        /// The directory.
        #[arg(long, default_value = paths::SHARED_IMAGES)]
        directory: Utf8PathBuf,
        /// containerd's socket.
        #[arg(long, default_value = "/run/containerd/containerd.sock")]
        containerd: Utf8PathBuf,
        /// Full names; all when none is given.
        names: Vec<String>,
    },
    /// Restart a service of this node.
    Restart {
        /// Its name.
        service: String,
    },
}

/// Runs what follows `agent` on the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args_os().skip(2));
    let outcome = match arguments.command {
        Command::Run { config, shares_kernel, label: _ } => {
            return bivouac_agent::run(&RunOptions {
                config,
                shares_kernel,
                ..RunOptions::default()
            });
        }
        Command::Status { follow } => {
            bivouac_agent::status(paths::SOCKET.into(), follow, &mut std::io::stdout().lock())
        }
        Command::Images { directory, containerd, names } => images(&directory, &containerd, &names),
        Command::Restart { service } => bivouac_agent::restart(paths::SOCKET.into(), &service),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => report::problems(&problem.into(), false),
    }
}

fn images(
    directory: &Utf8PathBuf,
    containerd: &Utf8PathBuf,
    names: &[String],
) -> Result<(), Problem> {
    let names = (!names.is_empty()).then_some(names);
    let registered = bivouac_agent::register_images(directory, containerd, names)?;
    let json = serde_json::to_string(&registered)
        .map_err(|error| Problem::from_error("agent.encode", &error))?;
    writeln!(std::io::stdout().lock(), "{json}")
        .map_err(|error| Problem::from_error("agent.output", &error))
}
