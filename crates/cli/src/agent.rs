//! `bivouac agent …`: what runs inside nodes. Synchronous, and hidden: people use `status`, `logs` and `exec`.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use bivouac_agent::remote::{self, ExecRequest, LogRequest};
use bivouac_agent::{
    BalanceRequest, GuardRequest, HealthWatch, ImageCacheRequest, LoadBalanceRequest, MemoryWatch,
    Places, RestoreRequest, RunOptions, SaveRequest,
};
use bivouac_image::{import_archive, import_stream};
use bivouac_spec::node::probe::Identity;
use bivouac_spec::node::{Tls, paths};
use bivouac_spec::quantity::Span;
use bivouac_spec::{AddressRange, NodeName, Problem};
use camino::{Utf8Path, Utf8PathBuf};
use clap::{Parser, Subcommand};

use crate::images::problem_of;
use crate::report;

/// Where a node's containerd listens.
const CONTAINERD: &str = "/run/containerd/containerd.sock";

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
        /// What the ground left to be done first.
        #[arg(long, default_value = paths::GROUND)]
        ground: Utf8PathBuf,
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
        /// Print nothing when the node is usable, else a line that says why it is not, and exit with 1.
        #[arg(long, conflicts_with = "follow")]
        healthy: bool,
    },
    /// Run a command whose input arrives as frames, and which ends when they do. The first line on standard error is our answer.
    Exec {
        /// The command reads nothing.
        #[arg(long)]
        no_input: bool,
        /// Become the command, on a terminal: neither frames nor an answer.
        #[arg(long, conflicts_with = "no_input")]
        inherit: bool,
        /// A variable of its environment.
        #[arg(long = "env", value_name = "KEY=VALUE", value_parser = variable)]
        environment: Vec<(String, String)>,
        /// The program and its arguments.
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Write frames on standard input to a file, whole or not at all.
    Put {
        /// The file.
        path: Utf8PathBuf,
        /// Its mode in octal.
        #[arg(value_parser = mode)]
        mode: u32,
    },
    /// Copy a file to standard output. The first line on standard error is our answer.
    Get {
        /// The file.
        path: Utf8PathBuf,
    },
    /// Copy a log to standard output. The first line on standard error is our answer.
    Logs {
        /// The service; the agent itself when absent.
        service: Option<String>,
        /// Only so many of its last lines.
        #[arg(long)]
        tail: Option<usize>,
        /// Go on until standard input ends.
        #[arg(long)]
        follow: bool,
    },
    /// Import an image archive into this node's own directory and register its images in containerd.
    Load {
        /// containerd's socket.
        #[arg(long, default_value = CONTAINERD)]
        containerd: Utf8PathBuf,
        /// The archive; `-` is standard input.
        #[arg(default_value = "-")]
        archive: Utf8PathBuf,
    },
    /// Register the images of a container image directory in this node's containerd.
    Images {
        /// The directory.
        #[arg(long, default_value = paths::SHARED_IMAGES)]
        directory: Utf8PathBuf,
        /// containerd's socket.
        #[arg(long, default_value = CONTAINERD)]
        containerd: Utf8PathBuf,
        /// Full names; all when none is given.
        names: Vec<String>,
    },
    /// Restart a service of this node.
    Restart {
        /// Its name.
        service: String,
    },
    /// Read the node config again and make this node equal to it, without restarting what is the same.
    Apply,
    /// Copy folders while nothing in this node moves, and write them to standard output as a tar. Says on lines how far it is, and does what
    /// lines on standard input say.
    Save {
        /// A folder.
        #[arg(long = "path", required = true, value_name = "FOLDER")]
        paths: Vec<Utf8PathBuf>,
        /// How long this node may be paused.
        #[arg(long, default_value = "10s")]
        patience: Span,
        /// Say when all is prepared, and pause when told.
        #[arg(long)]
        await_pause: bool,
    },
    /// Replace folders of this node, in which nothing runs, by those of a tar on standard input.
    Restore {
        /// A folder.
        #[arg(long = "path", required = true, value_name = "FOLDER")]
        paths: Vec<Utf8PathBuf>,
        /// How many bytes come.
        #[arg(long, value_name = "BYTES")]
        size: Option<u64>,
    },
    /// Print the term and the number of the last entry in a log of etcd, which does not run.
    EtcdLog {
        /// The folder of its data.
        data: Utf8PathBuf,
        /// Print nothing: note that all of it is confirmed.
        #[arg(long)]
        confirm: bool,
    },
    /// Watch over the memory and the health of this member of an Incus cluster. Ends with a signal.
    Guard(Guard),
    /// Have addresses of Kubernetes Services on this node, when it is its turn. Ends with a signal.
    LoadBalance(LoadBalance),
    /// Keep what this node's containerd pulls, in a folder that nodes share. Ends with a signal.
    ImageCache {
        /// Where containerd asks.
        #[arg(long)]
        listen: SocketAddr,
        /// The folder.
        #[arg(long, default_value = paths::SHARED_CACHE, value_name = "FOLDER")]
        folder: Utf8PathBuf,
        /// Whom it asks for what it does not have, as a JSON file.
        #[arg(long, value_name = "FILE")]
        config: Utf8PathBuf,
    },
    /// Connect clients to whichever of several servers is healthy. Ends with a signal.
    Balance {
        /// Where clients connect.
        #[arg(long, required = true, value_name = "ADDRESS:PORT")]
        listen: Vec<SocketAddr>,
        /// Where they are connected to.
        #[arg(long = "backend", required = true, value_name = "ADDRESS:PORT")]
        backends: Vec<SocketAddr>,
        /// The backend that is taken whenever it is healthy.
        #[arg(long, value_name = "ADDRESS:PORT")]
        prefer: Option<SocketAddr>,
        /// What backends are asked over HTTPS; any 2xx is healthy.
        #[arg(long, default_value = "/readyz", value_name = "PATH")]
        check_path: String,
        /// Certificates of the authority that vouches for the addresses of the backends.
        #[arg(long, value_name = "FILE")]
        authority: Utf8PathBuf,
    },
}

