//! etcd, and who its members are. Founders know each other beforehand. Who joins asks those that are there, so that a list that grows or
//! shrinks changes nothing for a member that has its data, and joins whatever the others are by then.
//!
//! ```text
//! nobody has joined:  etcd
//! somebody has:       etcd (puts itself into the list, as a learner, when it has no data) > etcd-votes* (it has caught up)
//! ```
//!
//! Where somebody has joined, founders do as those who join, so that one that loses its data never founds a cluster beside the others.
//!
//! A learner counts for nothing until it has what the others have: one that does not come up costs the others no majority.

use std::net::{IpAddr, SocketAddr};

use bivouac_spec::NodeName;
use bivouac_spec::node::{File, Service, Task};
use bivouac_spec::quantity::Span;

use super::command::{Command, after, run};
use super::layout::{Layout, Member, join};
use super::places::{self, ETCD_MEMBERS, PKI, pair};
use super::probes::{accepting, loopback};
use super::{tuning, versions};

pub(super) const ETCD: &str = "etcd";
/// A task of a member that has joined: it is one of those that decide.
const VOTES: &str = "etcd-votes";

/// The API server opens a connection to etcd for each of its resources: over TLS, ninety handshakes take half a CPU second of both. On
/// one node nobody but root can listen to a socket that only root can open. Members talk to each other over TLS.
pub(super) const SOCKET: &str = "unix:///run/etcd/client.sock";
const SOCKET_PATH: &str = "/run/etcd/client.sock";
const SOCKET_FOLDER: &str = "/run/etcd";

/// It first waits until its clients have hung up, and an API server that is not stopped with it never does. What it has answered is on
/// the disk by then.
const GRACE: Span = Span::seconds(1);

/// So many may be on their way to become members. One that was given up is in the list until its node is made or removed.
const LEARNERS: u32 = 8;

/// Begins as the file of members says, and then is etcd.
const START: &str = r#"set -eu
. "$1"
begin
shift
exec "$@""#;

/// Follows the figures in the file of members of one who joins. Who is in the list and has no data has lost them, and is taken out
/// first: with other data it is another member. The name of an entry matters to the member itself only.
///
/// What etcd takes for data is its log; an attempt that failed leaves the folder around it. And who joins never founds a cluster, whatever
/// was left: without its members etcd would begin an empty one of its own, and nodes would follow two masters.
const JOIN: &str = include_str!("etcd-join.sh");

/// The member is one of those that decide.
const VOTE: &str = r#"set -eu
. "$1"
vote"#;

/// Its folders, and who its members are.
pub(super) fn files(layout: &Layout<'_>, member: &Member) -> Vec<File> {
    // etcd refuses a data folder that others may read.
    vec![
        File::directory(places::ETCD_DATA, 0o700),
        File::directory(SOCKET_FOLDER, 0o700),
        File::public(ETCD_MEMBERS, members(layout, member)),
    ]
}

/// Sourced by a shell: what etcd begins with is what `begin` exports.
fn members(layout: &Layout<'_>, member: &Member) -> String {
    if !layout.has_grown() {
        let founders = layout.control_planes();
        let founders =
            founders.map(|member| format!("{}={}", member.name(), peer_url(member.address())));
        return format!(
            "begin() {{\n  export ETCD_INITIAL_CLUSTER='{}' ETCD_INITIAL_CLUSTER_STATE=new\n}}\n",
            join(founders)
        );
    }
    let exports =
        beside(layout, member.name()).map(|(name, value)| format!("export {name}='{value}'\n"));
    format!(
        "{exports}\
         etcdctl='{programs}/etcdctl' data='{data}' run='{SOCKET_FOLDER}' socket='{SOCKET}' \
         self='{name}' peer='{peer}'\n\
         {JOIN}",
        exports = exports.concat(),
        programs = versions::PROGRAMS,
        data = places::ETCD_DATA,
        name = member.name(),
        peer = peer_url(member.address()),
    )
}

/// etcd.
pub(super) fn service(layout: &Layout<'_>, member: &Member) -> Service {
    let (client, peer) = (client_url(member), peer_url(member.address()));
    let (certificate, key) = pair("etcd/server");
    let (peer_certificate, peer_key) = pair("etcd/peer");
    let authority = format!("{PKI}/etcd/ca.crt");
    let command = Command::new(ETCD)
        .flag("name", member.name())
        .flag("data-dir", places::ETCD_DATA)
        .flag("listen-client-urls", format!("{SOCKET},https://{},{client}", loopback(2379)))
        .flag("advertise-client-urls", client)
        .flag("listen-peer-urls", &peer)
        .flag("initial-advertise-peer-urls", peer)
        .flag("initial-cluster-token", layout.cluster)
        .flag("cert-file", certificate)
        .flag("key-file", key)
        .flag("client-cert-auth", true)
        .flag("trusted-ca-file", &authority)
        .flag("peer-cert-file", peer_certificate)
        .flag("peer-key-file", peer_key)
        .flag("peer-client-cert-auth", true)
        .flag("peer-trusted-ca-file", authority)
        .flag("listen-metrics-urls", format!("http://{}", loopback(2381)))
        .flag("snapshot-count", tuning::ETCD_SNAPSHOT_COUNT)
        .flag("max-learners", LEARNERS)
        // The API server's watch cache relies on it.
        .flag("watch-progress-notify-interval", "5s")
        .flag("log-level", "warn");
    let command = if layout.elects() { command } else { command.flags(quick_election()) };
    let command = command.through(&["/bin/sh", "-c", START, ETCD, ETCD_MEMBERS]);
    let mut service = command.service(layout, ETCD, accepting(SOCKET_PATH));
    service.oom_score = Some(-997);
    service.stop.grace = GRACE;
    service
}

/// A member waits one to ten ticks (heartbeat intervals) before it elects itself. One that is alone has nobody to hear from, so its
/// ticks may be as short as etcd takes them.
pub(super) fn quick_election() -> [(&'static str, String); 2] {
    [
        ("heartbeat-interval", tuning::LONE_ETCD_TICK.to_string()),
        ("election-timeout", (5 * tuning::LONE_ETCD_TICK).to_string()),
    ]
}

/// The tasks of each member.
pub(super) fn tasks(layout: &Layout<'_>) -> Vec<Task> {
    if !layout.has_grown() {
        return Vec::new();
    }
    vec![run(VOTES, after([ETCD]), &["/bin/sh", "-c", VOTE, VOTES, ETCD_MEMBERS])]
}

/// The units after which etcd answers everything.
pub(super) fn ready(layout: &Layout<'_>) -> Vec<String> {
    after([if layout.has_grown() { VOTES } else { ETCD }])
}

/// For etcdctl in a control plane: the members beside this one, any of which answers.
pub(super) fn beside(layout: &Layout<'_>, name: &NodeName) -> [(&'static str, String); 4] {
    let others = layout.control_planes().filter(|other| other.name() != name);
    let (certificate, key) = pair("etcd/server");
    [
        ("ETCDCTL_ENDPOINTS", join(others.map(client_url))),
        ("ETCDCTL_CACERT", format!("{PKI}/etcd/ca.crt")),
        ("ETCDCTL_CERT", certificate),
        ("ETCDCTL_KEY", key),
    ]
}

fn client_url(member: &Member) -> String {
    format!("https://{}", SocketAddr::new(member.address(), 2379))
}

/// Where other members find this one, and by what it is known in the list of members.
pub(super) fn peer_url(address: IpAddr) -> String {
    format!("https://{}", SocketAddr::new(address, 2380))
}
