//! What is secret of a Kubernetes cluster, and the files that come of it on each node.
//!
//! One function says which certificates there are. Making them and rendering them both go through it, so they cannot disagree.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, SystemTime};

use bivouac_pki::{
    Access, ControlPlane, Issued, Kubeconfig, KubeletServing, LeafRequest, Pki, PkiFile, Signer,
    Usage, Validity, control_plane_files, worker_files,
};
use bivouac_spec::cluster::{Bootstrap, Cni};
use bivouac_spec::node::{File, FileKind};
use bivouac_spec::{NodeName, Problem};
use sha2::{Digest as _, Sha256};

use super::flannel::FLANNEL;
use super::layout::{Layout, Member};
use super::manifests::metrics;
use super::places;
use crate::stack::Keys;

/// The certificate of a controller that only its own node asks.
pub(super) const LOCAL_SERVERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
const ADMIN: &str = "admin";

/// Makes what is missing, renews what is near its end, forgets what is not wanted any more.
pub(super) fn ensure(
    existing: Option<Keys>,
    layout: &Layout<'_>,
    now: SystemTime,
) -> Result<Keys, Problem> {
    let validity = Validity::starting(now);
    let mut pki = match existing {
        Some(keys) => decode(&keys)?,
        None => Pki::generate(&validity).map_err(|error| cannot_make(&error))?,
    };
    let mut wanted = Pki { authorities: pki.authorities.clone(), leaves: BTreeMap::new() };
    let mut source = Source { pki: &mut pki, used: Some(&mut wanted), validity };
    source.files(layout).map_err(|error| cannot_make(&error))?;
    source.admin().map_err(|error| cannot_make(&error))?;
    let value = serde_json::to_value(&wanted).expect("keys have string keys only");
    Ok(Keys(value))
}

/// When the first certificate ends that is not an authority's.
pub(super) fn expiry(keys: &Keys) -> Result<Option<SystemTime>, Problem> {
    let pki = decode(keys)?;
    let ends = pki.leaves.values().map(|leaf| bivouac_pki::expires(&leaf.issued.certificate));
    let ends: Result<Vec<SystemTime>, _> = ends.collect();
    let ends =
        ends.map_err(|error| Problem::from_error("stack.kubernetes.keys_unreadable", &error))?;
    Ok(ends.into_iter().min())
}

/// The files that hold keys, certificates and kubeconfigs, of each node.
pub(super) fn render(
    layout: &Layout<'_>,
    keys: &Keys,
) -> Result<BTreeMap<NodeName, Vec<File>>, Problem> {
    let mut pki = decode(keys)?;
    let files = read_only(&mut pki).files(layout).map_err(|error| cannot_make(&error))?;
    unchanged(&pki, keys)?;
    Ok(files)
}

/// The certificate of the cluster's authority, and the administrator's own with its key.
pub(super) fn administrator(keys: &Keys) -> Result<(String, Issued), Problem> {
    let mut pki = decode(keys)?;
    let client = read_only(&mut pki).admin().map_err(|error| cannot_make(&error))?;
    unchanged(&pki, keys)?;
    Ok((pki.authorities.cluster.certificate, client))
}

/// At the beginning of time nothing is near its end, so whatever is there is taken.
fn read_only(pki: &mut Pki) -> Source<'_> {
    Source {
        pki,
        used: None,
        validity: Validity::starting(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)),
    }
}

/// A token for this purpose that nobody knows who does not know the keys; always the same one.
pub(super) fn token(keys: &Keys, purpose: &str) -> Result<String, Problem> {
    let secret = decode(keys)?.authorities.cluster.key;
    let text = format!("bivouac {purpose}\n{}", secret.expose());
    Ok(hex::encode(Sha256::digest(text)))
}

fn unchanged(pki: &Pki, keys: &Keys) -> Result<(), Problem> {
    if decode(keys)? == *pki {
        return Ok(());
    }
    let message = "the keys were not made for this cluster as it is now";
    Err(Problem::failed("stack.kubernetes.stale_keys", message))
}

fn decode(keys: &Keys) -> Result<Pki, Problem> {
    serde_json::from_value(keys.0.clone()).map_err(|error| {
        // Only the place: the text around it may be a key.
        let message =
            format!("the keys cannot be read (line {}, column {})", error.line(), error.column());
        Problem::failed("stack.kubernetes.keys_unreadable", message)
    })
}

