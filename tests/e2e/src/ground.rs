//! A ground of a test's own on the real machine, which is as it was when the test ends, however it ends.

use std::cell::RefCell;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::time::Duration;

use rustix::fs::statfs;
use rustix::process::geteuid;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::binary;
use crate::compose;
use crate::wait::patience;
use crate::{Cluster, Engine, Provider, Run, Setting, say, without_ways};

/// Where nodes can be kept: on a disk, since an overlay cannot lie on an overlay, and tests must not fill memory.
const DISK: &str = "/var/tmp";
const STORE: &str = "/var/lib/bivouac/store";
/// The folder for temporary files in that of a test: nobody else puts any there.
const TEMPORARY: &str = "tmp";
/// What nodes carry, each with a node image of its own.
const STACKS: [&str; 2] = ["kubernetes", "incus"];
/// Magic numbers of statfs(2).
const NO_DISKS: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x794c_7630, "overlay")];
/// A machine that never had the node image builds it first.
const IMAGE_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// A setting, and state folder, kubeconfig file and clusters of one test. Its clusters go when it does.
#[derive(Debug)]
pub struct Ground {
    setting: Setting,
    folder: Option<TempDir>,
    /// Of the `docker` command, where its `compose` is.
    settings: Option<PathBuf>,
    clusters: RefCell<Vec<String>>,
    /// What leads commands to the engine, where that is not its socket in `$DOCKER_HOST`.
    way: RefCell<Option<Vec<(&'static str, OsString)>>>,
}

impl Ground {
    /// A new, empty ground.
    ///
    /// # Panics
    /// When the tests do not run as root, or there is no disk to keep nodes on, or no engine or no `docker compose`
    /// for a setting that needs one.
    #[must_use]
    pub fn new(setting: Setting) -> Self {
        assert!(geteuid().is_root(), "the end-to-end tests make real clusters: run them as root");
        let disk = disk();
        let folder = tempfile::Builder::new().prefix("bivouac-e2e-").tempdir_in(&disk);
        let folder = folder
            .unwrap_or_else(|error| panic!("cannot make a folder in {}: {error}", disk.display()));
        let settings =
            (setting.provider == Provider::Compose).then(|| compose::settings(folder.path()));
        let temporary = folder.path().join(TEMPORARY);
        std::fs::create_dir(&temporary)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", temporary.display()));
        let (clusters, way) = (RefCell::default(), RefCell::default());
        Self { setting, folder: Some(folder), settings, clusters, way }
    }

    /// What the case runs over.
    #[must_use]
    pub const fn setting(&self) -> Setting {
        self.setting
    }

    /// The engine whose containers nodes are.
    ///
    /// # Panics
    /// When they are none.
    #[must_use]
    pub fn engine(&self) -> &'static Engine {
        assert_ne!(self.setting.provider, Provider::Linux, "this ground has no engine");
        Engine::shared()
    }

    /// The folder of the settings of `docker`, with which it has `compose`.
    ///
    /// # Panics
    /// When the case does not run over that.
    #[must_use]
    pub fn docker_settings(&self) -> &Path {
        self.settings.as_deref().expect("the case runs over `compose`")
    }

