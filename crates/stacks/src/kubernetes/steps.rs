//! What is done in nodes that run when the cluster changes. Who joins needs nothing of this: its Node object is applied with those of all
//! others, and it makes itself a member of [`super::etcd`].

use std::time::Duration;

use bivouac_spec::cluster::{Bootstrap, Cluster, Role, Taint, TaintEffect};
use bivouac_spec::facts::Member as Leaving;
use bivouac_spec::quantity::Span;
use bivouac_spec::{NodeName, node::config::Environment};

use super::layout::{Layout, all_taints};
use super::{etcd, places};
use crate::stack::{Change, Drain, Step};

/// How long anything else may take: an answer of the API, or of most members of etcd.
const QUICK: Duration = Duration::from_secs(30);

/// Pods leave a node as their budgets permit. When its kubelet does not answer, nobody is there to end them: then they are forgotten, so
/// that others take their places. What keeps a pod is told: kubectl names the pod, and not its budget.
const DRAIN_SCRIPT: &str = r#"set -eu
api=$1 node=$2 patience=$3
found=$(kubectl --server="$api" get node "$node" --ignore-not-found --output=name)
[ -n "$found" ] || exit 0
kubectl --server="$api" cordon "$node"
set -- drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout="$patience"
ready=$(kubectl --server="$api" get node "$node" --output=jsonpath='{.status.conditions[?(@.type=="Ready")].status}')
if [ "$ready" != True ] && ! kubectl --server="$api" get --raw "/api/v1/nodes/$node/proxy/healthz" --request-timeout=5s > /dev/null 2>&1; then
  exec kubectl --server="$api" "$@" --force --disable-eviction --grace-period=0
fi
kubectl --server="$api" "$@" && exit
kubectl --server="$api" get poddisruptionbudgets --all-namespaces --output=jsonpath='{range .items[?(@.status.disruptionsAllowed==0)]}PodDisruptionBudget {.metadata.namespace}/{.metadata.name} allows no disruption: {.status.currentHealthy} pods are healthy, {.status.desiredHealthy} must be{"\n"}{end}' >&2
exit 1"#;

/// Members are known by where others find them: one that has never run has no name. For five seconds after members have found each
/// other etcd lets nobody go (`etcdserver: unhealthy cluster`).
const MEMBER_SCRIPT: &str = r#"set -eu
peer=$1
members=$(etcdctl member list)
while IFS=', ' read -r id status name url rest; do
  [ "$url" = "$peer" ] || continue
  until said=$(etcdctl member remove "$id" 2>&1); do
    case $said in
      *"unhealthy cluster"*) sleep 0.5 ;;
      *) echo "$said" >&2; exit 1 ;;
    esac
  done
done <<END
$members
END"#;

/// Taints are known by key and effect. One that is gone already is what was asked for.
const TAINT_SCRIPT: &str = r#"set -eu
api=$1 node=$2
shift 2
for taint; do
  case $taint in
    *-) said=$(kubectl --server="$api" taint node "$node" "$taint" 2>&1) || case $said in
          *" not found"*) ;;
          *) echo "$said" >&2; exit 1 ;;
        esac ;;
    *) kubectl --server="$api" taint node "$node" "$taint" --overwrite ;;
  esac
done"#;

/// The steps of a change.
pub(super) fn steps(layout: &Layout<'_>, change: &Change<'_>, drain: Drain) -> Vec<Step> {
    match change {
        Change::Joins(_) => Vec::new(),
        Change::Leaves(member) if member.spec.role == Role::Balancer => Vec::new(),
        Change::Leaves(member) => leaves(layout, member, drain),
        Change::Remakes(node) => super::remake::before(layout, node, drain),
        Change::Remade(nodes) => super::remake::after(layout, nodes),
        Change::Changed(before) => changed(layout, before)
            .into_iter()
            .chain(super::addons::steps(layout, before))
            .collect(),
    }
}

/// The pods of a node leave it, and no others come.
pub(super) fn drain(layout: &Layout<'_>, name: &NodeName, within: Span) -> Step {
    let (node, patience) = (name.to_string(), within.to_string());
    let script = [DRAIN_SCRIPT, &api(layout), &node, &patience];
    Step {
        patience: within.duration() + QUICK,
        help: "move or delete the pods that are named above, or let their budgets allow it, and run the same command again; \
               `bivouac node remove --drain-timeout` gives them longer"
            .to_owned(),
        ..step(layout, name, format!("drain node {name}"), &script)
    }
}

