//! Which engine is meant: by the cluster file, the environment, the contexts of the `docker` command, or because it is there.

use std::fmt;

use bivouac_spec::Problem;
use bivouac_spec::name::nearest;
use camino::{Utf8Path, Utf8PathBuf};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::EngineEnvironment;
use super::problem::{OrProblem as _, unfit, usage};

/// Where an engine listens when nothing is said.
const SOCKET: &str = "/var/run/docker.sock";

/// Where podman's listens.
const PODMAN: &str = "/run/podman/podman.sock";

/// The context that stands for the environment and the usual socket.
const DEFAULT_CONTEXT: &str = "default";

/// An engine, and what said that it is this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Selected {
    /// Where it listens.
    pub(super) endpoint: Endpoint,
    /// Who said so.
    pub(super) origin: Origin,
}

/// Where an engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// On a socket of this machine.
    Unix(Utf8PathBuf),
    /// On a port: `HOST:PORT`, and the folder with `ca.pem`, `cert.pem` and `key.pem` where it speaks TLS.
    Tcp(String, Option<Utf8PathBuf>),
    /// Behind SSH: `ssh://USER@HOST:PORT`.
    Ssh(String),
}

/// What named an engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// A context of the `docker` command.
    Context(String),
    /// `DOCKER_HOST`.
    Environment,
    /// Nothing: it is at a usual place. All that were looked at.
    Usual(Vec<Utf8PathBuf>),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{path}"),
            Self::Tcp(address, _) => write!(f, "tcp://{address}"),
            Self::Ssh(address) => f.write_str(address),
        }
    }
}

/// Chooses the engine. `context` is what the cluster file says.
///
/// # Errors
/// When a context is unknown or cannot be used, or an address is none.
pub(super) fn select(
    context: Option<&str>,
    environment: &EngineEnvironment,
) -> Result<Selected, Problem> {
    if let Some(context) = context {
        return of_context(context, environment);
    }
    if let Some(host) = &environment.host {
        let tls = environment.tls_verify.then(|| certificates(environment));
        let endpoint = parse_endpoint(host, tls, "`DOCKER_HOST`")?;
        return Ok(Selected { endpoint, origin: Origin::Environment });
    }
    match environment.context.clone().or_else(|| current_context(environment)) {
        Some(context) => of_context(&context, environment),
        None => Ok(usual(environment)),
    }
}

fn certificates(environment: &EngineEnvironment) -> Utf8PathBuf {
    let folder = environment.cert_path.as_ref().or(environment.config.as_ref());
    folder.cloned().unwrap_or_default()
}

/// The first usual socket that exists, or else the first of all.
fn usual(environment: &EngineEnvironment) -> Selected {
    let own = environment.runtime.as_ref().map(|folder| folder.join("podman/podman.sock"));
    let places: Vec<Utf8PathBuf> =
        [Some(SOCKET.into()), own, Some(PODMAN.into())].into_iter().flatten().collect();
    let found = places.iter().find(|path| path.exists()).unwrap_or(&places[0]).clone();
    Selected { endpoint: Endpoint::Unix(found), origin: Origin::Usual(places) }
}

fn parse_endpoint(host: &str, tls: Option<Utf8PathBuf>, whose: &str) -> Result<Endpoint, Problem> {
    let (scheme, rest) = host.split_once("://").unwrap_or_default();
    let rest = rest.trim_end_matches('/');
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Endpoint::Unix(rest.into())),
        "https" if tls.is_none() => Err(no_certificates(host, whose)),
        "tcp" | "http" | "https" if !rest.is_empty() => {
            let port = if tls.is_some() { 2376 } else { 2375 };
            let has_port = port_of(rest).is_some();
            let address = if has_port { rest.to_owned() } else { format!("{rest}:{port}") };
            Ok(Endpoint::Tcp(address, tls))
        }
        "ssh" if !rest.is_empty() => match port_of(rest) {
            // The client takes a port for a part of the name.
            Some("22") => Ok(Endpoint::Ssh(format!("ssh://{}", rest.trim_end_matches(":22")))),
            Some(port) => Err(ssh_port(host, port, whose)),
            None => Ok(Endpoint::Ssh(format!("ssh://{rest}"))),
        },
        _ => Err(bad_host(host, whose)),
    }
}

