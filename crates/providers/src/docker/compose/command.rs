//! The `docker compose` command: found, and run.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};
use tokio::process::Command;

use super::document::project_name;
use super::folder::Folder;
use super::problem::{failed, timed_out, unfit};
use crate::docker::EngineEnvironment;
use crate::docker::engine::Engine;
use crate::docker::problem::{FULL, LOST, is_disk_full};

/// Where packages put commands of `docker`.
const PLUGINS: [&str; 4] = [
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// What the command is called there, and in `$PATH` where it stands alone.
const PROGRAM: &str = "docker-compose";

/// How long it may take to say its version.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take for anything else. The engine's own patience is shorter.
const PATIENCE: Duration = Duration::from_secs(600);

/// The last lines of its errors that are told.
const LINES: usize = 8;

/// What the command, and the library that it shares with `docker`, say of an engine that does not answer or ends meanwhile.
const LOST_TEXTS: [&str; 4] = [
    "Cannot connect to the Docker daemon",
    "error during connect",
    "connection reset by peer",
    "unexpected EOF",
];

/// The first version that knows `cgroup` of a service, which every node needs.
const OLDEST: (u32, u32) = (2, 15);

/// What it would read of the environment and must not: what is done depends on the cluster alone.
const FOREIGN: [&str; 14] = [
    "COMPOSE_ANSI",
    "COMPOSE_COMPATIBILITY",
    "COMPOSE_ENV_FILES",
    "COMPOSE_EXPERIMENTAL",
    "COMPOSE_FILE",
    "COMPOSE_IGNORE_ORPHANS",
    "COMPOSE_PARALLEL_LIMIT",
    "COMPOSE_PROFILES",
    "COMPOSE_PROGRESS",
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_REMOVE_ORPHANS",
    "DOCKER_CONTEXT",
    "DOCKER_DEFAULT_PLATFORM",
    "DOCKER_TLS_VERIFY",
];

/// A command that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compose {
    program: Utf8PathBuf,
    /// What it calls itself: `2.40.3`.
    pub(super) version: String,
}

impl Compose {
    /// Finds the command where `docker` finds it, or alone in `$PATH`.
    ///
    /// # Errors
    /// When there is none, or only one that is too old.
    pub(super) async fn find(environment: &EngineEnvironment) -> Result<Self, Problem> {
        let own = environment.config.as_ref().map(|config| config.join("cli-plugins"));
        let folders = own.into_iter().chain(PLUGINS.map(Utf8PathBuf::from));
        let installed = folders.map(|folder| folder.join(PROGRAM)).filter(|path| path.exists());
        let mut old = None;
        for program in installed.chain([PROGRAM.into()]) {
            let Some(version) = version(&program).await else { continue };
            if is_new_enough(&version) {
                return Ok(Self { program, version });
            }
            old.get_or_insert((program, version));
        }
        Err(match old {
            Some((program, version)) => {
                let (major, minor) = OLDEST;
                let message = format!(
                    "{program} is version {version}, and {major}.{minor} or newer is needed"
                );
                unfit("too_old", message)
                    .help(format!("install Docker Compose {major}.{minor} or newer, such as the package `docker-compose-plugin` of Docker, or use provider `docker`, which does without it"))
            }
            None => unfit("no_command", "there is no `docker compose` command")
                .help("install the Docker Compose plugin, or use provider `docker`, which does without it"),
        })
    }

    /// Runs a command of the project in this folder, such as `up`.
    ///
    /// # Errors
    /// When it fails; the causes have what it said.
    pub(super) async fn run(
        &self,
        call: &Call<'_>,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        message: &str,
    ) -> Result<(), Problem> {
        let mut command = self.command(call);
        command.args(arguments);
        let argv = argv(&command);
        let run = tokio::time::timeout(PATIENCE, command.output()).await;
        let output = run
            .map_err(|_| {
                let message =
                    format!("{message}: `{argv}` did not end within {} s", PATIENCE.as_secs());
                timed_out("timeout", message)
                    .help("look at the engine's own log, then run the command again")
            })?
            .map_err(|error| {
                failed("command", format!("`{argv}` cannot be run")).because(&error)
            })?;
        if output.status.success() {
            return Ok(());
        }
        let said = last_lines(&String::from_utf8_lossy(&output.stderr));
        let mut problem = refused(&said, message, &call.folder.file());
        problem.causes = vec![format!("`{argv}` ended with {}", output.status), said];
        Err(problem)
    }