    /// The folder of the test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().expect("it is taken only by the end").path()
    }

    /// A path in the folder of the test.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// The state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Where its commands put temporary files.
    #[must_use]
    pub fn temporary(&self) -> PathBuf {
        self.path(TEMPORARY)
    }

    /// The kubeconfig file. Not there at first.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }

    /// Writes a file into the folder of the test.
    ///
    /// # Panics
    /// When it cannot.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content)
            .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        path
    }

    /// bivouac with these arguments, on this ground.
    pub fn bivouac<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run {
        let store = std::env::var_os("BIVOUAC_STORE").unwrap_or_else(|| STORE.into());
        let run = match self.setting.provider {
            Provider::Linux => without_ways(Run::new(binary())),
            Provider::Docker => self.engine().lead(Run::new(binary())),
            Provider::Compose => {
                let run = self.engine().lead(Run::new(binary()));
                run.env("DOCKER_CONFIG", self.docker_settings())
            }
        };
        let way = self.way.borrow();
        let run = match &*way {
            None => run,
            Some(way) => {
                way.iter().fold(without_ways(run), |run, (name, value)| run.env(name, value))
            }
        };
        run.args(arguments)
            .env("BIVOUAC_STATE_DIR", self.state())
            .env("BIVOUAC_STORE", store)
            .env("BIVOUAC_IMAGE_CACHE", self.path("image-cache"))
            .env("KUBECONFIG", self.kubeconfig())
            .env("HOME", self.folder())
            .env("TMPDIR", self.temporary())
            .without_env("BIVOUAC_PROGRESS")
            .without_env("SUDO_UID")
            .without_env("SUDO_GID")
    }

    /// Has these environment variables alone lead its commands to the engine from now on.
    pub fn find_engine_by<V: Into<OsString>>(
        &self,
        variables: impl IntoIterator<Item = (&'static str, V)>,
    ) {
        let variables = variables.into_iter().map(|(name, value)| (name, value.into()));
        *self.way.borrow_mut() = Some(variables.collect());
    }

    /// `bivouac up` with these arguments.
    pub fn up<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.usable_by("up", arguments)
    }

    /// A verb that ends when nodes are usable, such as `bivouac start`, with these arguments.
    pub fn usable_by<A: AsRef<std::ffi::OsStr>>(
        &self,
        verb: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run {
        let timeout = (600 * patience()).to_string();
        self.bivouac([verb, "--timeout", &timeout]).args(arguments)
    }

    /// Builds the node images where they are not there yet, so that no test waits for one in the middle of something.
    fn ensure_images(&self) {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let list = self.bivouac(["image", "list"]).success().stdout();
            for stack in STACKS {
                let is_there = |line: &str| line.contains(stack) && line.contains("this bivouac");
                if !list.lines().any(is_there) {
                    say(&format!(
                        "building the node image of {stack}, once; this can take 15 minutes"
                    ));
                }
                let build = self.bivouac(["image", "build", "--stack", stack]);
                let _ = build.within(IMAGE_DEADLINE).success();
            }
        });
    }

    /// A cluster of this setting called `e2e-NAME`, which need not exist yet and is removed in the end. What an interrupted run of
    /// the tests left of it goes now.
    ///
    /// # Panics
    /// When that cannot be removed.
    pub fn cluster(&self, name: &str) -> Cluster<'_> {
        self.cluster_of(self.setting, name)
    }

    /// The same, of another setting.
    ///
    /// # Panics
    /// As [`Ground::cluster`].
    pub fn cluster_of(&self, setting: Setting, name: &str) -> Cluster<'_> {
        self.ensure_images();
        let name = format!("e2e-{name}");
        let _ = self.bivouac(["down", &name]).success();
        self.clusters.borrow_mut().push(name.clone());
        Cluster::new(self, setting, name)
    }

    fn keep(&mut self) -> PathBuf {
        self.folder.take().map(TempDir::keep).unwrap_or_default()
    }

    /// How the clusters are, for whoever reads a failed test.
    fn describe(&self) -> String {
        let mut text = String::new();
        for name in self.clusters.borrow().iter() {
            let status = self.bivouac(["status", "--services", name]).outcome();
            text.push_str(&format!("\n{}{}", status.stdout(), status.stderr));
            let report = self.bivouac(["status", "--output", "json", name]).outcome();
            let report: Value = serde_json::from_slice(&report.output).unwrap_or_default();
            for node in report["nodes"].as_object().into_iter().flat_map(|nodes| nodes.keys()) {
                let log = self.bivouac(["logs", "-c", name, node, "--tail", "20"]).outcome();
                text.push_str(&format!("\nthe agent of {node}:\n{}{}", log.stdout(), log.stderr));
            }
        }
        text
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            // A command that hangs must not take the rest of the clean-up with it.
            let told = catch_unwind(AssertUnwindSafe(|| self.describe()));
            say(&told.unwrap_or_else(|_| "the clusters cannot be described".to_owned()));
            if std::env::var_os("BIVOUAC_E2E_KEEP").is_some() {
                say(&format!("kept for a look: {}", self.keep().display()));
                return;
            }
        }
        for name in self.clusters.take() {
            let removed =
                catch_unwind(AssertUnwindSafe(|| self.bivouac(["down", &name]).success()));
            if removed.is_err() {
                // Something of a node may still be mounted below it.
                let message = format!("{} stays, since `down` failed", self.keep().display());
                assert!(failing, "{message}");
                say(&message);
                return;
            }
        }
    }
}

/// A folder on a disk: `$BIVOUAC_E2E_DIR`, or one that most machines have there.
///
/// # Panics
/// When it is not on a disk.
pub(crate) fn disk() -> PathBuf {
    let disk =
        std::env::var_os("BIVOUAC_E2E_DIR").map_or_else(|| PathBuf::from(DISK), PathBuf::from);
    let place = disk.display();
    let found = statfs(&disk).unwrap_or_else(|error| panic!("cannot look at {place}: {error}"));
    for (magic, name) in NO_DISKS {
        let is = u64::try_from(found.f_type).is_ok_and(|found| found == magic);
        assert!(!is, "{place} is on {name}: set $BIVOUAC_E2E_DIR to a folder on a disk");
    }
    disk
}
