//! A copy of a cluster's data becomes another cluster: the same objects, volumes and images on nodes of the same names, at other addresses.
//!
//! ```text
//! every control plane:        how far its log of etcd goes; the first one gets the data of the one that is ahead of it
//! every node:                 what it knew of its pods' networks is gone; nothing goes to the networks of the cluster it was copied from
//! the first control plane:    all of the log counts > etcd, alone > the only member, at its new address > what names old addresses is gone
//! the other control planes:   etcd's data is gone: they join the first one
//! ```
//!
//! All of it is done before anything else runs in the nodes. Nodes are announced anew by the tasks that announce those of a new cluster, the
//! certificates of the old addresses are replaced by [`super::keys`], and kubelets make what runs on them anew as after any restart.

use std::collections::BTreeSet;
use std::time::Duration;

use bivouac_spec::cluster::{Bootstrap, Kubernetes, Role};
use bivouac_spec::facts::Applied;
use bivouac_spec::node::paths;
use bivouac_spec::{Addresses, Cluster, NodeName, Problem};
use ipnet::IpNet;

use super::layout::{Layout, Member};
use super::{etcd, places, versions};
use crate::stack::{Shared, Step};

/// etcd has to read its data, which may be much on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

const HELP: &str = "run the same command again; if it fails again, save a new snapshot";

/// Until the kubelets have looked, pods have the addresses of those that they are copies of. Nobody may find the others by them. The routes
/// are gone with the node's next start.
const APART: &str = r#"set -eu
networks=$1
for network in $networks; do
  ip route replace unreachable "$network"
done
rm -rf /var/lib/cni
"#;

/// Who has no data joins.
const FORGET: &str = r#"rm -rf "$2/member"
"#;