/// Addresses of Kubernetes Services.
#[derive(Debug, clap::Args)]
struct LoadBalance {
    /// The name of this node.
    #[arg(long)]
    node: NodeName,
    /// Where the API is.
    #[arg(long, value_name = "ADDRESS:PORT")]
    server: SocketAddr,
    /// Certificates of the authority that vouches for it.
    #[arg(long, value_name = "FILE")]
    authority: Utf8PathBuf,
    /// The certificate by which it knows this program.
    #[arg(long, value_name = "FILE")]
    certificate: Utf8PathBuf,
    /// The key of that.
    #[arg(long, value_name = "FILE")]
    key: Utf8PathBuf,
    /// Where other nodes learn whether this one is there: its own address.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// Addresses that Services can have.
    #[arg(long = "range", required = true, value_name = "FIRST-LAST")]
    ranges: Vec<AddressRange>,
    /// One of them that they cannot have.
    #[arg(long, value_name = "ADDRESS")]
    except: Vec<IpAddr>,
    /// Give addresses, and not only have them.
    #[arg(long)]
    allocate: bool,
}

impl LoadBalance {
    fn request(self) -> LoadBalanceRequest {
        let identity = Identity { certificate: self.certificate, key: self.key };
        LoadBalanceRequest {
            node: self.node,
            server: self.server,
            tls: Tls { authority: self.authority, identity: Some(identity) },
            listen: self.listen,
            ranges: self.ranges,
            except: self.except.into_iter().collect(),
            allocate: self.allocate,
        }
    }
}

/// What is watched in a member of an Incus cluster.
#[derive(Debug, clap::Args)]
struct Guard {
    /// incusd's socket.
    #[arg(long, value_name = "FILE")]
    socket: Utf8PathBuf,
    /// The service that incusd is.
    #[arg(long)]
    service: String,
    /// The name of this member.
    #[arg(long)]
    member: String,
    /// Its position among all members, from 0.
    #[arg(long)]
    position: usize,
    /// How many members there are.
    #[arg(long)]
    members: usize,
    /// How often memory is looked at; never when absent.
    #[arg(long)]
    memory_interval: Option<Span>,
    /// The memory that must be available, in MiB.
    #[arg(long, default_value_t = 64, value_name = "MIB")]
    memory_minimum: u64,
    /// How long an instance may take to stop by itself.
    #[arg(long, default_value = "10s")]
    memory_grace: Span,
    /// How often the cluster's list of members is asked for; never when absent.
    #[arg(long)]
    health_interval: Option<Span>,
    /// How long an answer may take.
    #[arg(long, default_value = "3s")]
    health_timeout: Span,
    /// How many answers in a row may be missing.
    #[arg(long, default_value_t = 3)]
    health_failures: u32,
    /// For how long the lower half of the members is left alone; `0s` for ever.
    #[arg(long, default_value = "5m")]
    health_lenience: Span,
}

impl Guard {
    fn request(self) -> GuardRequest {
        let time = |span: Span| std::time::Duration::from_millis(span.0);
        GuardRequest {
            socket: self.socket,
            service: self.service,
            member: self.member,
            position: self.position,
            members: self.members,
            memory: self.memory_interval.map(|interval| MemoryWatch {
                interval: time(interval),
                minimum: self.memory_minimum << 20,
                grace: time(self.memory_grace),
            }),
            health: self.health_interval.map(|interval| HealthWatch {
                interval: time(interval),
                timeout: time(self.health_timeout),
                failures: self.health_failures,
                lenience: Some(time(self.health_lenience)).filter(|lenience| !lenience.is_zero()),
            }),
        }
    }
}

