//! The same cluster by `kubeadm init` and `kubeadm join`: the control plane as static pods, kube-proxy and CoreDNS as kubeadm's addons.
//!
//! ```text
//! control plane: kubeadm-init* > kubelet > kube-apiserver* (a static pod answers) > nodes* > kubeadm-finish* > static-pods-renew*
//! worker:        announced* (its Node object and kubeadm's configuration are there) > kubeadm-join* > kubelet > kubeadm-finish*
//! ```
//!
//! kubeadm would have an init system start the kubelet in the middle of its work. Here the agent does, so kubeadm runs twice, each time
//! without the phases of the other. The first run leaves out what needs the API, and the manifests of those who only wait for it.
//!
//! Keys come from bivouac's authorities, and kubeadm takes what it finds. A joining node has a certificate for that (discovery by file):
//! there is no token that could be guessed or shared, and the authority is known beforehand. Only what identifies the kubelet is
//! made in the node, and stays there.

mod documents;
mod held;

use bivouac_spec::node::{Condition, File, FileKind, HttpRequest, Service, Task};

use super::command::{Command, after, ask, run};
use super::conditions::condition;
use super::control_plane::{API, API_SERVER, healthy};
use super::layout::{Layout, Member};
use super::manifests::NODES;
use super::node::{ANNOUNCED, KUBELET};
use super::places::{
    self, KUBEADM_CONFIG, KUBEADM_DONE, KUBELET_BOOTSTRAP, KUBELET_CONFIG, KUBELET_IDENTITY,
};
use super::probes::{self, announced, local, open_to_all};
use super::runtime::{CONTAINERD, IMAGES};
use super::{tuning, versions};
pub(super) use held::{RENEW, watched};

/// A task of a control plane: what the kubelet needs to start is there.
const INIT: &str = "kubeadm-init";
/// A task of a worker: the same.
const JOIN: &str = "kubeadm-join";
/// A task: the rest, when the kubelet runs and the API answers.
pub(super) const FINISH: &str = "kubeadm-finish";

/// Phases of `kubeadm init` that come when the API answers. The controller manager and the scheduler are among them: before, they would
/// take processor time from the API server, to wait for it with pauses that double.
const LATER: &str = "control-plane/controller-manager,control-plane/scheduler,wait-control-plane,upload-config,mark-control-plane,\
                     kubelet-finalize,addon";
/// Phases that come before.
const EARLIER: &str =
    "certs,kubeconfig,etcd,control-plane/apiserver,kubelet-start,wait-control-plane";
/// Phases for which there is nothing to do: the agent has looked and waits better, and nobody uses tokens.
const NEVER: &str = "preflight,upload-certs,bootstrap-token,show-join-command";

/// What was done stays done while the configuration is the same, so that a restart does not undo what a person changed since. What is begun
/// is not done: whoever goes back before the end finds no mark of the configuration that was.
const INIT_SCRIPT: &str = r#"cmp -s "$2" "$3" && exit
rm -f "$3"
exec "$1" init --config="$2" --skip-phases="$4""#;
const INIT_FINISH_SCRIPT: &str = r#"set -eu
if cmp -s "$2" "$3"; then exit; fi
"$1" init --config="$2" --skip-phases="$4"
cp "$2" "$3.new"
mv "$3.new" "$3""#;
/// A kubelet that has its identity has joined.
const JOIN_SCRIPT: &str = r#"[ -e "$3" ] || exec "$1" join --config="$2" --skip-phases="$4""#;
/// kubeadm removes the kubelet's first identity as the last thing that it does.
const JOIN_FINISH_SCRIPT: &str =
    r#"[ ! -e "$3" ] || exec "$1" join --config="$2" --skip-phases="$4""#;
/// As in the drop-in for systemd that comes with kubeadm.
const KUBELET_SCRIPT: &str = r#". "$1"
shift
exec "$@" $KUBELET_KUBEADM_ARGS"#;

