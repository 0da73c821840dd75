//! Every figure that trades start time, idle memory and CPU against each other, so that measuring has one place to turn.

use bivouac_spec::node::config::Environment;
use bivouac_spec::quantity::Span;

/// Requests a second of controllers and kubelets: upstream's limits (20 to 50) are for clusters of thousands of nodes, and cost
/// the controller manager five seconds of waiting at its start.
pub(super) const CLIENT_QPS: u32 = 2000;

/// How soon kube-proxy passes on a change. Upstream waits a second.
pub(super) const PROXY_MIN_SYNC: &str = "20ms";

/// How often readiness is asked where the question is cheap (loopback, connection kept).
pub(super) const PROBE: Span = Span::millis(25);

/// How often the state of the whole cluster is asked: a list that the API server must render.
pub(super) const CLUSTER_PROBE: Span = Span::millis(100);

/// CoreDNS may be placed on a node that is not Ready yet, which takes the wait for the first status report off the way to a
/// usable cluster. The kubelet starts it as soon as it can.
pub(super) const DNS_BEFORE_READY: bool = true;

/// The kubelet starts when its Node object is there, rather than at once. Starting at once overlaps its own start (half a CPU
/// second) with the API server's, but then its clients are in their backoff, which doubles from 0.1 s and 0.8 s, when the API
/// server comes up; on two cores the two compete anyway. Holding its requests back until then gains nothing that is sure either: it looks
/// for its pods only at whole seconds after its own start (`WaitForAPIServerSyncPeriod`), and meanwhile others have the processors.
pub(super) const KUBELET_WAITS_FOR_NODE: bool = true;

/// The API server starts when etcd answers. Starting both at once gains nothing when the first connection is refused, because
/// its client then waits a second.
pub(super) const API_WAITS_FOR_ETCD: bool = true;

/// etcd keeps so many entries in memory before it writes a snapshot (upstream: 10,000).
pub(super) const ETCD_SNAPSHOT_COUNT: u32 = 5000;

/// How often metrics-server asks every kubelet (upstream: 15 s): as often as these look. It answers after the second time.
pub(super) const METRICS_RESOLUTION: &str = "10s";

/// How long a kubelet may take to answer it. It refuses to start where this is not well below its resolution.
pub(super) const METRICS_PATIENCE: &str = "5s";

/// The tick of an etcd that is alone, in milliseconds (upstream: 100). The first election takes one to five of them: 0.1 s until it is
/// ready, in place of 0.25 to 1 s.
pub(super) const LONE_ETCD_TICK: u32 = 20;

/// Go's garbage collector, for programs that live long and mostly wait: less memory for a little more CPU.
pub(super) fn frugal() -> Environment {
    [("GOGC".to_owned(), "50".to_owned())].into()
}

/// Go's garbage collector as it comes, for programs that are small.
pub(super) fn swift() -> Environment {
    Environment::new()
}

/// Go's garbage collector, for the program that all others wait for: the API server starts with 1.3 instead of 1.55 CPU seconds, for
/// 13 MB more. (400: 1.2 seconds, for 100 MB more.)
pub(super) fn hasty() -> Environment {
    [("GOGC".to_owned(), "200".to_owned())].into()
}
