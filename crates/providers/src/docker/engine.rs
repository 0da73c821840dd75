//! A connection to an engine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use bivouac_spec::Problem;
use bollard::errors::Error;
use bollard::models::SystemInfo;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker};
use camino::{Utf8Path, Utf8PathBuf};
use futures::TryFutureExt as _;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::sync::OnceCell;

use super::EngineEnvironment;
use super::daemon::Daemon;
use super::problem::{OrProblem as _, status, unfit, usage};
use super::select::{Endpoint, Origin, Selected, select};
use super::tls::{self, Certificates};

/// How long an engine may take to answer, in seconds.
const PATIENCE: u64 = 120;

/// How long an engine elsewhere may take to answer for the first time.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// An engine that answers.
#[derive(Debug)]
pub(super) struct Engine {
    /// The client of its API.
    pub(super) docker: Docker,
    /// Where it listens.
    pub(super) endpoint: Endpoint,
    /// What is known of it besides, where it runs on this machine and sees the same files.
    pub(super) local: Option<Daemon>,
    /// What it says of itself, once it was asked.
    info: OnceCell<SystemInfo>,
    /// The digest of the agent that nodes were made with last, which takes its time.
    pub(super) agent: Mutex<Option<KnownAgent>>,
}

/// A file with the agent, and its digest.
#[derive(Debug, Clone)]
pub(super) struct KnownAgent {
    pub(super) path: Utf8PathBuf,
    pub(super) changed: SystemTime,
    pub(super) digest: String,
}

impl Engine {
    /// Connects to the engine that is meant.
    ///
    /// # Errors
    /// When there is none, or it may not be used.
    pub(super) async fn connect(
        context: Option<&str>,
        environment: &EngineEnvironment,
    ) -> Result<Self, Problem> {
        let selected = select(context, environment)?;
        let peer = match &selected.endpoint {
            Endpoint::Unix(path) => try_socket(path, &selected)?,
            Endpoint::Tcp(..) | Endpoint::Ssh(_) => None,
        };
        let docker = client(&selected)?;
        let docker = match &environment.api_version {
            Some(version) => pinned(docker, version)?,
            None => docker,
        };
        let is_socket = matches!(selected.endpoint, Endpoint::Unix(_));
        if !is_socket {
            let first = docker.clone().with_timeout(FIRST_PATIENCE);
            first.ping().await.map_err(|error| {
                let explained = tls::explain(&selected, &error);
                explained.unwrap_or_else(|| no_engine(&selected).because(&error))
            })?;
        }
        let endpoint = selected.endpoint;
        let mut engine =
            Self { docker, endpoint, local: None, info: OnceCell::new(), agent: Mutex::default() };
        if is_socket {
            let is_here = match engine.info().await {
                Ok(info) => is_here(info),
                // One that keeps this to itself may be anywhere.
                Err(error) if status(&error).is_some() => false,
                Err(error) => {
                    let message =
                        format!("the container engine at {} cannot be asked", engine.endpoint);
                    return Err(error).or_problem("survey", message);
                }
            };
            engine.local = is_here.then(|| Daemon::of(peer));
        }
        Ok(engine)
    }

    /// What it says of itself. It is asked once: it takes its time to answer, and tells what stays.
    pub(super) async fn info(&self) -> Result<&SystemInfo, Error> {
        self.info.get_or_try_init(|| self.docker.info()).await
    }

    /// Whether it listens on a socket of this machine, and so publishes ports on it.
    pub(super) fn is_socket(&self) -> bool {
        matches!(self.endpoint, Endpoint::Unix(_))
    }

    /// The address at which ports that it publishes are reached from here, of IPv6 where they are published on that.
    ///
    /// # Errors
    /// When the name of its host has no address.
    pub(super) fn host(&self, is_ipv6: bool) -> Result<IpAddr, Problem> {
        let name = match &self.endpoint {
            Endpoint::Unix(_) if is_ipv6 => return Ok(Ipv6Addr::LOCALHOST.into()),
            Endpoint::Unix(_) => return Ok(Ipv4Addr::LOCALHOST.into()),
            Endpoint::Tcp(address, _) => address.as_str(),
            Endpoint::Ssh(address) => address.trim_start_matches("ssh://"),
        };
        let name = name.rsplit_once('@').map_or(name, |(_, host)| host);
        let name = match name.rsplit_once(':') {
            Some((host, port)) if port.parse::<u16>().is_ok() => host,
            _ => name,
        };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let message = format!("{bare}, the host of the engine, has no address");
        let found = (bare, 0).to_socket_addrs().or_problem("host", &message)?;
        preferred(found.map(|address| address.ip()), is_ipv6).ok_or_else(|| unfit("host", &message))
    }
}

