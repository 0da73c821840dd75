//! What is tested.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use bivouac_provider::conformance::{self, Outcome};
use bivouac_provider::{ExecRequest, Node, Process, Provider, Stdio};
use bivouac_spec::facts::{ObservedCluster, ObservedState};
use bivouac_spec::node::paths;
use bivouac_sys::process::{PidFd, Signal, Wait};
use camino::Utf8Path;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::ground::{Ground, machine, traces};
use crate::{changes, disks, families, passage, ports};

/// It only ends what hangs.
const PATIENCE: Duration = Duration::from_secs(120);

type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// All tests, by name.
pub(crate) const ALL: [(&str, Case); 24] = [
    ("conforms", || Box::pin(conforms())),
    ("a_node_sees_what_it_must_see", || Box::pin(sights())),
    ("nodes_and_pods_are_reached", || Box::pin(reach())),
    ("nothing_is_left", || Box::pin(nothing_is_left())),
    ("a_deleted_state_folder_hides_nothing", || Box::pin(deleted_state())),
    ("a_killed_node_starts_again_with_its_data", || Box::pin(killed())),
    ("two_clusters_side_by_side", || Box::pin(two_clusters())),
    ("an_agent_that_cannot_run_is_told", || Box::pin(broken_agent())),
    ("streams_are_inherited", || Box::pin(inherited())),
    ("this_machine_is_fit", || Box::pin(survey())),
    ("published_ports_are_reached", || Box::pin(ports::reached())),
    ("taken_ports_are_refused", || Box::pin(ports::refused())),
    ("chains_that_drop_are_opened", || Box::pin(passage::opened())),
    ("rules_left_behind_are_found", || Box::pin(passage::left_behind())),
    ("two_families_are_reached", || Box::pin(families::dual())),
    ("ipv6_alone_is_reached", || Box::pin(families::six())),
    ("a_node_that_runs_is_changed", || Box::pin(changes::in_place())),
    ("limits_that_cannot_be_are_refused", || Box::pin(changes::refused())),
    ("a_node_is_made_anew_around_its_data", || Box::pin(changes::anew())),
    ("after_a_reboot_all_comes_back", || Box::pin(changes::rebooted())),
    ("a_node_sees_its_limits", || Box::pin(changes::seen())),
    ("a_node_writes_no_more_than_its_disk_holds", || Box::pin(disks::limited())),
    ("a_disk_that_was_never_made_binds_nobody", || Box::pin(disks::never_made())),
    ("a_disk_becomes_larger", || Box::pin(disks::grown())),
];

/// Removes the cluster when the test panics, too.
pub(crate) struct Cleanup<'a>(pub(crate) &'a Ground);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        let (provider, cluster) = (self.0.provider.clone(), self.0.cluster.clone());
        let end = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(provider.destroy_cluster(&cluster))
        });
        if let Err(problem) = end.join().unwrap() {
            assert!(std::thread::panicking(), "{problem:?}");
        }
    }
}

pub(crate) async fn start(ground: &Ground, index: u8) -> std::sync::Arc<dyn Node> {
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    ground.provider.ensure_node(&ground.request(index)).await.unwrap()
}

pub(crate) async fn exec(node: &dyn Node, stdio: Stdio, command: &[&str]) -> Process {
    let request = ExecRequest { stdio, ..ExecRequest::piped(command.iter().copied()) };
    node.exec(&request).await.unwrap()
}

pub(crate) async fn output(node: &dyn Node, command: &[&str]) -> String {
    let mut process = exec(node, Stdio::NoInput, command).await;
    let mut out = String::new();
    process.stdout.take().unwrap().read_to_string(&mut out).await.unwrap();
    assert_eq!(process.exit.await.unwrap(), 0, "{command:?}");
    out
}

