//! Paths in a member.

/// Where incusd keeps everything: a link to [`DATA`].
pub(super) const HOME: &str = "/var/lib/incus";
/// A folder that is on no overlay: users of instances are mapped to others there.
pub(super) const DATA: &str = "/var/lib/bivouac/incus";
/// incusd's socket.
pub(super) const SOCKET: &str = "/var/lib/incus/unix.socket";
/// incusd's logs.
pub(super) const LOGS: &str = "/var/log/incus";
/// What lxcfs mounts.
pub(super) const LXCFS: &str = "/var/lib/lxcfs";
/// Leases of instances.
pub(super) const LEASES: &str = "/var/lib/bivouac/leases";

/// Programs.
pub(super) const DAEMON: &str = "/usr/libexec/incus/incusd";
pub(super) const DNSMASQ: &str = "/usr/sbin/dnsmasq";

/// Rules of the packet filter.
pub(super) const RULES: &str = "/etc/incus/lan.nft";
/// What the cluster is founded with.
pub(super) const PRESEED: &str = "/etc/incus/preseed.json";
/// Options that are set when the cluster is there.
pub(super) const OPTIONS: &str = "/etc/incus/options.json";
/// How a file is sent to incusd.
pub(super) const SEND: &str = "/etc/incus/send.sh";
/// The certificate that all members show, and its key.
pub(super) const CLUSTER: (&str, &str) = ("/etc/incus/cluster.crt", "/etc/incus/cluster.key");
/// A folder with the certificates of who is trusted besides members.
pub(super) const USERS: &str = "/etc/incus/users";
/// How this member itself is trusted.
pub(super) const OWN: &str = "/etc/incus/own.json";
/// There while a join is under way, with the time at which it was begun; empty when that was cut short. With `.wipe` at
/// its end: there when incusd is to forget everything before it starts.
pub(super) const JOINING_MARKER: &str = "/var/lib/bivouac/incus.joining";
/// A folder with a document for each other member: how it is trusted.
pub(super) const TRUST: &str = "/etc/incus/trust";
/// A folder with a document for each member that can be joined.
pub(super) const JOIN: &str = "/etc/incus/join";

/// The configuration of a client that asks other members while this one is none yet.
pub(super) const ASK: &str = "/etc/incus/ask";
/// The same, by which it shows who it will be among them.
pub(super) const ITSELF: &str = "/etc/incus/itself";

/// The image that instances are made from, in the node image.
pub(super) const IMAGE: &str = "/usr/share/bivouac/instances/debian.tar";
/// Its name.
pub(super) const IMAGE_ALIAS: &str = "debian";

/// Whole views of the kernel: without one that nothing is mounted over, the kernel lets no instance have its own.
pub(super) const PRISTINE: [(&str, &str); 2] =
    [("proc", bivouac_spec::node::paths::WHOLE_PROC), ("sysfs", "/run/pristine/sys")];
