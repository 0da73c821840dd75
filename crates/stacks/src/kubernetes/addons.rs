//! What a cluster has beside Kubernetes itself: what is taken away again when it is not wanted any more.

use std::time::Duration;

use bivouac_spec::cluster::{Addons, Cluster, Stack};
use serde_json::Value;

use super::layout::Layout;
use super::manifests::{metrics, storage, text};
use super::steps::about_all;
use crate::stack::Step;

/// How long all objects of an add-on may take to go: a namespace goes last.
const PATIENCE: Duration = Duration::from_secs(90);

/// What is not there is what was asked for.
const REMOVE_SCRIPT: &str = r#"set -eu
api=$1 namespace=$2
shift 2
exec kubectl --server="$api" --namespace="$namespace" delete --ignore-not-found --timeout=60s "$@""#;

/// Takes away what was switched off.
pub(super) fn steps(layout: &Layout<'_>, before: &Cluster) -> Vec<Step> {
    let Stack::Kubernetes(before) = &before.spec.stack else { return Vec::new() };
    let (before, now) = (&before.addons, &layout.settings.addons);
    let is_gone = |of: fn(&Addons) -> bool| of(before) && !of(now);
    let mut steps = Vec::new();
    if is_gone(|addons| addons.metrics_server) {
        steps.push(remove(layout, "metrics-server", &metrics::all(layout)));
    }
    if is_gone(|addons| addons.storage) {
        steps.push(remove(layout, "the default storage class", &storage::all()));
    }
    steps
}

fn remove(layout: &Layout<'_>, what: &str, objects: &[Value]) -> Step {
    let is = |object: &&Value, kind: &str| text(object, "/kind") == kind;
    let namespace = |object: &Value| object["metadata"]["namespace"].as_str().map(str::to_owned);
    let own: Vec<&str> = objects
        .iter()
        .filter(|object| is(object, "Namespace"))
        .map(|object| text(object, "/metadata/name"))
        .collect();
    // What is in a namespace of its own goes with that.
    let named: Vec<String> = objects
        .iter()
        .filter(|object| namespace(object).is_none_or(|name| !own.contains(&name.as_str())))
        .map(|object| {
            format!("{}/{}", text(object, "/kind").to_lowercase(), text(object, "/metadata/name"))
        })
        .collect();
    let shared = objects.iter().find_map(namespace).filter(|name| !own.contains(&name.as_str()));
    let shared = shared.unwrap_or_else(|| "default".to_owned());
    let api = super::steps::api(layout);
    let mut script = vec![REMOVE_SCRIPT, &api, &shared];
    script.extend(named.iter().map(String::as_str));
    Step { patience: PATIENCE, ..about_all(layout, format!("remove {what}"), &script) }
}