    /// The one place where the command is built.
    fn command(&self, call: &Call<'_>) -> Command {
        let mut command = Command::new(&self.program);
        for name in FOREIGN {
            command.env_remove(name);
        }
        if let Some(config) = &call.environment.config {
            command.env("DOCKER_CONFIG", config);
        }
        command
            // The engine that the checks were made on.
            .env("DOCKER_HOST", call.engine.endpoint.to_string())
            .env("LC_ALL", "C")
            // Means plain progress, too, for which versions before 2.19 have no option of its own.
            .args(["--ansi", "never"])
            .args(["--project-name", &project_name(call.cluster)])
            .args(["--project-directory", call.folder.path.as_str()])
            .args(["--file", call.folder.file().as_str()])
            // Or a file `.env` would be read.
            .args(["--env-file", "/dev/null"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

/// What the command is run for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) engine: &'a Engine,
    pub(super) environment: &'a EngineEnvironment,
    pub(super) cluster: &'a bivouac_spec::ClusterName,
    pub(super) folder: &'a Folder,
}

async fn version(program: &Utf8Path) -> Option<String> {
    let mut command = Command::new(program);
    command.args(["version", "--short"]).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(FIRST_PATIENCE, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// One that was built without a version calls itself `dev`: version 1 was never built so.
fn is_new_enough(version: &str) -> bool {
    let mut parts = version.split(['.', '-', '+']).map(str::parse::<u32>);
    let Some(Ok(major)) = parts.next() else { return true };
    let minor = parts.next().and_then(Result::ok).unwrap_or_default();
    (major, minor) >= OLDEST
}

/// What the end of a command means by what it said. Trouble of the engine is told as provider `docker` tells it.
fn refused(said: &str, message: &str, file: &Utf8Path) -> Problem {
    let is_lost = LOST_TEXTS.iter().any(|text| said.contains(text));
    match (is_disk_full(said), is_lost) {
        (true, _) => failed("disk_full", message).help(FULL),
        (_, true) => failed("connection", message).help(LOST),
        _ => failed("command", message).help(format!(
            "mend what it says, or look at the project with `docker compose --file {file} config`, then run the command again"
        )),
    }
}

fn argv(command: &Command) -> String {
    let command = command.as_std();
    let words = [command.get_program()].into_iter().chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        for new in ["2.15.0", "2.40.3", "2.40.3-desktop.1", "2.20+ds1", "5.1.0", "dev"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["1.29.2", "2.0.0-rc.1", "2.14.2", "2"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }

    #[test]
    fn trouble_of_the_engine_is_told_as_such() {
        let code = |said| {
            let problem = refused(said, "node a cannot be started", "/p/x.yaml".into());
            assert!(problem.help.is_some() && problem.message.contains("node a"));
            problem.code
        };
        assert_eq!(code("mkdir /x: no space left on device"), "provider.compose.disk_full");
        for lost in [
            "Cannot connect to the Docker daemon at unix:///x. Is the docker daemon running?",
            "error during connect: Post \"http://%2Fx/v1.41/containers/create\": EOF",
        ] {
            assert_eq!(code(lost), "provider.compose.connection");
        }
        assert_eq!(code("services.a.x must be a string"), "provider.compose.command");
    }

    #[test]
    fn only_the_end_of_what_is_said_is_told() {
        let text: String = (0..20).map(|line| format!("{line}\n")).collect();
        assert_eq!(last_lines(&text).lines().next(), Some("12"));
        assert_eq!(last_lines("one\n"), "one");
    }

    #[tokio::test]
    async fn the_user_s_own_plugin_comes_first_unless_it_is_old() {
        let dir = tempfile::tempdir().unwrap();
        let config = Utf8PathBuf::from_path_buf(dir.path().to_owned()).unwrap();
        let program = config.join("cli-plugins").join(PROGRAM);
        std::fs::create_dir(program.parent().unwrap()).unwrap();
        let install = |version: &str| {
            // By a process of its own: what this one has open for writing a child of another test has open, too, until it executes, and
            // meanwhile the program cannot be started.
            let script = "printf '#!/bin/sh\\necho %s\\n' \"$1\" > \"$0.new\"; chmod 755 \"$0.new\"; mv \"$0.new\" \"$0\"";
            let mut writer = std::process::Command::new("sh");
            let status = writer.args(["-ec", script, program.as_str(), version]).status();
            assert!(status.unwrap().success());
        };
        let environment =
            EngineEnvironment { config: Some(config.clone()), ..EngineEnvironment::default() };
        install("v2.40.3");
        let found = Compose::find(&environment).await.unwrap();
        assert_eq!(found, Compose { program: program.clone(), version: "2.40.3".to_owned() });
        for old in ["1.29.2", "2.14.0"] {
            install(old);
            match Compose::find(&environment).await {
                Ok(other) => assert_ne!(other.program, program),
                Err(problem) => {
                    assert_eq!(problem.code, "provider.compose.too_old");
                    assert!(problem.message.contains(old), "{problem}");
                    assert!(problem.help.unwrap().contains("2.15"));
                }
            }
        }
    }
}
