//! How a node is left by its pods, and how it is told that none come. The mark tells nodes that are cordoned for this from those that
//! somebody else has cordoned: these stay so, whatever happens.

use bivouac_spec::NodeName;
use bivouac_spec::quantity::Span;

use super::layout::Layout;
use super::steps::{QUICK, about_all, api, step};
use crate::stack::Step;

/// An annotation.
pub(super) const MARK: &str = "bivouac.dev/remade";

/// Keeps new pods off a node, and marks it. Sourced before what follows: it gives `api`, `node` and `mark`.
const CORDON: &str = r#"set -eu
api=$1 node=$2 mark=$3
found=$(kubectl --server="$api" get node "$node" --ignore-not-found --output=jsonpath='{.metadata.name}|{.spec.unschedulable}')
case $found in
  "" | *"|true") ;;
  *)
    patch='{"metadata":{"annotations":{"%s":"true"}},"spec":{"unschedulable":true}}'
    kubectl --server="$api" patch node "$node" --type=merge --patch="$(printf "$patch" "$mark")" ;;
esac
"#;

/// Pods leave a node as their budgets permit. When its kubelet does not answer, nobody is there to end them: then they are forgotten, so
/// that others take their places. What keeps a pod is told: kubectl names the pod, and not its budget.
const DRAIN: &str = r#"[ -n "$found" ] || exit 0
patience=$4 budgets=$5 pods=$6
set -- drain "$node" --ignore-daemonsets --delete-emptydir-data --timeout="$patience"
ready=$(kubectl --server="$api" get node "$node" --output=jsonpath='{.status.conditions[?(@.type=="Ready")].status}')
if [ "$ready" != True ] && ! kubectl --server="$api" get --raw "/api/v1/nodes/$node/proxy/healthz" --request-timeout=5s > /dev/null 2>&1; then
  exec kubectl --server="$api" "$@" --force --disable-eviction --grace-period=0
fi
kubectl --server="$api" "$@" && exit
kubectl --server="$api" get poddisruptionbudgets --all-namespaces --output=go-template="$budgets" |
  while IFS='|' read -r namespace name healthy needed selector; do
    kept=$(kubectl --server="$api" get pods --namespace="$namespace" --selector="${selector%,}" \
      --field-selector="spec.nodeName=$node,status.phase!=Succeeded,status.phase!=Failed" --output=go-template="$pods")
    for pod in $kept; do
      echo "pod $namespace/$pod stays: PodDisruptionBudget $namespace/$name allows no disruption: $healthy pods are healthy, $needed must be" >&2
    done
  done
exit 1"#;

/// The budgets that allow no disruption of the pods that they are for, each with its selector as kubectl takes it.
const BUDGETS: &str = concat!(
    r#"{{range .items}}{{if and (not .status.disruptionsAllowed) .status.expectedPods}}"#,
    r#"{{.metadata.namespace}}|{{.metadata.name}}|{{.status.currentHealthy}}|{{.status.desiredHealthy}}|"#,
    r#"{{with .spec.selector}}{{range $key, $value := .matchLabels}}{{$key}}={{$value}},{{end}}{{range .matchExpressions}}"#,
    r#"{{if eq .operator "DoesNotExist"}}!{{end}}{{.key}}"#,
    r#"{{if eq .operator "In"}} in {{end}}{{if eq .operator "NotIn"}} notin {{end}}"#,
    r#"{{with .values}}({{range $index, $value := .}}{{if $index}},{{end}}{{$value}}{{end}}){{end}},"#,
    r#"{{end}}{{end}}{{"\n"}}{{end}}{{end}}"#,
);

/// The names of pods that were to leave and have not begun to.
const PODS: &str = concat!(
    r#"{{range .items}}{{$stays := .metadata.deletionTimestamp}}"#,
    r#"{{range .metadata.ownerReferences}}{{if eq .kind "DaemonSet"}}{{$stays = .kind}}{{end}}{{end}}"#,
    r#"{{if not $stays}}{{.metadata.name}} {{end}}{{end}}"#,
);

/// No new pods come to a node.
pub(super) fn cordon(layout: &Layout<'_>, node: &NodeName) -> Step {
    let script = [CORDON, &api(layout), node.as_str(), MARK];
    about_all(layout, format!("keep new pods off node {node}"), &script)
}

/// The pods of a node leave it, and no others come.
pub(super) fn drain(layout: &Layout<'_>, name: &NodeName, within: Span) -> Step {
    let (patience, script) = (within.to_string(), format!("{CORDON}{DRAIN}"));
    let script = [&script, &api(layout), name.as_str(), MARK, &patience, BUDGETS, PODS];
    Step {
        patience: within.duration() + QUICK,
        help: "move or delete the pods that are named above, or let their budgets allow it, and run the same command again; \
               `bivouac node remove --drain-timeout` gives them longer"
            .to_owned(),
        ..step(layout, name, format!("drain node {name}"), &script)
    }
}
