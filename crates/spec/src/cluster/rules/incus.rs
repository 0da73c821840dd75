//! Rules for clusters of Incus.

use super::Finding;
use crate::cluster::path::{field, item};
use crate::cluster::{Cni, Incus, IpFamily, Network, Spec, StorageDriver};
use crate::quantity::Span;

const INCUS: &str = "spec.stack.incus";
const NETWORK: &str = "spec.network";
const STACK: &str = "spec.stack";

/// Options that say what bivouac itself decides: addresses, and who is trusted.
const RESERVED: [&str; 5] = [
    "cluster.https_address",
    "core.https_address",
    "core.https_trusted_proxy",
    "core.trust_ca_certificates",
    "core.trust_password",
];

pub(super) fn check(incus: &Incus, spec: &Spec, findings: &mut Vec<Finding>) {
    check_storage(incus, findings);
    check_config(incus, findings);
    check_profiles(incus, findings);
    check_guard(incus, findings);
    check_network(&spec.network, findings);
    for (index, group) in spec.nodes.iter().enumerate() {
        if !group.taints.is_empty() {
            let path = field(&item("spec.nodes", index), "taints");
            only_kubernetes(&path, "taints", findings);
        }
    }
}

fn check_storage(incus: &Incus, findings: &mut Vec<Finding>) {
    if incus.storage.driver == StorageDriver::Dir && incus.storage.size.is_some() {
        let path = field(&field(INCUS, "storage"), "size");
        let message = "folders have no size of their own";
        let help = "Remove it, or write `driver: btrfs` or `driver: zfs`.";
        findings.push(
            Finding::new(&path, "spec.size_of_folders", message)
                .scope(&field(INCUS, "storage"))
                .help(help),
        );
    }
}

fn check_config(incus: &Incus, findings: &mut Vec<Finding>) {
    let path = field(INCUS, "config");
    for key in incus.config.keys().filter(|key| RESERVED.contains(&key.as_str())) {
        let message = format!("bivouac sets `{key}` itself");
        let finding = Finding::new(&field(&path, key), "spec.reserved_option", message);
        findings.push(finding.help("Remove it."));
    }
}

fn check_profiles(incus: &Incus, findings: &mut Vec<Finding>) {
    let list = field(INCUS, "profiles");
    for (index, profile) in incus.profiles.iter().enumerate() {
        let path = field(&item(&list, index), "name");
        if let Err(reason) = check_profile_name(&profile.name) {
            let message = format!("`{}` is no name of a profile: {reason}", profile.name);
            let help = "Use letters, digits, `-`, `_` and `.`.";
            findings.push(Finding::new(&path, "spec.invalid_profile_name", message).help(help));
        }
        if incus.profiles[..index].iter().any(|other| other.name == profile.name) {
            let message = format!("the profile `{}` is given twice", profile.name);
            let finding = Finding::new(&path, "spec.duplicate_profile", message).scope(&list);
            findings.push(finding.help("Put both into one."));
        }
    }
}

fn check_profile_name(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match name {
        "" => Err("it is empty"),
        "." | ".." => Err("it has a meaning of its own"),
        name if !name.chars().all(plain) => Err("it has other characters"),
        _ => Ok(()),
    }
}

fn check_guard(incus: &Incus, findings: &mut Vec<Finding>) {
    let (memory, health) = (incus.guard.memory, incus.guard.health);
    let path = field(&field(INCUS, "guard"), "memory");
    if memory.minimum.0 == 0 || memory.minimum.0 % (1 << 20) != 0 {
        let message = format!("{} are no whole MiB", memory.minimum);
        let finding = Finding::new(&field(&path, "minimum"), "spec.not_in_mib", message);
        findings.push(
            finding.help(
                "Write a number of MiB, such as `64MiB`; `interval: 0s` turns the guard off.",
            ),
        );
    }
    let spans = [
        ("memory", "interval", memory.interval, true),
        ("health", "interval", health.interval, true),
        ("health", "timeout", health.timeout, false),
    ];
    for (part, name, span, may_be_zero) in spans {
        if span >= Span::seconds(1) || (may_be_zero && span.0 == 0) {
            continue;
        }
        let path = field(&field(&field(INCUS, "guard"), part), name);
        let message = format!("{span} are too short");
        let finding = Finding::new(&path, "spec.too_short", message);
        findings.push(finding.help("Write `1s` or more."));
    }
}

fn check_network(network: &Network, findings: &mut Vec<Finding>) {
    if network.cni != Cni::Bridge {
        only_kubernetes(&field(NETWORK, "cni"), "another `cni` than `bridge`", findings);
    }
    if !network.service_cidr.is_empty() {
        only_kubernetes(&field(NETWORK, "serviceCIDR"), "a network of Services", findings);
    }
    if network.ip_families != [IpFamily::V4] && !network.ip_families.is_empty() {
        let message = "instances of Incus have IPv4 addresses only";
        let path = field(NETWORK, "ipFamilies");
        let finding = Finding::new(&path, "spec.incus_families", message).scope(STACK);
        findings.push(finding.help("Write `[IPv4]`, or remove the field."));
    }
}

fn only_kubernetes(path: &str, what: &str, findings: &mut Vec<Finding>) {
    let message = format!("only Kubernetes has {what}");
    let finding = Finding::new(path, "spec.only_kubernetes", message).scope(STACK);
    findings.push(finding.help("Remove the field."));
}
