//! The container engine that the `docker` and `compose` settings run over: that of `$DOCKER_HOST`, or the machine's own where one runs, or else a
//! `dockerd` of the tests', which is started by the first case that needs it and stopped when the run ends.
//!
//! ```text
//! shared() --no engine--> Dockerd::start --restart: stop, start--> stop() --> nothing of it is left
//! ```

mod dockerd;
mod firewall;
mod snapshot;

use std::path::Path;
use std::sync::OnceLock;

use dockerd::Dockerd;

use crate::Run;

static SHARED: OnceLock<Engine> = OnceLock::new();
/// Where the machine's own engine listens.
const SOCKET: &str = "/var/run/docker.sock";

/// An engine.
#[derive(Debug)]
pub struct Engine {
    host: String,
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
                return Self { host, own: None };
            }
            if dockerd::answers(Path::new(SOCKET)) {
                return Self { host: format!("unix://{SOCKET}"), own: None };
            }
            let own = Dockerd::start();
            Self { host: own.host(), own: Some(own) }
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
        let docker = Run::new("docker").env("DOCKER_HOST", &self.host);
        docker.without_env("DOCKER_CONTEXT").args(arguments)
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
