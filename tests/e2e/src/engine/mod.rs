//! The container engine that the `docker` and `compose` settings run over: that of `$DOCKER_HOST`, or the machine's own where one runs, or else a
//! `dockerd` of the tests', which is started by the first case that needs it and stopped when the run ends.
//!
//! ```text
//! shared() --no engine--> Dockerd::start --restart: stop, start--> stop() --> nothing of it is left
//! ```

mod dockerd;
mod door;
mod firewall;
mod snapshot;

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dockerd::Dockerd;
pub use dockerd::{end_daemon, new_daemon_folder};

use crate::Run;

static SHARED: OnceLock<Engine> = OnceLock::new();
/// What leads to an engine, and says how it is spoken to.
const WAYS: [&str; 7] = [
    "DOCKER_API_VERSION",
    "DOCKER_CERT_PATH",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "DOCKER_HOST",
    "DOCKER_TLS",
    "DOCKER_TLS_VERIFY",
];
/// Where the machine's own engine listens.
const SOCKET: &str = "/var/run/docker.sock";

/// A command whose environment leads to no engine.
pub fn without_ways(run: Run) -> Run {
    WAYS.into_iter().fold(run, Run::without_env)
}

/// An engine.
#[derive(Debug)]
pub struct Engine {
    host: String,
    /// Whether somebody named it by `$DOCKER_HOST`, perhaps with certificates beside that.
    named: bool,
    own: Option<Dockerd>,
}

impl Engine {
    /// The engine of this run.
    ///
    /// # Panics
    /// When there is none and none can be started.
    #[must_use]
    pub fn shared() -> &'static Self {
        SHARED.get_or_init(|| {
            if let Some(host) = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty()) {
                return Self { host, named: true, own: None };
            }
            if dockerd::answers(Path::new(SOCKET)) {
                let host = format!("unix://{SOCKET}");
                return Self { host, named: false, own: None };
            }
            let own = Dockerd::start();
            Self { host: own.host(), named: false, own: Some(own) }
        })
    }

    /// Stops the engine of this run if it is the tests' own, and removes everything of it.
    ///
    /// # Panics
    /// When something of it stays.
    pub fn stop() {
        if let Some(own) = SHARED.get().and_then(|engine| engine.own.as_ref()) {
            own.remove();
        }
    }

    /// The value of `$DOCKER_HOST` for it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether it is the tests' own.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The value of `$DOCKER_HOST` for it over TLS, as if it were on another machine; and the folder with `ca.pem`, `cert.pem` and
    /// `key.pem` that it asks for then.
    ///
    /// # Panics
    /// When it is not the tests' own.
    #[must_use]
    pub fn over_tls(&self) -> (String, PathBuf) {
        let own = self.own.as_ref().expect("only the tests' own engine has a port");
        (own.door().host(), own.door().client())
    }

    /// Stops it, calls `meanwhile`, and starts it again.
    ///
    /// # Panics
    /// When it is not the tests' own, or does not come back.
    pub fn restart(&self, meanwhile: impl FnOnce()) {
        let own = self.own.as_ref().expect("cases that stop the engine run over the tests' own");
        own.halt();
        meanwhile();
        own.resume();
    }

    /// The `docker` command with these arguments.
    pub fn docker<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.lead(Run::new("docker")).args(arguments)
    }

    /// Has the environment of a command lead to it. What leads whoever runs the tests elsewhere does not count; what belongs to
    /// `$DOCKER_HOST` stays with that.
    pub(crate) fn lead(&self, run: Run) -> Run {
        let run = if self.named { run.without_env("DOCKER_CONTEXT") } else { without_ways(run) };
        run.env("DOCKER_HOST", &self.host)
    }

    /// What `docker` says to these arguments, a line each.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn lines<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Vec<String> {
        self.docker(arguments).success().stdout().lines().map(str::to_owned).collect()
    }
}
