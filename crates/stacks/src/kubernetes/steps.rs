//! What is done in nodes that run when the cluster changes. Who joins makes itself a member of [`super::etcd`], and its Node object is applied
//! with those of all others.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bivouac_spec::cluster::{Bootstrap, Cluster, Role, Taint, TaintEffect};
use bivouac_spec::facts::Member as Leaving;
use bivouac_spec::{NodeName, node::config::Environment};

use super::drain::drain;
use super::layout::{Layout, all_taints};
use super::{etcd, manifests, places};
use crate::stack::{Change, Drain, Step};

/// How long anything else may take: an answer of the API, or of most members of etcd.
pub(super) const QUICK: Duration = Duration::from_secs(30);

/// How long most members of etcd may take to agree: they may have been started a moment ago.
const AGREEMENT: Duration = Duration::from_secs(60);

/// Members are known by where others find them: one that has never run has no name. For five seconds after members have found each
/// other etcd lets nobody go (`etcdserver: unhealthy cluster`).
const MEMBER_SCRIPT: &str = r#"set -eu
peer=$1
now() { cut -d . -f 1 /proc/uptime; }
last=$(($(now) + $2))
again() {
  [ "$(now)" -lt "$last" ] || { echo "$1" >&2; exit 1; }
  sleep 0.5
}
until members=$(etcdctl member list 2>&1); do
  again "$members"
done
while IFS=', ' read -r id status name url rest; do
  [ "$url" = "$peer" ] || continue
  until said=$(etcdctl member remove "$id" 2>&1); do
    case $said in
      *"unhealthy cluster"*) again "$said" ;;
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

/// What holds at the beginning only is not for an object that is there.
const NODE_SCRIPT: &str = r#"set -eu
api=$1
said=$(echo "$2" | kubectl --server="$api" create --validate=false --filename=- 2>&1) || case $said in
  *"already exists"*) ;;
  *) echo "$said" >&2; exit 1 ;;
esac
echo "$3" | kubectl --server="$api" apply --validate=false --server-side --force-conflicts --field-manager=bivouac --filename=-"#;

/// The steps of a change.
pub(super) fn steps(layout: &Layout<'_>, change: &Change<'_>, drain: Drain) -> Vec<Step> {
    match change {
        Change::Joins(node) => joins(layout, node),
        Change::Leaves(member) | Change::Lost(member) if member.spec.role == Role::Balancer => {
            Vec::new()
        }
        Change::Leaves(member) | Change::Lost(member) => leaves(layout, member, drain),
        Change::Returns(nodes) => returns(layout, nodes),
        Change::Remakes(node) => super::remake::before(layout, node, drain),
        Change::Remade(nodes) => super::remake::after(layout, nodes),
        Change::Changed(before) => changed(layout, before)
            .into_iter()
            .chain(super::addons::steps(layout, before))
            .collect(),
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
        steps.push(forget(layout, name, member.addresses.primary()));
    }
    let title = format!("remove Node {name}");
    let script = r#"exec kubectl --server="$1" delete node "$2" --ignore-not-found"#;
    steps.push(step(layout, name, title, &[script, &api, &node]));
    steps
}

/// One that was there before and is gone with its data is a member of etcd until it is taken out, and while any member is away, etcd takes
/// nobody in. A new one is not in the list.
fn joins(layout: &Layout<'_>, node: &NodeName) -> Vec<Step> {
    let member = layout.control_planes().find(|member| member.name() == node);
    member.map(|member| forget(layout, node, member.address())).into_iter().collect()
}

/// Nodes are known by their objects. That of a node that was let go is gone, and whose own config did not change does not make it again.
fn returns(layout: &Layout<'_>, nodes: &BTreeSet<NodeName>) -> Vec<Step> {
    let members = layout.members.iter().filter(|member| nodes.contains(member.name()));
    let steps = members.map(|member| {
        let (api, [initial, lasting]) = (api(layout), manifests::nodes::objects(layout, member));
        let title = format!("make Node {} unless it is there", member.name());
        about_all(layout, title, &[NODE_SCRIPT, &api, &initial, &lasting])
    });
    steps.collect()
}

fn forget(layout: &Layout<'_>, name: &NodeName, address: IpAddr) -> Step {
    let title = format!("take {name} out of etcd");
    let (peer, seconds) = (etcd::peer_url(address), AGREEMENT.as_secs().to_string());
    Step {
        environment: set(etcd::beside(layout, name)),
        patience: AGREEMENT + QUICK,
        help: "most of the members of etcd must run: bring the other control planes back first"
            .to_owned(),
        ..step(layout, name, title, &[MEMBER_SCRIPT, &peer, &seconds])
    }
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
pub(super) fn step(layout: &Layout<'_>, about: &NodeName, name: String, script: &[&str]) -> Step {
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
