//! `docker compose`: where it is found, and how somebody uses it who has no bivouac.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{Ground, Run};

/// Where the command is. When absent, the user has it.
const PROGRAM: &str = "BIVOUAC_E2E_COMPOSE";
/// Where `docker` looks for it below the folder of its settings.
const PLUGINS: &str = "cli-plugins";
const KUBECTL: &str = "/usr/local/bin/kubectl";

/// The folder of the settings of `docker`: one in `folder` that has the command of `$BIVOUAC_E2E_COMPOSE`, or else the user's own.
///
/// # Panics
/// When `docker` finds no command there either.
pub(crate) fn settings(folder: &Path) -> PathBuf {
    let settings = match std::env::var_os(PROGRAM) {
        Some(program) => linked(Path::new(&program), folder.join("docker")),
        None => users_own().unwrap_or_else(|| folder.join("docker")),
    };
    let version =
        Run::new("docker").args(["compose", "version"]).env("DOCKER_CONFIG", &settings).outcome();
    assert!(
        version.code == 0,
        "there is no `docker compose`: run `make test`, or name one in ${PROGRAM}: {version}"
    );
    settings
}

fn linked(program: &Path, settings: PathBuf) -> PathBuf {
    assert!(program.is_file(), "${PROGRAM} is {}, and there is no such file", program.display());
    let plugins = settings.join(PLUGINS);
    let link = || -> std::io::Result<()> {
        std::fs::create_dir_all(&plugins)?;
        symlink(program, plugins.join("docker-compose"))
    };
    link().unwrap_or_else(|error| panic!("cannot write {}: {error}", plugins.display()));
    settings
}

fn users_own() -> Option<PathBuf> {
    let path = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    path("DOCKER_CONFIG").or_else(|| Some(path("HOME")?.join(".docker")))
}

/// A folder that somebody was given who has `docker` and nothing else.
#[derive(Debug)]
pub struct Project<'a> {
    ground: &'a Ground,
    folder: PathBuf,
}

impl<'a> Project<'a> {
    /// The folder of this name on a ground, which need not exist yet.
    #[must_use]
    pub fn new(ground: &'a Ground, name: &str) -> Self {
        Self { ground, folder: ground.path(name) }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// `docker compose` with these arguments, in the folder.
    pub fn compose<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        let settings = self.ground.docker_settings();
        let docker = self.command(docker()).env("DOCKER_HOST", self.ground.engine().host());
        docker.env("DOCKER_CONFIG", settings).args(["compose"]).args(arguments)
    }

    /// The `kubectl` that this node has, by the kubeconfig of the folder, in it.
    ///
    /// # Panics
    /// When the node does not give it.
    pub fn kubectl<A: AsRef<OsStr>>(
        &self,
        node: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run {
        let kubectl = self.ground.path("kubectl");
        if !kubectl.exists() {
            let from = format!("{node}:{KUBECTL}");
            let _ = self.compose(["cp", "--follow-link", &from]).args([&kubectl]).success();
        }
        self.command(&kubectl).args(["--kubeconfig", "kubeconfig"]).args(arguments)
    }

    /// A program that knows of nothing else: no `$PATH` either, where bivouac may be.
    fn command(&self, program: &Path) -> Run {
        let run = Run::new(program).without_environment().in_folder(&self.folder);
        run.env("HOME", self.ground.folder())
    }
}

/// The `docker` of `$PATH`.
fn docker() -> &'static Path {
    static DOCKER: OnceLock<PathBuf> = OnceLock::new();
    DOCKER.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|folder| folder.join("docker"));
        found.into_iter().find(|path| path.is_file()).expect("`docker` is in $PATH")
    })
}