/// What is removed tells of nodes by their addresses, or of who leads, and is made anew by those whom it tells of. The loop is a probe: it
/// ends when etcd does. Whoever else is in the list of members is not there. Who has forgotten the others is the only voter in it, and has the
/// name of the one whose data it is; learners are not forgotten.
const FOUND: &str = r#"data=$2 programs=$3 name=$4 peer=$5 agent=$6
shift 6
socket=unix:///run/bivouac/fork.sock
export ETCDCTL_ENDPOINTS=$socket
if [ $# -gt 0 ]; then "$agent" agent etcd-log --confirm "$data"; fi
"$programs/etcd" "$@" --name="$name" --data-dir="$data" --log-level=error \
  --listen-client-urls="$socket" --advertise-client-urls=http://127.0.0.1:2379 --listen-peer-urls=http://127.0.0.1:2380 \
  --heartbeat-interval=10 --election-timeout=50 &
etcd=$!
trap 'kill $etcd 2>/dev/null || :' EXIT
until members=$("$programs/etcdctl" --command-timeout=2s member list 2>/dev/null); do
  kill -0 $etcd
  sleep 0.02
done
itself=
while IFS=', ' read -r id status who rest; do
  if [ $# -gt 0 ]; then
    case $itself,$rest in ,*false) itself=$id ;; esac
  elif [ "$who" = "$name" ]; then
    itself=$id
  fi
  if [ "$id" = "$itself" ]; then
    "$programs/etcdctl" member update "$id" --peer-urls="$peer"
  else
    "$programs/etcdctl" member remove "$id"
  fi
done <<END
$members
END
"$programs/etcdctl" txn <<'END'

del /registry/minions/ --prefix
del /registry/csinodes/ --prefix
del /registry/leases/kube-node-lease/ --prefix
del /registry/leases/kube-system/ --prefix
del /registry/masterleases/ --prefix
del /registry/services/endpoints/default/kubernetes
del /registry/endpointslices/default/kubernetes


END
kill $etcd
wait $etcd || :
"#;

/// One of several members has no majority alone: it forgets the others, and with them all of its log of which it has not written down that
/// they confirmed it. So all of it is noted as confirmed before. In the log that goes furthest is everything that ever was; what is in it beside
/// that would be confirmed by the next who leads, too.
const FORCE: &str = "--force-new-cluster";

/// All control planes but the first: etcd's data is that of one member, and the others get it from there.
pub(super) fn joins(
    settings: &Kubernetes,
    cluster: &Cluster,
) -> Result<BTreeSet<NodeName>, Problem> {
    if settings.bootstrap == Bootstrap::Kubeadm {
        let message = "a cluster that kubeadm has made cannot be forked: kubeadm writes the addresses of a control plane into what it makes, and cannot change them";
        return Err(Problem::usage("stack.kubernetes.fork_kubeadm", message)
            .help("make the cluster with `bootstrap: services`, or restore the snapshot into the same cluster with `bivouac snapshot restore`"));
    }
    let nodes = cluster.nodes().into_iter();
    let control_planes = nodes.filter(|node| node.role == Role::ControlPlane);
    Ok(control_planes.skip(1).map(|node| node.name).collect())
}

/// Of several logs the one that goes furthest founds the fork.
pub(super) fn shares(cluster: &Cluster) -> Option<Shared> {
    let nodes = cluster.nodes().into_iter();
    let control_planes = nodes.filter(|node| node.role == Role::ControlPlane);
    let ask: Vec<Step> = control_planes.map(|node| ask(node.name)).collect();
    let [first, _, ..] = &ask[..] else { return None };
    Some(Shared { to: first.nodes[0].clone(), folder: places::ETCD_DATA.into(), ask })
}

fn ask(name: NodeName) -> Step {
    let command = [paths::AGENT, "agent", "etcd-log", places::ETCD_DATA];
    Step {
        name: format!("ask {name} how far its copy of etcd goes"),
        nodes: vec![name],
        command: command.map(str::to_owned).to_vec(),
        environment: Default::default(),
        patience: PATIENCE,
        help: HELP.to_owned(),
    }
}

/// What is done in the nodes of the fork.
pub(super) fn steps(layout: &Layout<'_>, before: &Applied) -> Result<Vec<Step>, Problem> {
    joins(layout.settings, &before.cluster)?;
    check(layout, before)?;
    let networks: Vec<String> =
        foreign(&before.addresses, layout.addresses).map(|network| network.to_string()).collect();
    let networks = networks.join(" ");
    Ok(layout.members.iter().map(|member| step(layout, member, &networks)).collect())
}

/// Names of Services lead to addresses that are in the copied objects, and only a control plane has objects.
fn check(layout: &Layout<'_>, before: &Applied) -> Result<(), Problem> {
    let refuse = |message: String| Err(Problem::failed("stack.kubernetes.fork", message));
    let first = layout.first().name();
    let had_it = before
        .cluster
        .nodes()
        .into_iter()
        .any(|node| node.name == *first && node.role == Role::ControlPlane);
    if !had_it {
        return refuse(format!("the copied cluster had no control plane `{first}`"));
    }
    if before.addresses.service_networks != layout.addresses.service_networks {
        return refuse("a fork has the Services of the copied cluster, at their addresses".into());
    }
    Ok(())
}

/// The networks of the one cluster where nothing of the other is.
fn foreign<'a>(before: &'a Addresses, own: &'a Addresses) -> impl Iterator<Item = IpNet> + use<'a> {
    fn all(addresses: &Addresses) -> impl Iterator<Item = IpNet> + Clone {
        let nodes = addresses.node_networks.iter().map(|network| network.network);
        nodes.chain(addresses.pod_networks.iter().copied())
    }
    let overlaps = |one: &IpNet, other: &IpNet| one.contains(other) || other.contains(one);
    all(before).filter(move |network| !all(own).any(|own| overlaps(network, &own)))
}

fn step(layout: &Layout<'_>, member: &Member, networks: &str) -> Step {
    let name = member.name();
    let (script, peer) = (script(layout, member), etcd::peer_url(member.address()));
    let command = ["/bin/sh", "-c", &script, "fork", networks, places::ETCD_DATA];
    let mut founding = vec![versions::PROGRAMS, name.as_str(), &peer, paths::AGENT];
    if layout.control_planes().count() > 1 {
        founding.push(FORCE);
    }
    let founding = founding.iter().filter(|_| layout.is_first(member));
    Step {
        name: format!("make the data of {name} that of another cluster"),
        nodes: vec![name.clone()],
        command: command.iter().chain(founding).map(|word| (*word).to_owned()).collect(),
        environment: Default::default(),
        patience: PATIENCE,
        help: HELP.to_owned(),
    }
}

fn script(layout: &Layout<'_>, member: &Member) -> String {
    let rest = match member.spec.role {
        Role::ControlPlane if layout.is_first(member) => FOUND,
        Role::ControlPlane => FORGET,
        _ => "",
    };
    format!("{APART}{rest}")
}
