//! Certificate authorities, certificates and kubeconfigs of a cluster, as kubeadm lays them out.
//!
//! ```text
//! Pki ── Authorities ── cluster, front-proxy, etcd: certificate and key      service account: key pair
//!    └── leaves: what was issued, by file name ── LeafRequest (subject, names, usage) and Issued (PEM)
//! Kubeconfig: a document for one user of one cluster; merge and remove: that document in somebody's own file
//! merge_remote, remove_remote: the same for the configuration of the incus client; self_signed: certificates without authority
//! ```
//!
//! Values in, values out: nothing is read or written here. Callers keep the [`Pki`] and write files; whatever holds a key
//! is a [`Secret`] and goes into a file that only its owner may read.

mod authority;
mod catalog;
mod error;
mod kubeconfig;
mod layout;
mod leaf;
mod pki;
mod remote;
mod secret;
mod self_signed;

pub use authority::{Authorities, Authority, ServiceAccountKeys, Signer};
pub use catalog::{
    ControlPlane, FLANNEL, KubeletServing, LOAD_BALANCER, LOAD_BALANCER_ALLOCATORS, admin,
    apiserver, apiserver_etcd_client, apiserver_kubelet_client, controller_manager,
    etcd_healthcheck_client, etcd_peer, etcd_server, flannel, front_proxy_client, joiner,
    kube_proxy, kubelet_client, kubelet_serving, load_balancer, scheduler, super_admin,
};
pub use error::{Error, Result};
pub use kubeconfig::{Access, Kubeconfig, entry_name, is_empty, merge, remove};
pub use layout::{PkiFile, control_plane_files, worker_files};
pub use leaf::{Issued, LeafRequest, Usage, expires};
pub use pki::{Leaf, Pki, Validity};
pub use remote::{has_no_remotes, merge_remote, remove_remote};
pub use secret::Secret;
pub use self_signed::self_signed;