/// What comes after the colon. An address in brackets has colons of its own.
fn port_of(address: &str) -> Option<&str> {
    let end = address.rsplit(']').next()?;
    end.rsplit_once(':').map(|(_, port)| port)
}

fn ssh_port(host: &str, port: &str, whose: &str) -> Problem {
    let message =
        format!("`{host}`, the address of {whose}, has a port, which is not passed on to ssh");
    usage("ssh_port", message).help(format!(
        "write `Port {port}` for the host into ~/.ssh/config, and leave it out of the address"
    ))
}

fn no_certificates(host: &str, whose: &str) -> Problem {
    let message = format!("`{host}`, the address of {whose}, wants certificates, and none are set");
    usage("no_certificates", message).help(
        "set `DOCKER_TLS_VERIFY` and `DOCKER_CERT_PATH`, or add them with `docker context update`",
    )
}

fn bad_host(host: &str, whose: &str) -> Problem {
    usage("bad_host", format_args!("`{host}`, the address of {whose}, is none of an engine"))
        .help("write unix:///PATH, tcp://HOST:PORT or ssh://USER@HOST")
}

/// What we read of the configuration of the `docker` command.
#[derive(Debug, Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

/// The context that `docker context use` chose.
fn current_context(environment: &EngineEnvironment) -> Option<String> {
    let text = std::fs::read(environment.config.as_ref()?.join("config.json")).ok()?;
    let config: ConfigFile = serde_json::from_slice(&text).ok()?;
    config.current_context.filter(|name| !name.is_empty())
}

/// What we read of a context.
#[derive(Debug, Deserialize)]
struct Meta {
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Debug, Default, Deserialize)]
struct Endpoints {
    docker: Option<MetaEndpoint>,
}

#[derive(Debug, Deserialize)]
struct MetaEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skips_verification: bool,
}

fn of_context(name: &str, environment: &EngineEnvironment) -> Result<Selected, Problem> {
    if name == DEFAULT_CONTEXT {
        return match &environment.host {
            Some(_) => select(None, &EngineEnvironment { context: None, ..environment.clone() }),
            None => Ok(usual(environment)),
        };
    }
    let folder = environment.config.clone().unwrap_or_default().join("contexts");
    let hash = hex::encode(Sha256::digest(name));
    let file = folder.join("meta").join(&hash).join("meta.json");
    let Ok(text) = std::fs::read(&file) else {
        return Err(unknown_context(name, &folder));
    };
    let meta: Meta = serde_json::from_slice(&text)
        .or_problem("bad_context", format_args!("{file}, the context `{name}`, cannot be read"))?;
    let Some(docker) = meta.endpoints.docker else {
        return Err(usage("bad_context", format_args!("context `{name}` names no engine"))
            .help("choose another context of `docker context ls`"));
    };
    let tls = folder.join("tls").join(&hash).join("docker");
    let tls = tls.exists().then_some(tls);
    if docker.skips_verification {
        let message = format!("context `{name}` trusts whoever answers, which bivouac does not");
        return Err(unfit("unverified", message)
            .help(format!("add its certificate with `docker context update {name}`")));
    }
    let endpoint = parse_endpoint(&docker.host, tls, &format!("context `{name}`"))?;
    Ok(Selected { endpoint, origin: Origin::Context(name.to_owned()) })
}

fn unknown_context(name: &str, folder: &Utf8Path) -> Problem {
    let known = contexts(folder);
    let problem = usage("unknown_context", format_args!("there is no Docker context `{name}`"));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => problem.help(format!("use `{near}`, or another of: {}", known.join(", "))),
        None => problem.help(format!("use one of: {}", known.join(", "))),
    }
}