pub(crate) async fn text(node: &dyn Node, path: &str) -> String {
    let mut text = String::new();
    node.get(Utf8Path::new(path)).await.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

pub(crate) async fn observed(ground: &Ground) -> Option<ObservedCluster> {
    let clusters = ground.provider.observe().await.unwrap();
    clusters.into_iter().find(|cluster| cluster.name == ground.cluster)
}

/// The first process of the first node.
pub(crate) async fn pid(ground: &Ground) -> u32 {
    observed(ground).await.unwrap().nodes[&ground.node(0)].pid.unwrap()
}

async fn conforms() {
    let ground = Ground::new(1);
    let _cleanup = Cleanup(&ground);
    let suite = conformance::Ground {
        network: ground.network(),
        nodes: vec![ground.request(0), ground.request(1)],
    };
    let report = conformance::run(&ground.provider, &suite).await;
    let failures: Vec<_> = report.failures().collect();
    assert!(failures.is_empty(), "{failures:#?}");
    assert_eq!(report.count(|outcome| matches!(outcome, Outcome::Skipped(_))), 0);
}

async fn sights() {
    let ground = Ground::new(2);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let name = &ground.cluster;
    let hosts = text(&*node, "/etc/hosts").await;
    assert!(hosts.contains(&format!("10.203.2.3 node-1 node-1.{name}\n")), "{hosts}");
    assert_eq!(text(&*node, "/etc/hostname").await, "node-0\n");
    let machine_id = text(&*node, "/etc/machine-id").await;
    assert_eq!(machine_id.trim().len(), 32);
    let command = text(&*node, "/proc/1/cmdline").await.replace('\0', " ");
    assert_eq!(command, format!("bivouac agent run --shares-kernel --label {name}/node-0 "));

    let mounts = text(&*node, "/proc/1/mountinfo").await;
    let mounted = |target: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(target));
        line.unwrap_or_else(|| panic!("{target} is not mounted:\n{mounts}")).to_owned()
    };
    for target in paths::REAL_DIRECTORIES.into_iter().chain(["/proc", "/sys", "/run", "/dev/pts"]) {
        assert!(mounted(target).contains(" rw"), "{target}");
        assert!(mounted(target).contains("shared:"), "{target}");
    }
    for target in [paths::AGENT, paths::SHARED_IMAGES] {
        assert!(mounted(target).contains(" ro"), "{target}");
    }
    assert!(mounted("/").contains("overlay"));
    // The limits of the request, as the node itself sees them.
    let limit = if mounts.contains("cgroup2 cgroup2") {
        text(&*node, "/sys/fs/cgroup/memory.max").await
    } else {
        text(&*node, "/sys/fs/cgroup/memory/memory.limit_in_bytes").await
    };
    assert_eq!(limit.trim(), (1u64 << 30).to_string());
    // A terminal of its own, and no descriptor of the one who started it.
    let pid = pid(&ground).await;
    let open: Vec<_> = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().collect();
    assert!(open.len() <= 6, "{open:?}");
    for number in 0..3 {
        let link = std::fs::read_link(format!("/proc/{pid}/fd/{number}")).unwrap();
        let expected = if number == 0 { "/null" } else { "console.log" };
        assert!(link.to_string_lossy().ends_with(expected), "{number}: {link:?}");
    }
    // The same machine after a restart.
    let (name, index) = (&ground.cluster, ground.node(0));
    ground.provider.stop_node(name, &index, PATIENCE).await.unwrap();
    let node = start(&ground, 0).await;
    assert_eq!(text(&*node, "/etc/machine-id").await, machine_id);
    let wanted = "started as 1 in node-0\nstopped\nstarted as 1 in node-0\n";
    let deadline = Instant::now() + PATIENCE;
    loop {
        // Its last line is written some time after it was started.
        let log = text(&*node, &format!("{}/agent.log", paths::LOGS)).await;
        if log == wanted {
            break;
        }
        assert!(wanted.starts_with(&log) && Instant::now() < deadline, "{log}");
    }
}

async fn reach() {
    let ground = Ground::new(3);
    let _cleanup = Cleanup(&ground);
    let (server, client) = (start(&ground, 0).await, start(&ground, 1).await);
    let pod = format!(
        "{}:8080",
        ground.addresses().nodes[&ground.node(0)].pod_networks[0].hosts().next().unwrap()
    );
    let own = format!("{}:8081", server.address());
    for address in [&pod, &own] {
        let mut serving = exec(&*server, Stdio::NoInput, &["serve", address]).await;
        let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
        // From the other node, and from the host.
        assert_eq!(output(&*client, &["greet", address]).await, "hello");
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).await.unwrap();
        assert_eq!(greeting, "hello");
    }
    assert_eq!(server.forward(8081).await.unwrap().to_string(), own);
}

async fn nothing_is_left() {
    let before = machine();
    let ground = Ground::new(4);
    let cleanup = Cleanup(&ground);
    let (one, _) = (start(&ground, 0).await, start(&ground, 1).await);
    let _running = exec(&*one, Stdio::NoInput, &["sleep", "3600"]).await;
    let there = traces(&ground);
    for what in ["link", "address", "route", "table", "cgroup", "process", "file"] {
        assert!(there.iter().any(|trace| trace.starts_with(what)), "no {what}: {there:#?}");
    }
    assert!(
        !there.iter().any(|trace| trace.starts_with("mount")),
        "a mount of a node is the host's"
    );
    drop(cleanup);
    let left = traces(&ground);
    assert!(left.is_empty(), "{left:#?}");
    // What the host forwards can be compared only where nobody else's cluster needs it.
    assert_eq!(machine(), before);
}

