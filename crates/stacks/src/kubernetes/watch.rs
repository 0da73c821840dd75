//! What must be started again, or done again, when its files change in a node that runs.

use bivouac_spec::NodeConfig;
use bivouac_spec::node::{File, FileKind, Run};
use camino::Utf8PathBuf;

use super::kubeadm;
use super::node::KUBELET;
use super::places::{ETCD_MEMBERS, KUBELET_SERVING, LIMITS, PKI};

/// Fills in what each service and command reads: the files that it names, and those that these name.
pub(super) fn fill(config: &mut NodeConfig) {
    let files = &config.files;
    for service in &mut config.services {
        let named = service.command.iter().chain(service.environment.values());
        service.watch = read(named.map(String::as_str).collect(), files);
        if service.name == KUBELET {
            service.watch.push(LIMITS.into());
        }
    }
    for task in &mut config.tasks {
        if let Run::Command(command) = &task.run {
            task.watch = read(command.iter().map(String::as_str).collect(), files);
            if task.name == kubeadm::RENEW {
                task.watch = kubeadm::watched();
            }
        }
    }
}

fn read<'a>(mut texts: Vec<&'a str>, files: &'a [File]) -> Vec<Utf8PathBuf> {
    let mut found: Vec<Utf8PathBuf> = Vec::new();
    while let Some(text) = texts.pop() {
        for file in files {
            let FileKind::Regular(content) = &file.kind else { continue };
            let path = &file.path;
            if text.contains(path.as_str()) && matters(path.as_str()) && !found.contains(path) {
                found.push(path.clone());
                texts.push(&content.0);
            }
        }
    }
    found.sort();
    found
}

/// Certificates and their keys are read again by those who have them in files: etcd with each connection, and what comes from Kubernetes as
/// soon as they change, where a pod has the whole folder. Kubeconfigs are not, and neither are the keys of service accounts. Who the members of etcd are matters only
/// to one that has no data.
fn matters(path: &str) -> bool {
    let is_certificate = path.starts_with(PKI) && !path.starts_with(&format!("{PKI}/sa."));
    let is_serving = [KUBELET_SERVING.0, KUBELET_SERVING.1].contains(&path);
    !is_certificate && !is_serving && path != ETCD_MEMBERS
}