fn leaves(layout: &Layout<'_>, member: &Leaving, drained: Drain) -> Vec<Step> {
    let (name, api) = (&member.spec.name, api(layout));
    let node = name.to_string();
    let mut steps = match drained {
        Drain::Within(span) => vec![drain(layout, name, span)],
        Drain::No => Vec::new(),
    };
    if member.spec.role == Role::ControlPlane && layout.settings.bootstrap == Bootstrap::Services {
        let peer = etcd::peer_url(member.addresses.primary());
        let title = format!("take {name} out of etcd");
        steps.push(Step {
            environment: set(etcd::beside(layout, name)),
            help: "most of the members of etcd must run: bring the other control planes back first"
                .to_owned(),
            ..step(layout, name, title, &[MEMBER_SCRIPT, &peer])
        });
    }
    let title = format!("remove Node {name}");
    let script = r#"exec kubectl --server="$1" delete node "$2" --ignore-not-found"#;
    steps.push(step(layout, name, title, &[script, &api, &node]));
    steps
}

fn changed(layout: &Layout<'_>, before: &Cluster) -> Vec<Step> {
    let before = all_taints(before);
    let steps = layout.members.iter().filter_map(|member| {
        let (name, api) = (member.name(), api(layout));
        let (_, old) = before.iter().find(|(node, _)| node == name)?;
        let changes = taint_changes(old, &member.taints);
        if changes.is_empty() {
            return None;
        }
        let mut arguments = vec![TAINT_SCRIPT, &api, name.as_str()];
        arguments.extend(changes.iter().map(String::as_str));
        let mut step = step(layout, name, format!("change the taints of node {name}"), &arguments);
        step.nodes = everywhere(layout);
        Some(step)
    });
    steps.collect()
}

/// As kubectl takes them: `key=value:Effect`, and `key:Effect-` for what goes.
fn taint_changes(old: &[Taint], new: &[Taint]) -> Vec<String> {
    let same = |one: &Taint, other: &Taint| one.key == other.key && one.effect == other.effect;
    let gone = old.iter().filter(|old| !new.iter().any(|new| same(old, new)));
    let gone = gone.map(|taint| format!("{}:{}-", taint.key, effect(taint.effect)));
    let set = new.iter().filter(|new| !old.contains(new)).map(|taint| {
        let value = taint.value.as_deref().unwrap_or_default();
        format!("{}={value}:{}", taint.key, effect(taint.effect))
    });
    gone.chain(set).collect()
}

const fn effect(effect: TaintEffect) -> &'static str {
    match effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    }
}

/// A script about the whole cluster, run in any control plane.
pub(super) fn about_all(layout: &Layout<'_>, name: String, script: &[&str]) -> Step {
    let mut step = step(layout, layout.first().name(), name, script);
    step.nodes = everywhere(layout);
    step
}

/// A script about a node, run in any control plane but itself.
fn step(layout: &Layout<'_>, about: &NodeName, name: String, script: &[&str]) -> Step {
    let mut command = ["/bin/sh", "-c", script[0], "step"].map(str::to_owned).to_vec();
    command.extend(script[1..].iter().map(|word| (*word).to_owned()));
    let mut nodes = everywhere(layout);
    nodes.retain(|node| node != about);
    Step {
        name,
        nodes,
        command,
        environment: set([("KUBECONFIG", places::kubeconfig("super-admin"))]),
        patience: QUICK,
        help: "look with `bivouac status` whether a control plane answers, and run the same command again"
            .to_owned(),
    }
}

fn everywhere(layout: &Layout<'_>) -> Vec<NodeName> {
    layout.control_planes().map(|member| member.name().clone()).collect()
}

/// Where kubectl finds the API: not at its own node's server, which may be the one that is down.
pub(super) fn api(layout: &Layout<'_>) -> String {
    format!("https://{}", layout.first().api)
}

fn set<const N: usize>(variables: [(&str, String); N]) -> Environment {
    variables.map(|(name, value)| (name.to_owned(), value)).into()
}