/// Runs what follows `agent` on the command line.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse_from(std::env::args_os().skip(2));
    let outcome = match arguments.command {
        Command::Run { config, ground, shares_kernel, label: _ } => {
            return bivouac_agent::run(&RunOptions {
                config,
                ground,
                shares_kernel,
                ..RunOptions::default()
            });
        }
        Command::Exec { no_input, inherit, environment, command } => {
            let environment = environment.into_iter().collect();
            return remote::exec(&ExecRequest { command, environment, no_input, inherit });
        }
        Command::Put { path, mode } => return remote::put(&path, mode),
        Command::Get { path } => return remote::get(&path),
        Command::Logs { service, tail, follow } => {
            return remote::logs(paths::LOGS.into(), &LogRequest { service, tail, follow });
        }
        Command::Save { paths, patience, await_pause } => {
            let patience = std::time::Duration::from_millis(patience.0);
            let request = SaveRequest { paths, patience, await_pause };
            return bivouac_agent::save(&Places::default(), &request);
        }
        Command::Restore { paths, size } => {
            return bivouac_agent::restore(&Places::default(), &RestoreRequest { paths, size });
        }
        Command::Status { healthy: true, .. } => return healthy(),
        Command::Status { follow, .. } => {
            bivouac_agent::status(paths::SOCKET.into(), follow, &mut std::io::stdout().lock())
        }
        Command::Images { directory, containerd, names } => {
            let names = (!names.is_empty()).then_some(names.as_slice());
            register(&directory, &containerd, names)
        }
        Command::Load { containerd, archive } => load(&containerd, &archive),
        Command::Restart { service } => bivouac_agent::restart(paths::SOCKET.into(), &service),
        Command::Apply => bivouac_agent::apply(paths::SOCKET.into()),
        Command::EtcdLog { data, confirm: true } => bivouac_agent::confirm_etcd_log(&data),
        Command::EtcdLog { data, confirm: false } => etcd_log_end(&data),
        Command::Guard(guard) => bivouac_agent::guard(&guard.request(), |line| {
            let _ = writeln!(std::io::stdout().lock(), "{line}");
        })
        .map(|never| match never {}),
        Command::ImageCache { listen, folder, config } => {
            let request = ImageCacheRequest { listen, folder, config };
            bivouac_agent::image_cache(&request, |line| {
                // A log that cannot be written must not end what is being pulled.
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            })
            .map(|never| match never {})
        }
        Command::LoadBalance(arguments) => {
            bivouac_agent::load_balance(&arguments.request(), |line| {
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            })
        }
        Command::Balance { listen, backends, prefer, check_path, authority } => {
            let request = BalanceRequest { listen, backends, prefer, check_path, authority };
            bivouac_agent::balance(&request, |line| {
                // A log that cannot be written must not end the connections.
                let _ = writeln!(std::io::stdout().lock(), "{line}");
            })
            .map(|never| match never {})
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => report::problems(&problem.into(), false),
    }
}

/// For health checks, which keep what is printed.
fn healthy() -> ExitCode {
    match bivouac_agent::is_healthy(paths::SOCKET.into()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            let _ = writeln!(std::io::stdout().lock(), "{why}");
            ExitCode::FAILURE
        }
    }
}

fn etcd_log_end(data: &Utf8Path) -> Result<(), Problem> {
    let end = bivouac_agent::etcd_log_end(data)?;
    writeln!(std::io::stdout().lock(), "{end}")
        .map_err(|error| Problem::from_error("agent.output", &error))
}

fn load(containerd: &Utf8Path, archive: &Utf8Path) -> Result<(), Problem> {
    let directory = Utf8Path::new(paths::OWN_IMAGES);
    let imported = if archive == "-" {
        import_stream(directory, "standard input", std::io::stdin().lock(), &|_| ())
    } else {
        import_archive(directory, archive, &|_| ())
    };
    let imported = imported.map_err(|error| problem_of(&error))?;
    let names: Vec<String> = imported.into_iter().map(|image| image.name).collect();
    register(directory, containerd, Some(&names))
}

fn register(
    directory: &Utf8Path,
    containerd: &Utf8Path,
    names: Option<&[String]>,
) -> Result<(), Problem> {
    let registered = bivouac_agent::register_images(directory, containerd, names)?;
    let json = serde_json::to_string(&registered)
        .map_err(|error| Problem::from_error("agent.encode", &error))?;
    writeln!(std::io::stdout().lock(), "{json}")
        .map_err(|error| Problem::from_error("agent.output", &error))
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".to_owned()),
    }
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "write it in octal, such as 0644".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_is_balanced_is_named() {
        let parse = |words: &str| Arguments::try_parse_from(words.split(' '));
        let named = "balance --listen 127.0.0.1:1 --listen [::1]:1 --backend 10.0.0.1:6443 \
            --authority /ca.crt";
        let Command::Balance { listen, check_path, prefer, .. } = parse(named).unwrap().command
        else {
            panic!("another command")
        };
        assert_eq!((listen.len(), check_path.as_str(), prefer), (2, "/readyz", None));
        assert!(parse("balance --listen 127.0.0.1:1 --authority /ca.crt").is_err());
        assert!(parse("balance --listen nowhere --backend 10.0.0.1:6443 --authority /x").is_err());
    }

    #[test]
    fn values_are_read_and_refused() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("A").is_err() && variable("=b").is_err());
        assert_eq!((mode("0600"), mode("755")), (Ok(0o600), Ok(0o755)));
        assert!(mode("999").is_err() && mode("100000").is_err());
    }
}
