//! What runs containers on every node: containerd, and the images that it finds without pulling.

use bivouac_spec::node::{Check, File, Probe, Run, Service, Task, paths};

use super::command::{Command, after};
use super::layout::Layout;
use super::places::{self, CNI_CONFIG, CONTAINERD_CONFIG, CONTAINERD_SOCKET};
use super::tuning;
use super::versions::{CNI_PLUGINS, PAUSE, RUNC};

pub(super) const CONTAINERD: &str = "containerd";
/// A task: the images of the node image are known to containerd.
pub(super) const IMAGES: &str = "images";
/// A task: the images that were loaded on this host are known to containerd.
const SHARED_IMAGES: &str = "shared-images";

/// containerd's configuration.
pub(super) fn file(layout: &Layout<'_>) -> File {
    File::public(CONTAINERD_CONFIG, config(layout))
}

/// containerd.
pub(super) fn service(layout: &Layout<'_>) -> Service {
    let ready = Probe::new(Check::Socket(CONTAINERD_SOCKET.into())).every(tuning::PROBE);
    let command = Command::new(CONTAINERD).flag("config", CONTAINERD_CONFIG);
    let mut containerd = command.service(layout, CONTAINERD, ready);
    containerd.after = super::network::before_containerd(layout);
    containerd.oom_score = Some(-999);
    containerd.environment = tuning::frugal();
    containerd.environment.extend(super::registries::environment(layout));
    containerd
}

/// The tasks that make images known.
pub(super) fn tasks(layout: &Layout<'_>) -> Vec<Task> {
    let register = |name: &str, directory: &str, after: Vec<String>| Task {
        name: name.to_owned(),
        after,
        run: Run::Images { directory: directory.into(), containerd: CONTAINERD_SOCKET.into() },
        watch: Vec::new(),
        late: false,
    };
    let mut tasks = vec![register(IMAGES, paths::IMAGES, after([CONTAINERD]))];
    if layout.facts.shares_images {
        tasks.push(register(SHARED_IMAGES, paths::SHARED_IMAGES, after([IMAGES])));
    }
    tasks
}

fn config(layout: &Layout<'_>) -> String {
    let lowers_oom_scores = layout.facts.raises_limits;
    let oom_score = if lowers_oom_scores { -999 } else { 0 };
    let restrict_oom_score_adj = !lowers_oom_scores;
    format!(
        r#"version = 4
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = {oom_score}
disabled_plugins = [
  "io.containerd.monitor.container.v1.restart",
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.native",
]

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  pinned_images = {{ sandbox = "{PAUSE}" }}
  registry = {{ config_path = "{registries}" }}

[plugins."io.containerd.cri.v1.runtime"]
  # runc cannot lower OOM scores without CAP_SYS_RESOURCE, and dies of it.
  restrict_oom_score_adj = {restrict_oom_score_adj}

[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{CNI_PLUGINS}"]
  conf_dir = "{CNI_CONFIG}"
  use_internal_loopback = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  options = {{ BinaryName = "{RUNC}", SystemdCgroup = false }}

[plugins."io.containerd.server.v1.grpc"]
  address = "{CONTAINERD_SOCKET}"
"#,
        registries = places::REGISTRIES,
    )
}