fn client(selected: &Selected) -> Result<Docker, Problem> {
    // bollard asks the version for its paths and then leaves it out of them: every engine answers in the newest that it knows.
    let version = API_DEFAULT_VERSION;
    let docker = match &selected.endpoint {
        Endpoint::Unix(path) => Docker::connect_with_unix(path.as_str(), PATIENCE, version),
        Endpoint::Tcp(address, None) => Docker::connect_with_http(address, PATIENCE, version),
        Endpoint::Tcp(address, Some(folder)) => {
            // bollard's own would trust all authorities of this machine besides.
            let connector = tls::connector(Certificates::of(folder).config(selected)?);
            // None is kept for another request, as with bollard's own clients.
            let mut client = Client::builder(TokioExecutor::new());
            let client = client.pool_max_idle_per_host(0).build(connector);
            let transport =
                move |request: BollardRequest| client.request(request).map_err(Error::from);
            let address = Some(format!("https://{address}"));
            Docker::connect_with_custom_transport(transport, address, PATIENCE, version)
        }
        Endpoint::Ssh(address) => Docker::connect_with_ssh(address, PATIENCE, version, None),
    };
    docker.or_problem("client", format_args!("{} cannot be used", selected.endpoint))
}

/// The client with a version of the API of the user's choice.
fn pinned(docker: Docker, version: &str) -> Result<Docker, Problem> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !version.split_once('.').is_some_and(|(major, minor)| digits(major) && digits(minor)) {
        let message = format!("`{version}`, the value of `DOCKER_API_VERSION`, is no version");
        return Err(usage("bad_version", message).help("write one such as 1.43, or unset it"));
    }
    let prefix = format!("/v{version}");
    Ok(docker.with_request_modifier(move |mut request| {
        let uri = request.uri().to_string();
        let path = request.uri().path_and_query().map_or("", |path| path.as_str());
        let versioned = uri.strip_suffix(path).map(|base| format!("{base}{prefix}{path}"));
        if let Some(uri) = versioned.and_then(|uri| uri.parse().ok()) {
            *request.uri_mut() = uri;
        }
        request
    }))
}

/// Of the addresses of a host, one of this family if there is one.
fn preferred(addresses: impl Iterator<Item = IpAddr>, is_ipv6: bool) -> Option<IpAddr> {
    addresses.min_by_key(|address| address.is_ipv6() != is_ipv6)
}

/// Connects once, because the client tells little of what is wrong with a socket. Gives the process that listens.
fn try_socket(path: &Utf8Path, selected: &Selected) -> Result<Option<u32>, Problem> {
    let stream = UnixStream::connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => no_permission(path).because(&error),
        _ => no_engine(selected).because(&error),
    })?;
    let peer = rustix::net::sockopt::socket_peercred(&stream).ok();
    Ok(peer.and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok()))
}

/// Whether an engine behind a socket is on this machine. Behind the socket may be a tunnel to another, or a container of this one.
fn is_here(info: &SystemInfo) -> bool {
    let own = rustix::system::uname();
    let says = |said: &Option<String>, own: &std::ffi::CStr| {
        said.as_deref().is_some_and(|said| said.as_bytes() == own.to_bytes())
    };
    says(&info.name, own.nodename())
        && says(&info.kernel_version, own.release())
        && info.docker_root_dir.as_ref().is_some_and(|path| may_exist(path.as_ref()))
}

/// Whether there is such a file, as far as an ordinary user can tell.
fn may_exist(path: &Utf8Path) -> bool {
    match std::fs::metadata(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

fn no_permission(path: &Utf8Path) -> Problem {
    unfit("no_permission", format_args!("you may not use the container engine at {path}"))
        .help("run the command with sudo, or join the engine's group with `sudo usermod -aG docker $USER` and log in again")
}

fn no_engine(selected: &Selected) -> Problem {
    let endpoint = &selected.endpoint;
    match &selected.origin {
        Origin::Context(name) => {
            let message = format!("no container engine answers at {endpoint} of context `{name}`");
            unfit("no_engine", message).help("start it, or choose another context")
        }
        Origin::Environment => {
            let message =
                format!("no container engine answers at {endpoint}, as `DOCKER_HOST` says");
            unfit("no_engine", message).help("start it, or unset `DOCKER_HOST`")
        }
        Origin::Usual(places) => {
            let places: Vec<&str> = places.iter().map(|path| path.as_str()).collect();
            let message = format!("no container engine answers at {}", places.join(", "));
            unfit("no_engine", message)
                .help("install Docker and start it, or name an engine with `DOCKER_HOST`")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_here_if_all_that_it_says_is_true_here() {
        let own = rustix::system::uname();
        let here = SystemInfo {
            name: Some(own.nodename().to_str().unwrap().to_owned()),
            kernel_version: Some(own.release().to_str().unwrap().to_owned()),
            docker_root_dir: Some("/var".to_owned()),
            ..SystemInfo::default()
        };
        assert!(is_here(&here));
        let other = || Some("/other".to_owned());
        assert!(!is_here(&SystemInfo { name: other(), ..here.clone() }));
        assert!(!is_here(&SystemInfo { kernel_version: other(), ..here.clone() }));
        assert!(!is_here(&SystemInfo { docker_root_dir: other(), ..here }));
    }

    #[test]
    fn ports_are_asked_for_where_they_are_bound() {
        let ips = |texts: &[&str]| texts.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
        let prefer = |texts: &[&str], is_ipv6| {
            preferred(ips(texts).into_iter(), is_ipv6).map(|ip| ip.to_string())
        };
        let both = ["::1", "127.0.0.1", "127.0.0.2"];
        assert_eq!(prefer(&both, false).unwrap(), "127.0.0.1");
        assert_eq!(prefer(&both, true).unwrap(), "::1");
        assert_eq!(prefer(&["::1"], false).unwrap(), "::1");
        assert_eq!(prefer(&[], false), None);
    }
}
