//! What is done around a node that is stopped and made anew: its pods leave it before, if another node can take them, and it gets none
//! until it is Ready again, with the version that is asked for.

use std::time::Duration;

use bivouac_spec::NodeName;
use bivouac_spec::cluster::TaintEffect;

use super::drain::{MARK, cordon, drain};
use super::layout::{Layout, Member};
use super::steps::{about_all, api};
use crate::stack::{Drain, Step};

/// How long a node whose services run may take to be Ready.
const READY: Duration = Duration::from_secs(120);

/// The kubelet says its version together with whether the node is Ready, so that what it said before an upgrade does not count. The API
/// may be away for a moment: its node may be the one.
const RETURN_SCRIPT: &str = r#"set -u
api=$1 version=$2 mark=$3
shift 3
escaped=$(echo "$mark" | sed 's/[.]/\\./g')
asked="{.status.nodeInfo.kubeletVersion}|{.status.conditions[?(@.type==\"Ready\")].status}|{.metadata.annotations.$escaped}"
for node; do
  while :; do
    state=$(kubectl --server="$api" get node "$node" --request-timeout=5s --output=jsonpath="$asked") || state=
    [ "${state%|*}" != "$version|True" ] || break
    sleep 0.2
  done
  [ -n "${state##*|}" ] || continue
  patch='{"metadata":{"annotations":{"%s":null}},"spec":{"unschedulable":null}}'
  kubectl --server="$api" patch node "$node" --type=merge --patch="$(printf "$patch" "$mark")" || exit
done"#;

/// Before a node is stopped.
pub(super) fn before(layout: &Layout<'_>, node: &NodeName, drained: Drain) -> Vec<Step> {
    let others = layout.members.iter().filter(|member| member.name() != node);
    let is_member = layout.members.iter().any(|member| member.name() == node);
    let Drain::Within(patience) = drained else { return Vec::new() };
    if !is_member || !others.into_iter().any(takes_pods) {
        return Vec::new();
    }
    let cordon = cordon(layout, node);
    let drain = Step {
        nodes: cordon.nodes.clone(),
        help: "move or delete the pods that are named above, or let their budgets allow it, and run the same command again; \
               `bivouac upgrade` gives them longer with `--drain-timeout`, and lets pods stop and start with their nodes with `--no-drain`"
            .to_owned(),
        ..drain(layout, node, patience)
    };
    vec![cordon, drain]
}

/// When the services of nodes run again.
pub(super) fn after(layout: &Layout<'_>, nodes: &[&NodeName]) -> Vec<Step> {
    let members = layout.members.iter().map(Member::name).filter(|name| nodes.contains(name));
    let members: Vec<&str> = members.map(NodeName::as_str).collect();
    if members.is_empty() {
        return Vec::new();
    }
    let (api, version) = (api(layout), layout.settings.version.as_str());
    let mut script = vec![RETURN_SCRIPT, &api, version, MARK];
    script.extend(&members);
    let name = match members[..] {
        [one] => format!("wait until node {one} is Ready with {version}"),
        _ => format!("wait until all nodes are Ready with {version}"),
    };
    let step = Step {
        patience: READY,
        help: "look with `bivouac status` what its kubelet lacks, and run the same command again"
            .to_owned(),
        ..about_all(layout, name, &script)
    };
    vec![step]
}

/// Whether pods that tolerate nothing can go there.
fn takes_pods(member: &Member) -> bool {
    let keeps_off = [TaintEffect::NoSchedule, TaintEffect::NoExecute];
    member.taints.iter().all(|taint| !keeps_off.contains(&taint.effect))
}