/// The names of all contexts.
fn contexts(folder: &Utf8Path) -> Vec<String> {
    let entries = folder.join("meta").read_dir_utf8().into_iter().flatten().flatten();
    let metas = entries.filter_map(|entry| {
        let text = std::fs::read(entry.path().join("meta.json")).ok()?;
        serde_json::from_slice::<Meta>(&text).ok()
    });
    let mut names: Vec<String> = metas.map(|meta| meta.name).collect();
    names.push(DEFAULT_CONTEXT.to_owned());
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Config {
        dir: tempfile::TempDir,
    }

    impl Config {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        fn environment(&self) -> EngineEnvironment {
            let config = Utf8PathBuf::from_path_buf(self.dir.path().to_owned()).unwrap();
            EngineEnvironment { config: Some(config), ..EngineEnvironment::default() }
        }

        fn context(&self, name: &str, host: &str, tls: bool) {
            self.endpoint(name, &serde_json::json!({"Host": host}), tls);
        }

        fn endpoint(&self, name: &str, endpoint: &serde_json::Value, tls: bool) {
            let hash = hex::encode(Sha256::digest(name));
            let meta = self.dir.path().join("contexts/meta").join(&hash);
            std::fs::create_dir_all(&meta).unwrap();
            let text = serde_json::json!({
                "Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint},
            });
            std::fs::write(meta.join("meta.json"), text.to_string()).unwrap();
            if tls {
                let tls = self.dir.path().join("contexts/tls").join(&hash).join("docker");
                std::fs::create_dir_all(tls).unwrap();
            }
        }
    }

    fn chosen(context: Option<&str>, environment: &EngineEnvironment) -> String {
        select(context, environment)
            .map_or_else(|problem| problem.code, |it| it.endpoint.to_string())
    }

    #[test]
    fn the_nearest_word_counts() {
        let config = Config::new();
        config.context("lab", "tcp://lab", true);
        config.context("far", "ssh://me@far", false);
        let mut environment = config.environment();
        std::fs::write(config.dir.path().join("config.json"), r#"{"currentContext":"far"}"#)
            .unwrap();
        assert_eq!(chosen(None, &environment), "ssh://me@far");
        environment.context = Some("lab".to_owned());
        assert_eq!(chosen(None, &environment), "tcp://lab:2376");
        environment.host = Some("unix:///x.sock".to_owned());
        assert_eq!(chosen(None, &environment), "unix:///x.sock");
        assert_eq!(chosen(Some("far"), &environment), "ssh://me@far");
        assert_eq!(chosen(Some("default"), &environment), "unix:///x.sock");
    }

    #[test]
    fn an_engine_that_is_not_to_be_verified_is_refused() {
        let config = Config::new();
        let endpoint = serde_json::json!({"Host": "tcp://lab:2376", "SkipTLSVerify": true});
        for tls in [false, true] {
            config.endpoint("lab", &endpoint, tls);
            assert_eq!(chosen(Some("lab"), &config.environment()), "provider.docker.unverified");
        }
    }

    #[test]
    fn a_port_of_its_own_is_kept() {
        for (host, expected) in [
            ("tcp://lab:99", "tcp://lab:99"),
            ("tcp://[::1]", "tcp://[::1]:2375"),
            ("http://10.0.0.1/", "tcp://10.0.0.1:2375"),
            ("ssh://me@lab:22/", "ssh://me@lab"),
            ("ssh://me@lab:2222", "provider.docker.ssh_port"),
            ("unix://x", "provider.docker.bad_host"),
            ("lab", "provider.docker.bad_host"),
            ("https://lab", "provider.docker.no_certificates"),
            ("npipe:////./pipe", "provider.docker.bad_host"),
        ] {
            let environment =
                EngineEnvironment { host: Some(host.to_owned()), ..EngineEnvironment::default() };
            assert_eq!(chosen(None, &environment), expected);
        }
    }

    #[test]
    fn an_unknown_context_names_the_nearest() {
        let config = Config::new();
        config.context("office", "tcp://lab", false);
        let problem = select(Some("ofice"), &config.environment()).unwrap_err();
        insta::assert_json_snapshot!(problem, @r#"
        {
          "code": "provider.docker.unknown_context",
          "class": "usage",
          "message": "there is no Docker context `ofice`",
          "help": "use `office`, or another of: default, office"
        }
        "#);
    }
}