async fn deleted_state() {
    let ground = Ground::new(5);
    let cleanup = Cleanup(&ground);
    start(&ground, 0).await;
    std::fs::remove_dir_all(&ground.state).unwrap();
    let found = observed(&ground).await.unwrap();
    let node = &found.nodes[&ground.node(0)];
    assert_eq!(node.state, ObservedState::Broken);
    assert!(node.pid.is_some() && node.address.is_some());
    // It is not taken for one with the config of this request.
    let Err(problem) = ground.provider.ensure_node(&ground.request(0)).await else {
        panic!("it is adopted")
    };
    assert_eq!(problem.code, "provider.linux.broken");
    assert!(problem.help.unwrap().contains(&format!("bivouac down {}", ground.cluster)));
    drop(cleanup);
    assert!(observed(&ground).await.is_none());
    let left = traces(&ground);
    assert!(left.is_empty(), "{left:#?}");

    // Without a process, what is left is told in words.
    let _cleanup = Cleanup(&ground);
    start(&ground, 0).await;
    ground.provider.stop_node(&ground.cluster, &ground.node(0), Duration::ZERO).await.unwrap();
    std::fs::remove_dir_all(&ground.state).unwrap();
    let found = observed(&ground).await.unwrap();
    assert!(found.nodes.is_empty());
    for what in ["interface bv-", "control group of node node-0", "nftables table inet bivouac-"] {
        assert!(found.remains.iter().any(|text| text.starts_with(what)), "{what}: {found:#?}");
    }
}

async fn killed() {
    let ground = Ground::new(6);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let path = Utf8Path::new("/var/lib/etcd/data");
    node.put(path, 0o600, Box::new(&b"kept"[..])).await.unwrap();
    let pid = observed(&ground).await.unwrap().nodes[&ground.node(0)].pid.unwrap();
    let process = PidFd::open(pid).unwrap();
    process.send_signal(Signal::KILL).unwrap();
    assert_eq!(process.wait(Some(PATIENCE)).unwrap(), Wait::Exited);
    let found = observed(&ground).await.unwrap();
    assert_eq!(found.nodes[&ground.node(0)].state, ObservedState::Stopped);
    let node = start(&ground, 0).await;
    assert_eq!(text(&*node, path.as_str()).await, "kept");
}

async fn two_clusters() {
    let (one, mut other) = (Ground::new(7), Ground::new(8));
    other.share_state(&one);
    let cleanup = (Cleanup(&one), Cleanup(&other));
    let (a, b) = futures::join!(start(&one, 0), start(&other, 0));
    let bridges =
        |ground: &Ground| traces(ground).into_iter().filter(|t| t.starts_with("link")).count();
    assert_eq!((bridges(&one), bridges(&other)), (2, 2));
    assert_eq!(output(&*a, &["echo", "a"]).await, "a\n");
    drop(cleanup.0);
    assert!(observed(&one).await.is_none());
    assert_eq!(observed(&other).await.unwrap().nodes[&other.node(0)].state, ObservedState::Running);
    assert_eq!(output(&*b, &["echo", "b"]).await, "b\n");
    drop(cleanup.1);
    assert!(!one.state.exists());
}

async fn broken_agent() {
    let ground = Ground::new(9);
    let _cleanup = Cleanup(&ground);
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    let mut request = ground.request(0);
    request.agent = ground.state.join("no-program");
    let Err(problem) = ground.provider.ensure_node(&request).await else { panic!("it runs") };
    assert_eq!(problem.code, "provider.linux.agent");
    assert!(problem.message.contains("no-program"), "{problem:?}");
    let links = traces(&ground).into_iter().filter(|trace| trace.contains("node-0@")).count();
    assert_eq!(links, 0);
    let mut request = ground.request(0);
    request.image.rootfs = ground.state.join("no-image");
    let Err(problem) = ground.provider.ensure_node(&request).await else { panic!("it runs") };
    assert_eq!(problem.code, "provider.linux.no_overlay");
    assert!(problem.message.contains("no-image"), "{problem:?}");
    start(&ground, 0).await;
}

async fn inherited() {
    let ground = Ground::new(10);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let process = exec(&*node, Stdio::Inherited, &["sh", "-c", "exit 9"]).await;
    assert!(process.stdin.is_none() && process.stdout.is_none() && process.stderr.is_none());
    assert_eq!(process.exit.await.unwrap(), 9);
}

async fn survey() {
    let before = machine();
    let ground = Ground::new(11);
    let survey = ground.provider.survey().await.unwrap();
    assert_eq!(survey.unmet(), []);
    assert!(survey.needs.len() >= 15, "{:#?}", survey.needs);
    assert!(survey.facts.occupied.values().any(|text| text.starts_with("route through")));
    assert_eq!(machine(), before);
    assert!(!ground.state.exists());
    let _cleanup = Cleanup(&ground);
    start(&ground, 0).await;
    let occupied = ground.provider.survey().await.unwrap().facts.occupied;
    let own = format!("cluster {}", ground.cluster);
    assert_eq!(occupied[&ground.addresses().primary().network], own);
}
