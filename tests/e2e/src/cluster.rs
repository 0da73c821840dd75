//! One cluster of a test, and how it is asked.

use std::path::Path;

use serde_json::Value;

use crate::wait::patience;
use crate::{Bootstrap, Ground, Outcome, Provider, Run, Setting};

/// How long kubectl may wait for things to become what they must be.
fn timeout() -> String {
    format!("--timeout={}s", 300 * patience())
}

/// A cluster, which may or may not exist.
#[derive(Debug)]
pub struct Cluster<'a> {
    ground: &'a Ground,
    setting: Setting,
    name: String,
}

impl<'a> Cluster<'a> {
    pub(crate) const fn new(ground: &'a Ground, setting: Setting, name: String) -> Self {
        Self { ground, setting, name }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The ground that it is on.
    #[must_use]
    pub const fn ground(&self) -> &'a Ground {
        self.ground
    }

    /// What it is made of.
    #[must_use]
    pub const fn setting(&self) -> Setting {
        self.setting
    }

    /// Writes its cluster file: with these lines as its `spec`, and its setting where they do not say it.
    pub fn file(&self, spec: &str) -> std::path::PathBuf {
        let name = &self.name;
        let head = format!(
            "apiVersion: bivouac.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: {name}}}\n"
        );
        let setting = self.setting.lines(spec);
        self.ground.write(&format!("{name}.yaml"), format!("{head}spec:\n{setting}{spec}"))
    }

    /// `bivouac up --file FILE`.
    pub fn up(&self, file: &Path) -> Run {
        self.ground.up(["--file"]).args([file])
    }

    /// `bivouac up` of one control plane with all defaults; without a file where that is enough.
    pub fn up_single(&self) -> Run {
        match (self.setting.provider, self.setting.bootstrap) {
            (Provider::Linux, Bootstrap::Services) => self.up_by_name(),
            _ => self.up(&self.file("")),
        }
    }

    /// `bivouac up NAME`: as it was made, if it was.
    pub fn up_by_name(&self) -> Run {
        self.ground.up([&self.name])
    }

    /// `bivouac down NAME`.
    pub fn down(&self) -> Run {
        self.ground.bivouac(["down", &self.name])
    }

    /// `bivouac status --output json NAME`, whatever its exit code.
    ///
    /// # Panics
    /// When that is no JSON.
    #[must_use]
    #[track_caller]
    pub fn status(&self) -> Value {
        self.ground.bivouac(["status", "--output", "json", &self.name]).outcome().json()
    }

    /// The status of a unit of a node; null when there is none.
    ///
    /// # Panics
    /// As [`Cluster::status`].
    #[must_use]
    #[track_caller]
    pub fn unit(&self, node: &str, unit: &str) -> Value {
        let status = self.status();
        let units = status["nodes"][node]["status"]["units"].as_array();
        let found = units.and_then(|units| units.iter().find(|found| found["name"] == unit));
        found.cloned().unwrap_or_default()
    }

    /// The address of a node.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    #[track_caller]
    pub fn address(&self, node: &str) -> String {
        let status = self.status();
        let address = status["nodes"][node]["address"].as_str();
        address.unwrap_or_else(|| panic!("node {node} has no address: {status:#}")).to_owned()
    }

    /// `bivouac exec -c NAME NODE -- COMMAND`.
    pub fn exec<A: AsRef<std::ffi::OsStr>>(
        &self,
        node: &str,
        command: impl IntoIterator<Item = A>,
    ) -> Run {
        self.ground.bivouac(["exec", "--cluster", &self.name, node, "--"]).args(command)
    }

    /// `bivouac logs -c NAME ARGUMENTS`.
    pub fn logs<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Run {
        self.ground.bivouac(["logs", "--cluster", &self.name]).args(arguments)
    }

    /// `bivouac kubectl -c NAME -- ARGUMENTS`.
    pub fn kubectl<A: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Run {
        self.ground.bivouac(["kubectl", "--cluster", &self.name, "--"]).args(arguments)
    }

    /// `bivouac incus -c NAME -- ARGUMENTS`.
    pub fn incus<A: AsRef<std::ffi::OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Run {
        self.ground.bivouac(["incus", "--cluster", &self.name, "--"]).args(arguments)
    }

    /// `kubectl get ARGUMENTS -o json`.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn get<'b>(&self, arguments: impl IntoIterator<Item = &'b str>) -> Value {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let get = || self.kubectl(["get", "-o", "json"]).args(&arguments).outcome();
        let mut outcome = get();
        // An emulated machine that is busy lets kubectl wait for longer than it is ready to.
        for _ in 1..patience() {
            if outcome.code == 0 {
                break;
            }
            outcome = get();
        }
        outcome.expect_code(0).json()
    }

    /// `kubectl apply` of these documents.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn apply(&self, documents: &str) {
        // For the schema to check with, kubectl waits half a minute whatever it is told: an emulated machine needs longer.
        let unchecked = (patience() > 1).then_some("--validate=false");
        let apply = self.kubectl(["apply", "-f", "-"]).args(unchecked);
        let _ = apply.input(documents).success();
    }

    /// `kubectl wait --for WHAT OBJECT`.
    ///
    /// # Panics
    /// When it does not come, with the object as it is.
    #[track_caller]
    pub fn wait(&self, object: &str, what: &str) {
        let waited = self.kubectl(["wait", "--for", what, &timeout(), object]).outcome();
        if waited.code != 0 {
            let described = self.kubectl(["describe", object]).outcome();
            panic!("waited for {what} of {object}: {waited}\n{described}");
        }
    }

    /// Waits until a Deployment has all of its pods.
    ///
    /// # Panics
    /// When that does not come, with the pods as they are.
    #[track_caller]
    pub fn wait_for_rollout(&self, deployment: &str) {
        let waited = self.kubectl(["rollout", "status", &timeout(), deployment]).outcome();
        if waited.code != 0 {
            let described = self.kubectl(["describe", "pods"]).outcome();
            panic!("waited for {deployment}: {waited}\n{described}");
        }
    }

    /// Waits until a pod has ended well, and gives what it printed.
    ///
    /// # Panics
    /// When it does not end, or fails.
    #[track_caller]
    pub fn printed_by(&self, pod: &str) -> Outcome {
        self.wait(&format!("pod/{pod}"), "jsonpath={.status.phase}=Succeeded");
        self.kubectl(["logs", pod]).success()
    }
}
