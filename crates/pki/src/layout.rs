//! Which files of `/etc/kubernetes/pki` a node has.

use camino::Utf8PathBuf;

use crate::catalog::{
    ControlPlane, apiserver, apiserver_etcd_client, apiserver_kubelet_client,
    etcd_healthcheck_client, etcd_peer, etcd_server, front_proxy_client,
};
use crate::error::Result;
use crate::pki::{Pki, Validity};
use crate::secret::Secret;

/// A file below `/etc/kubernetes/pki`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiFile {
    /// Path below that directory, such as `etcd/server.key`.
    pub path: Utf8PathBuf,
    /// What is in it.
    pub contents: Secret,
    /// 0o600 for keys, 0o644 for the rest.
    pub mode: u32,
}

/// The files of a control plane node, with certificates issued where they are missing. They are kept in the [`Pki`] under
/// `NODE/` and the file's name without suffix.
pub fn control_plane_files(
    pki: &mut Pki,
    node: &ControlPlane<'_>,
    validity: &Validity,
) -> Result<Vec<PkiFile>> {
    let leaves = [
        ("apiserver", apiserver(node)),
        ("apiserver-kubelet-client", apiserver_kubelet_client()),
        ("apiserver-etcd-client", apiserver_etcd_client()),
        ("front-proxy-client", front_proxy_client()),
        ("etcd/server", etcd_server(node)),
        ("etcd/peer", etcd_peer(node)),
        ("etcd/healthcheck-client", etcd_healthcheck_client()),
    ];
    let mut files = Vec::new();
    for (name, request) in leaves {
        let issued = pki.ensure(format!("{}/{name}", node.node), &request, validity)?;
        files.extend(pair(name, &issued.certificate, &issued.key));
    }
    let authorities = &pki.authorities;
    for (name, authority) in [
        ("ca", &authorities.cluster),
        ("front-proxy-ca", &authorities.front_proxy),
        ("etcd/ca", &authorities.etcd),
    ] {
        files.extend(pair(name, &authority.certificate, &authority.key));
    }
    files.push(public("sa.pub", &authorities.service_account.public_key));
    files.push(private("sa.key", &authorities.service_account.key));
    Ok(files)
}

/// The files of a worker: the certificate of the cluster's authority.
pub fn worker_files(pki: &Pki) -> Vec<PkiFile> {
    vec![public("ca.crt", &pki.authorities.cluster.certificate)]
}

fn pair(name: &str, certificate: &str, key: &Secret) -> [PkiFile; 2] {
    [public(&format!("{name}.crt"), certificate), private(&format!("{name}.key"), key)]
}

fn public(path: &str, contents: &str) -> PkiFile {
    PkiFile { path: path.into(), contents: Secret::new(contents), mode: 0o644 }
}

fn private(path: &str, contents: &Secret) -> PkiFile {
    PkiFile { path: path.into(), contents: contents.clone(), mode: 0o600 }
}
