//! Which nodes go with which stack.

use super::Finding;
use crate::cluster::path::{field, item};
use crate::cluster::{Role, Spec, Stack};

const NODES: &str = "spec.nodes";
/// A stack that was refused stands here as another one.
const STACK: &str = "spec.stack";

pub(super) fn check(spec: &Spec, findings: &mut Vec<Finding>) {
    let (stack, roles) = (&spec.stack, spec.stack.roles());
    let mut strangers = false;
    for (index, group) in spec.nodes.iter().enumerate() {
        if roles.contains(&group.role) {
            continue;
        }
        strangers = true;
        let path = field(&item(NODES, index), "role");
        let (role, name) = (group.role.name(), stack.name());
        let message = format!("nodes of the stack `{name}` cannot be `{role}`");
        let help = match (stack, roles) {
            (Stack::Kubernetes(_), _) if group.role == Role::Member => {
                "Write `control-plane` or `worker`, or `stack: {incus: {}}`.".to_owned()
            }
            (_, [only]) => format!("Write `{}`.", only.name()),
            _ => "Write `control-plane` or `worker`.".to_owned(),
        };
        findings
            .push(Finding::new(&path, "spec.role_of_other_stack", message).scope(STACK).help(help));
    }
    let needed = roles[0];
    let is_needed = spec.nodes.iter().any(|group| group.role == needed && group.count > 0);
    // Whoever wrote another role is told that.
    if is_needed || strangers {
        return;
    }
    let (code, message) = match needed {
        Role::Member => {
            let message = "the cluster has no member: 0 are asked for, and what it knows needs 1";
            ("spec.no_member", message)
        }
        _ => {
            let message = "the cluster has no control plane: 0 are asked for, and etcd needs 1";
            ("spec.no_control_plane", message)
        }
    };
    let help = format!("Add `- {{role: {}}}` to `spec.nodes`.", needed.name());
    findings.push(Finding::new(NODES, code, message).scope(STACK).help(help));
}