/// Files without keys.
pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    let mut files = documents::files(layout, member);
    // It is where kubeadm wants it, and outlives the node's root: who has lost it cannot join again while the cluster remembers it.
    let kind = FileKind::Link(KUBELET_IDENTITY.into());
    let path = places::kubeconfig(KUBELET).into();
    files.push(File { path, mode: 0o777, owner: (0, 0), kind });
    files
}

/// The kubelet. Everything else is a pod.
pub(super) fn services(layout: &Layout<'_>, member: &Member) -> Vec<Service> {
    let command = Command::new(KUBELET)
        .flag("bootstrap-kubeconfig", KUBELET_BOOTSTRAP)
        .flag("kubeconfig", places::kubeconfig(KUBELET))
        .flag("config", KUBELET_CONFIG);
    let mut kubelet = command
        .through(&["/bin/sh", "-ec", KUBELET_SCRIPT, KUBELET, places::KUBELET_FLAGS])
        .service(layout, KUBELET, local(10248, "/healthz"));
    let first = if member.is_control_plane() { INIT } else { JOIN };
    kubelet.after = after([CONTAINERD, IMAGES, first]);
    kubelet.oom_score = Some(-999);
    kubelet.environment = tuning::frugal();
    vec![kubelet]
}

/// kubeadm's work, and what it waits for.
pub(super) fn tasks(member: &Member) -> Vec<Task> {
    if member.is_control_plane() { init(member) } else { join(member) }
}

/// The unit after which the node's own Node object is there.
pub(super) fn announced_by(member: &Member) -> Vec<String> {
    after([if member.is_control_plane() { NODES } else { ANNOUNCED }])
}

fn init(member: &Member) -> Vec<Task> {
    let kubeadm = |name, after, script, skipped: &str| {
        kubeadm(name, after, script, KUBEADM_DONE, &format!("{NEVER},{skipped}"))
    };
    let answers = probes::administrators(member);
    vec![
        kubeadm(INIT, Vec::new(), INIT_SCRIPT, LATER),
        ask(API_SERVER, after([KUBELET]), vec![("the API server", answers)]),
        ask(API, after([API_SERVER]), vec![("the API server", open_to_all(member.api))]),
        kubeadm(FINISH, after([NODES, API]), INIT_FINISH_SCRIPT, EARLIER),
        held::task(),
    ]
}

fn join(member: &Member) -> Vec<Task> {
    let published = |name: &str| {
        let path = format!("/api/v1/namespaces/kube-system/configmaps/{name}");
        HttpRequest::get(format!("https://{}{path}", member.api)).tls(probes::joiner())
    };
    let questions = vec![
        ("this node's Node object", announced(member, probes::joiner())),
        ("kubeadm's configuration", published("kubeadm-config")),
        ("the kubelets' configuration", published("kubelet-config")),
    ];
    let kubelet = places::kubeconfig(KUBELET);
    vec![
        ask(API, Vec::new(), vec![("the API server", open_to_all(member.api))]),
        ask(ANNOUNCED, after([API]), questions),
        kubeadm(
            JOIN,
            after([ANNOUNCED]),
            JOIN_SCRIPT,
            &kubelet,
            "preflight,kubelet-wait-bootstrap",
        ),
        kubeadm(
            FINISH,
            after([KUBELET]),
            JOIN_FINISH_SCRIPT,
            KUBELET_BOOTSTRAP,
            "preflight,kubelet-start",
        ),
    ]
}

fn kubeadm(name: &str, after: Vec<String>, script: &str, mark: &str, skipped: &str) -> Task {
    let program = format!("{}/kubeadm", versions::PROGRAMS);
    let command = ["/bin/sh", "-c", script, name, &program, KUBEADM_CONFIG, mark, skipped];
    run(name, after, &command)
}

/// What the probes of services say where the control plane is services.
pub(super) fn conditions(member: &Member) -> Vec<Condition> {
    if !member.is_control_plane() {
        return Vec::new();
    }
    vec![
        condition("the controller manager is healthy", &[RENEW], healthy(10257, "/healthz")),
        condition("the scheduler is healthy", &[RENEW], healthy(10259, "/livez")),
    ]
}