fn cannot_make(error: &bivouac_pki::Error) -> Problem {
    Problem::from_error("stack.kubernetes.keys", error)
}

struct Source<'a> {
    pki: &'a mut Pki,
    /// Gathers what was asked for.
    used: Option<&'a mut Pki>,
    validity: Validity,
}

type Made<T> = Result<T, bivouac_pki::Error>;

impl Source<'_> {
    fn files(&mut self, layout: &Layout<'_>) -> Made<BTreeMap<NodeName, Vec<File>>> {
        let mut all = BTreeMap::new();
        for member in &layout.members {
            let mut files = self.node(layout, member)?;
            if member.is_control_plane() {
                files.extend(self.control_plane(layout, member)?);
                if layout.is_first(member) && layout.settings.addons.metrics_server {
                    files.extend(self.metrics(layout)?);
                }
            } else {
                files.extend(worker_files(self.pki).iter().map(below_pki));
            }
            all.insert(member.name().clone(), files);
        }
        if let Some(balancer) = &layout.balancer {
            let files = worker_files(self.pki).iter().map(below_pki).collect();
            all.insert(balancer.name.clone(), files);
        }
        Ok(all)
    }

    fn control_plane(&mut self, layout: &Layout<'_>, member: &Member) -> Made<Vec<File>> {
        let name = member.name().as_str();
        let addresses: Vec<IpAddr> = member.addresses.iter().copied().collect();
        let balancer = layout.balancer.iter().flat_map(|balancer| {
            let addresses = balancer.addresses.iter().map(ToString::to_string);
            addresses.chain([balancer.name.to_string()])
        });
        let node = ControlPlane {
            node: name,
            addresses: &addresses,
            service_addresses: &layout.api_service,
            domain: &layout.settings.domain,
            extra: &balancer.collect::<Vec<_>>(),
        };
        let files = control_plane_files(self.pki, &node, &self.validity)?;
        let own = format!("{name}/");
        self.keep(|kept| kept.starts_with(&own));
        let mut files: Vec<File> = files.iter().map(below_pki).collect();
        for server in LOCAL_SERVERS {
            let issued = self.issue(&format!("{name}/{server}"), &local_server(server))?;
            let (certificate, key) = places::pair(server);
            files.extend(pair_files(&certificate, &key, &issued));
        }
        let super_admin = self.issue("super-admin", &bivouac_pki::super_admin())?;
        files.extend(pair_files(places::SUPER_ADMIN.0, places::SUPER_ADMIN.1, &super_admin));
        let manager =
            self.issue(&format!("{name}/controller-manager"), &bivouac_pki::controller_manager())?;
        let scheduler = self.issue(&format!("{name}/scheduler"), &bivouac_pki::scheduler())?;
        let admin = self.admin()?;
        // They stay with the API server of their own node.
        let kubeconfig =
            |name, user, client| self.kubeconfig(layout, member.server(), name, user, client);
        files.extend([
            kubeconfig(ADMIN, "kubernetes-admin", &admin),
            kubeconfig("super-admin", "kubernetes-super-admin", &super_admin),
            kubeconfig("controller-manager", "system:kube-controller-manager", &manager),
            kubeconfig("scheduler", "system:kube-scheduler", &scheduler),
        ]);
        Ok(files)
    }

    fn node(&mut self, layout: &Layout<'_>, member: &Member) -> Made<Vec<File>> {
        let name = member.name().as_str();
        let mut files = match layout.settings.bootstrap {
            Bootstrap::Services => self.kubelet_and_proxy(layout, member)?,
            Bootstrap::Kubeadm if member.is_control_plane() => Vec::new(),
            Bootstrap::Kubeadm => self.joiner(layout, member)?,
        };
        let addresses: Vec<IpAddr> = member.addresses.iter().copied().collect();
        let serving = KubeletServing { node: name, addresses: &addresses };
        let serving =
            self.issue(&format!("{name}/kubelet"), &bivouac_pki::kubelet_serving(&serving))?;
        files.extend(pair_files(places::KUBELET_SERVING.0, places::KUBELET_SERVING.1, &serving));
        if layout.load_balances {
            let request = bivouac_pki::load_balancer(member.is_control_plane());
            let client = self.issue(&format!("{name}/load-balancer"), &request)?;
            files.extend(pair_files(places::LOAD_BALANCER.0, places::LOAD_BALANCER.1, &client));
        }
        if layout.cni == Cni::Flannel {
            let client = self.issue(&format!("{name}/flannel"), &bivouac_pki::flannel())?;
            files.push(self.kubeconfig(layout, member.api, FLANNEL, bivouac_pki::FLANNEL, &client));
        }
        Ok(files)
    }

    fn kubelet_and_proxy(&mut self, layout: &Layout<'_>, member: &Member) -> Made<Vec<File>> {
        let name = member.name().as_str();
        let client =
            self.issue(&format!("{name}/kubelet-client"), &bivouac_pki::kubelet_client(name))?;
        let proxy = self.issue(&format!("{name}/kube-proxy"), &bivouac_pki::kube_proxy())?;
        let user = format!("system:node:{name}");
        let mut files = Vec::new();
        files.extend(pair_files(places::KUBELET_CLIENT.0, places::KUBELET_CLIENT.1, &client));
        files.push(self.kubeconfig(layout, member.api, "kubelet", &user, &client));
        files.push(self.kubeconfig(layout, member.api, "kube-proxy", "system:kube-proxy", &proxy));
        Ok(files)
    }

    /// One who may join this node, instead of the kubelet, whose identity is made in the node.
    fn joiner(&mut self, layout: &Layout<'_>, member: &Member) -> Made<Vec<File>> {
        let name = member.name().as_str();
        let request = bivouac_pki::joiner(name);
        let client = self.issue(&format!("{name}/join"), &request)?;
        let mut files: Vec<File> = pair_files(places::JOINER.0, places::JOINER.1, &client).into();
        let user = &request.common_name;
        files.push(self.kubeconfig(layout, member.api, places::DISCOVERY, user, &client));
        Ok(files)
    }

    /// What is applied of metrics-server that its node alone knows.
    fn metrics(&mut self, layout: &Layout<'_>) -> Made<[File; 2]> {
        let issued = self.issue(metrics::METRICS, &metrics::certificate(layout))?;
        let api = metrics::api_service(&self.pki.authorities.cluster.certificate);
        Ok([
            File::secret(places::METRICS_SECRET, metrics::secret(&issued).to_string()),
            File::public(places::METRICS_API, api.to_string()),
        ])
    }

    fn admin(&mut self) -> Made<Issued> {
        self.issue(ADMIN, &bivouac_pki::admin())
    }

    fn issue(&mut self, name: &str, request: &LeafRequest) -> Made<Issued> {
        let issued = self.pki.ensure(name, request, &self.validity)?;
        self.keep(|kept| kept == name);
        Ok(issued)
    }

    fn keep(&mut self, wanted: impl Fn(&String) -> bool) {
        if let Some(used) = &mut self.used {
            let kept = self.pki.leaves.iter().filter(|(name, _)| wanted(name));
            used.leaves.extend(kept.map(|(name, leaf)| (name.clone(), leaf.clone())));
        }
    }

    fn kubeconfig(
        &self,
        layout: &Layout<'_>,
        api: SocketAddr,
        name: &str,
        user: &str,
        client: &Issued,
    ) -> File {
        let cluster = layout.cluster.as_str();
        let access = Access {
            cluster,
            user,
            context: &format!("{user}@{cluster}"),
            server: &format!("https://{api}"),
            authority: &self.pki.authorities.cluster.certificate,
            client,
        };
        File::secret(places::kubeconfig(name), Kubeconfig::new(&access).render().expose())
    }
}

/// Without a certificate of its own, a controller makes an RSA key at each start, which nobody can verify.
fn local_server(name: &str) -> LeafRequest {
    LeafRequest {
        common_name: name.to_owned(),
        organization: None,
        dns_names: vec!["localhost".to_owned()],
        addresses: vec![std::net::Ipv4Addr::LOCALHOST.into()],
        usage: Usage::Server,
        signer: Signer::Cluster,
    }
}

fn pair_files(certificate: &str, key: &str, issued: &Issued) -> [File; 2] {
    [File::public(certificate, &issued.certificate), File::secret(key, issued.key.expose())]
}

fn below_pki(file: &PkiFile) -> File {
    let path = format!("{}/{}", places::PKI, file.path).into();
    let kind = FileKind::Regular(bivouac_spec::node::Content(file.contents.expose().to_owned()));
    File { path, mode: file.mode, owner: (0, 0), kind }
}
