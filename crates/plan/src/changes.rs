//! Which fields differ between two clusters.

use std::collections::BTreeSet;

use bivouac_spec::Cluster;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A field that differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The field: `spec.nodes[1].count`.
    pub path: String,
    /// Its value before; absent when the field was not there.
    pub from: Option<Value>,
    /// Its value now; absent when the field is not there any more.
    pub to: Option<Value>,
}

/// Every field that differs, defaults filled in, in the order of the file. A group of nodes that was added or removed is one
/// change.
#[must_use]
pub fn changes(from: &Cluster, to: &Cluster) -> Vec<Change> {
    let value = |cluster| serde_json::to_value(cluster).expect("a cluster has string keys only");
    let (from, to) = (value(from), value(to));
    let mut changes = Vec::new();
    compare("", Some(&from), Some(&to), &mut changes);
    changes
}

fn compare(path: &str, from: Option<&Value>, to: Option<&Value>, changes: &mut Vec<Change>) {
    match (from, to) {
        (Some(Value::Object(from)), Some(Value::Object(to))) => {
            let mut seen = BTreeSet::new();
            for key in from.keys().chain(to.keys()).filter(|key| seen.insert(key.as_str())) {
                compare(&field(path, key), from.get(key), to.get(key), changes);
            }
        }
        (Some(Value::Array(from)), Some(Value::Array(to))) => {
            for index in 0..from.len().max(to.len()) {
                compare(&format!("{path}[{index}]"), from.get(index), to.get(index), changes);
            }
        }
        (from, to) if from == to => {}
        (from, to) => {
            let (path, from, to) = (path.to_owned(), from.cloned(), to.cloned());
            changes.push(Change { path, from, to });
        }
    }
}

fn field(path: &str, key: &str) -> String {
    let simple = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (simple, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{key:?}]"),
    }
}

impl Change {
    /// The change as a sentence: `spec.nodes[1].count` would change from 2 to 3.
    #[must_use]
    pub fn describe(&self) -> String {
        let path = &self.path;
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!("`{path}` would change from {from} to {to}"),
            (None, Some(to)) => format!("`{path}` would be added as {to}"),
            (Some(from), None) => format!("`{path}` would be removed, it is {from}"),
            (None, None) => format!("`{path}` would not change"),
        }
    }
}
