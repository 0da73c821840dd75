//! Labels, taints and zones, in the syntax of Kubernetes (`k8s.io/apimachinery/pkg/util/validation`).

use super::Finding;
use crate::cluster::path::{field, item};
use crate::cluster::{NodeGroup, Taint};

/// The longest DNS subdomain.
const SUBDOMAIN_MAX: usize = 253;

/// The longest label value, and the longest name of a label key.
const NAME_MAX: usize = 63;

const KEY_HELP: &str = "Write a key such as `disk` or `example.com/disk`.";
const VALUE_HELP: &str =
    "Use letters, digits, `-`, `_` and `.`, with a letter or digit at both ends.";

/// Labels that bivouac or the kubelet sets on every node, and what to do instead.
const RESERVED_LABELS: [(&str, &str); 8] = [
    ("topology.kubernetes.io/zone", "Use `zones` of the group of nodes."),
    ("failure-domain.beta.kubernetes.io/zone", "Use `zones` of the group of nodes."),
    ("node-role.kubernetes.io/control-plane", "Use `role` of the group of nodes."),
    ("kubernetes.io/hostname", "Remove it: it is the node's name."),
    ("kubernetes.io/os", "Remove it: it is that of the node."),
    ("kubernetes.io/arch", "Remove it: it is that of the node."),
    ("beta.kubernetes.io/os", "Remove it: it is that of the node."),
    ("beta.kubernetes.io/arch", "Remove it: it is that of the node."),
];

pub(super) fn check(groups: &[NodeGroup], findings: &mut Vec<Finding>) {
    for (index, group) in groups.iter().enumerate() {
        let path = item("spec.nodes", index);
        check_labels(group, &field(&path, "labels"), findings);
        check_taints(&group.taints, &field(&path, "taints"), findings);
        for (index, zone) in group.zones.iter().enumerate() {
            let path = item(&field(&path, "zones"), index);
            let checked =
                if zone.is_empty() { Err("it is empty".into()) } else { check_value(zone) };
            if let Err(reason) = checked {
                let message = format!("`{zone}` is no zone: {reason}");
                findings.push(Finding::new(&path, "spec.invalid_zone", message).help(VALUE_HELP));
            }
        }
    }
}

fn check_labels(group: &NodeGroup, path: &str, findings: &mut Vec<Finding>) {
    for (key, value) in &group.labels {
        let path = field(path, key);
        if let Err(reason) = check_key(key) {
            let message = format!("`{key}` is no key of a label: {reason}");
            findings.push(Finding::new(&path, "spec.invalid_label_key", message).help(KEY_HELP));
        } else if let Some(help) = reserved_label(key) {
            let message = format!("bivouac sets the label `{key}` itself");
            findings.push(Finding::new(&path, "spec.reserved_label", message).help(help));
        }
        if let Err(reason) = check_value(value) {
            let message = format!("`{value}` is no value of a label: {reason}");
            findings
                .push(Finding::new(&path, "spec.invalid_label_value", message).help(VALUE_HELP));
        }
    }
}

fn reserved_label(key: &str) -> Option<&'static str> {
    if key.starts_with("bivouac.dev/") {
        return Some("Choose a key with a prefix of your own.");
    }
    RESERVED_LABELS.iter().find(|(reserved, _)| *reserved == key).map(|(_, help)| *help)
}

fn check_taints(taints: &[Taint], path: &str, findings: &mut Vec<Finding>) {
    for (index, taint) in taints.iter().enumerate() {
        let (list, path) = (path, item(path, index));
        let key = &taint.key;
        if let Err(reason) = check_key(key) {
            let message = format!("`{key}` is no key of a taint: {reason}");
            let finding = Finding::new(&field(&path, "key"), "spec.invalid_taint_key", message);
            findings.push(finding.help(KEY_HELP));
        } else if let Some(help) = reserved_taint(key) {
            let message = format!("the taint `{key}` is set by Kubernetes and bivouac");
            let finding = Finding::new(&field(&path, "key"), "spec.reserved_taint", message);
            findings.push(finding.help(help));
        }
        if let Some((value, Err(reason))) =
            taint.value.as_ref().map(|value| (value, check_value(value)))
        {
            let message = format!("`{value}` is no value of a taint: {reason}");
            let finding = Finding::new(&field(&path, "value"), "spec.invalid_taint_value", message);
            findings.push(finding.help(VALUE_HELP));
        }
        let same = |other: &Taint| other.key == *key && other.effect == taint.effect;
        if taints[..index].iter().any(same) {
            let message = format!("the taint `{key}:{:?}` is given twice", taint.effect);
            let finding = Finding::new(&path, "spec.duplicate_taint", message).scope(list);
            findings.push(finding.help("Remove one of the two."));
        }
    }
}

fn reserved_taint(key: &str) -> Option<&'static str> {
    if key == "node-role.kubernetes.io/control-plane" {
        return Some("Remove it: control planes have it wherever there are workers.");
    }
    let reserved = key.starts_with("node.kubernetes.io/") || key.starts_with("bivouac.dev/");
    reserved.then_some("Choose a key with a prefix of your own.")
}

/// `[prefix/]name`.
fn check_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(p, name)| (Some(p), name));
    if name.is_empty() {
        return Err("its name is empty".to_owned());
    }
    if let Some(prefix) = prefix {
        check_subdomain(prefix).map_err(|reason| format!("the part before `/`: {reason}"))?;
    }
    check_value(name)
}

fn check_value(value: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = value.as_bytes();
    if value.len() > NAME_MAX {
        return Err(format!("it has {} characters, at most {NAME_MAX} fit", value.len()));
    }
    if !bytes.iter().all(|&b| inner(b)) {
        return Err("it may hold only letters, digits, `-`, `_` and `.`".to_owned());
    }
    if !(ends(bytes.first()) && ends(bytes.last())) {
        return Err("it must start and end with a letter or digit".to_owned());
    }
    Ok(())
}

/// A DNS name of lower-case labels (RFC 1123).
pub(super) fn check_subdomain(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("it is empty".to_owned());
    }
    if name.len() > SUBDOMAIN_MAX {
        return Err(format!("it has {} characters, at most {SUBDOMAIN_MAX} fit", name.len()));
    }
    if name.ends_with('.') {
        return Err("it ends with a dot".to_owned());
    }
    let labels = name.split('.');
    labels.into_iter().try_for_each(|label| {
        label.parse::<crate::NodeName>().map(drop).map_err(|_| {
            format!("`{label}` may hold only a-z, 0-9 and `-`, up to 63, with a letter or digit at both ends")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_those_of_kubernetes() {
        for key in ["disk", "example.com/disk", "a/B_c.d-e", "node-role.kubernetes.io/db"] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        for key in ["", "a/", "/a", "A.com/b", "a/b/c", "-a", "a b", &"x".repeat(64)] {
            assert!(check_key(key).is_err(), "{key}");
        }
        assert_eq!(check_value(""), Ok(()));
        assert!(check_value("-").is_err() && check_value("a b").is_err());
        assert!(check_subdomain("cluster.local").is_ok() && check_subdomain("a..b").is_err());
    }
}
