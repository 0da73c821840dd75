//! Nodes that become something else.

use std::process::Command;
use std::time::Duration;

use bivouac_provider::{NetworkRequest, Node, NodeRequest, Provider, Stdio};
use bivouac_spec::cluster::Resources;
use bivouac_spec::facts::ObservedState;
use bivouac_spec::node::File;
use bivouac_spec::quantity::{Bytes, Cpus};
use bivouac_sys::netlink::Route;
use bivouac_sys::nft;
use bivouac_sys::process::{PidFd, Signal};
use camino::Utf8Path;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::cases::{Cleanup, exec, observed, output, pid, start, text};
use crate::ground::{Family, Ground, in_network, traces};

const GRACE: Duration = Duration::from_secs(120);

async fn assert_recorded(ground: &Ground, request: &NodeRequest) {
    let observed = observed(ground).await.unwrap();
    assert_eq!(observed.nodes[&request.node].record, Some(request.record()));
}

fn limits(cpus: Option<u32>, mebibytes: Option<u64>) -> Resources {
    let memory = mebibytes.map(|number| Bytes(number << 20));
    Resources { cpus: cpus.map(Cpus), memory, disk: None }
}

/// The first number after this key.
fn number(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.trim().strip_prefix(key))?;
    rest.split_whitespace().find_map(|word| word.parse().ok())
}

/// The limit of memory, as the node's own group has it.
async fn memory_limit(node: &dyn Node) -> String {
    let mounts = text(node, "/proc/1/mountinfo").await;
    let path = if mounts.contains("cgroup2 cgroup2") {
        "/sys/fs/cgroup/memory.max"
    } else {
        "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    };
    text(node, path).await.trim().to_owned()
}

pub(crate) async fn in_place() {
    let ground = Ground::of(22, &[Family::Four, Family::Six]);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let before = pid(&ground).await;
    let name = &ground.cluster;

    // Another node comes, a third one goes.
    let addresses = ground.addresses_of(&[0, 2]);
    let network = NetworkRequest { addresses: addresses.clone(), ..ground.network() };
    ground.provider.ensure_network(&network).await.unwrap();
    let mut request = NodeRequest { addresses, ..ground.request(0) };
    ground.provider.ensure_node(&request).await.unwrap();
    let hosts = text(&*node, "/etc/hosts").await;
    assert!(hosts.contains(&format!("10.203.22.4 node-2 node-2.{name}\n")), "{hosts}");
    assert!(!hosts.contains("node-1"), "{hosts}");
    for (family, pods) in [("-4", "10.226"), ("-6", "fd00:b2:16:")] {
        let routes = in_network(before, &format!("ip {family} route"));
        let pods: Vec<_> = routes.lines().filter(|line| line.starts_with(pods)).collect();
        assert_eq!(pods.len(), 1, "{routes}");
        assert!(routes.contains("default via"), "{routes}");
    }
    assert_recorded(&ground, &request).await;

    // Limits, both ways and away, and what the node sees of them.
    for resources in [limits(Some(1000), Some(512)), limits(Some(500), Some(768))] {
        request.resources = resources;
        ground.provider.ensure_node(&request).await.unwrap();
        let memory = resources.memory.unwrap().0;
        assert_eq!(memory_limit(&*node).await, memory.to_string());
        let seen = number(&text(&*node, "/proc/meminfo").await, "MemTotal:");
        assert_eq!(seen, Some(memory / 1024));
        let online = text(&*node, "/sys/devices/system/cpu/online").await;
        assert!(online.trim().parse::<u32>().is_ok(), "{online}");
        assert_recorded(&ground, &request).await;
    }
    request.resources = limits(None, None);
    ground.provider.ensure_node(&request).await.unwrap();
    assert_ne!(memory_limit(&*node).await, (768u64 << 20).to_string());
    let host = std::fs::read_to_string("/proc/meminfo").unwrap();
    let seen = text(&*node, "/proc/meminfo").await;
    assert_eq!(number(&seen, "MemTotal:"), number(&host, "MemTotal:"));

    request.config.files.push(File::public("/etc/added", "new"));
    ground.provider.ensure_node(&request).await.unwrap();
    assert_eq!(text(&*node, "/etc/added").await, "new");
    assert_recorded(&ground, &request).await;

    // One that was begun and not ended is done again, as a whole.
    let path = ground.state.join(format!("{name}/nodes/node-0/node.json"));
    let record = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, record.replace(&request.config.digest(), "")).unwrap();
    request.config.files = vec![File::public("/etc/added", "newer")];
    let command = format!("echo damaged > /proc/{before}/root/etc/hosts");
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    ground.provider.ensure_node(&request).await.unwrap();
    assert_eq!(text(&*node, "/etc/added").await, "newer");
    assert_eq!(text(&*node, "/etc/hosts").await, hosts);
    assert_recorded(&ground, &request).await;
    assert_eq!(pid(&ground).await, before);
    let mode = format!("stat -c %a /proc/{before}/root/etc/bivouac/node.json");
    let mode = Command::new("sh").args(["-c", &mode]).output().unwrap();
    assert_eq!(String::from_utf8(mode.stdout).unwrap(), "600\n");

    // A stopped node starts as it is asked for then.
    ground.provider.stop_node(name, &ground.node(0), GRACE).await.unwrap();
    request.resources = limits(Some(1000), Some(600));
    let node = ground.provider.ensure_node(&request).await.unwrap();
    assert_eq!(memory_limit(&*node).await, (600u64 << 20).to_string());
    assert_recorded(&ground, &request).await;
}

pub(crate) async fn refused() {
    let ground = Ground::new(23);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let mut holding = exec(&*node, Stdio::NoInput, &["hold", "96"]).await;
    let mut lines = BufReader::new(holding.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
    let mut request = ground.request(0);
    request.resources.memory = Some(Bytes(64 << 20));
    let Err(problem) = ground.provider.ensure_node(&request).await else { panic!("it is limited") };
    assert_eq!(problem.code, "provider.linux.memory_in_use");
    assert!(problem.message.contains("limited to 64 MiB of memory: it uses "), "{problem:?}");
    // It differs still, and runs on.
    assert_recorded(&ground, &ground.request(0)).await;
    assert_eq!(output(&*node, &["echo", "on"]).await, "on\n");
    drop(holding);
}

pub(crate) async fn anew() {
    let ground = Ground::new(24);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let (data, upper) = (Utf8Path::new("/var/lib/etcd/data"), Utf8Path::new("/etc/upper"));
    for path in [data, upper] {
        node.put(path, 0o600, Box::new(&b"kept"[..])).await.unwrap();
    }
    let before = pid(&ground).await;
    let mut request = ground.request(0);
    request.image.key = "other".to_owned();
    let other = ground.state.with_file_name("other-image");
    assert!(
        Command::new("cp")
            .args(["-a", request.image.rootfs.as_str(), other.as_str()])
            .status()
            .unwrap()
            .success()
    );
    std::fs::write(other.join("etc/release"), "2").unwrap();
    request.image.rootfs = other;
    let node = ground.provider.ensure_node(&request).await.unwrap();
    let after = pid(&ground).await;
    assert_ne!(before, after);
    assert_eq!(text(&*node, "/etc/release").await, "2");
    for path in [data, upper] {
        assert_eq!(text(&*node, path.as_str()).await, "kept");
    }
    assert_recorded(&ground, &request).await;

    // So is one whose agent takes no config while it runs.
    node.put(Utf8Path::new("/etc/old-agent"), 0o600, Box::new(&b""[..])).await.unwrap();
    request.config.files.push(File::public("/etc/added", "new"));
    let node = ground.provider.ensure_node(&request).await.unwrap();
    assert_ne!(pid(&ground).await, after);
    assert!(text(&*node, "/etc/bivouac/node.json").await.contains("/etc/added"));
    assert_recorded(&ground, &request).await;
}

/// What a restart of the host takes away: everything but folders.
pub(crate) async fn rebooted() {
    let ground = Ground::of(25, &[Family::Four, Family::Six]);
    let cleanup = Cleanup(&ground);
    start(&ground, 0).await;
    let node = start(&ground, 1).await;
    let kept = Utf8Path::new("/var/lib/etcd/data");
    node.put(kept, 0o600, Box::new(&b"kept"[..])).await.unwrap();
    let machine_id = text(&*node, "/etc/machine-id").await;
    for node in observed(&ground).await.unwrap().nodes.values() {
        let process = PidFd::open(node.pid.unwrap()).unwrap();
        process.send_signal(Signal::KILL).unwrap();
        process.wait(Some(GRACE)).unwrap();
    }
    nft::destroy_table("inet", &format!("bivouac-{}", ground.cluster)).unwrap();
    let route = Route::open().unwrap();
    for link in route.links().unwrap() {
        let label = format!("bivouac:{}", ground.cluster);
        if link.alias.is_some_and(|alias| alias.starts_with(&label)) {
            route.destroy_link(&link.name).unwrap();
        }
    }
    let groups = format!(
        "find /sys/fs/cgroup -depth -type d -path '*/{}*' -exec rmdir {{}} +",
        ground.cluster
    );
    assert!(Command::new("sh").args(["-c", &groups]).status().unwrap().success());
    let left = traces(&ground);
    // Rules in chains of others would be gone, too.
    let is_there = |trace: &String| trace.starts_with("file: ") || trace.starts_with("rule: ");
    assert!(left.iter().all(is_there), "{left:#?}");
    let found = observed(&ground).await.unwrap();
    assert!(found.nodes.values().all(|node| node.state == ObservedState::Stopped), "{found:?}");

    let (server, client) = (start(&ground, 0).await, start(&ground, 1).await);
    assert_eq!(text(&*client, kept.as_str()).await, "kept");
    assert_eq!(text(&*client, "/etc/machine-id").await, machine_id);
    let own = &ground.addresses().nodes[&ground.node(0)];
    let pods = own.pod_networks.iter().map(|network| network.hosts().nth(5).unwrap());
    for ip in own.addresses.iter().copied().chain(pods) {
        let address = std::net::SocketAddr::new(ip, 8080).to_string();
        let mut serving = exec(&*server, Stdio::NoInput, &["serve", &address]).await;
        let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
        assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
        assert_eq!(output(&*client, &["greet", &address]).await, "hello", "{address}");
    }
    drop(cleanup);
    let left = traces(&ground);
    assert!(left.is_empty(), "{left:#?}");
}

pub(crate) async fn seen() {
    let ground = Ground::new(26);
    let _cleanup = Cleanup(&ground);
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    let request = NodeRequest { resources: limits(Some(700), Some(300)), ..ground.request(0) };
    let node = ground.provider.ensure_node(&request).await.unwrap();
    let meminfo = text(&*node, "/proc/meminfo").await;
    assert_eq!(number(&meminfo, "MemTotal:"), Some(300 << 10));
    assert_eq!(number(&meminfo, "SwapTotal:"), Some(0));
    assert!(number(&meminfo, "MemAvailable:").unwrap() <= 300 << 10);
    assert_eq!(text(&*node, "/proc/swaps").await.lines().count(), 1);
    let pid = pid(&ground).await;
    let folders = |path: &str| {
        let entries = std::fs::read_dir(format!("/proc/{pid}/root{path}")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_cpu =
            |name: &String| name.starts_with("cpu") && name.ends_with(|c: char| c.is_ascii_digit());
        names.filter(is_cpu).count()
    };
    assert_eq!(folders("/sys/devices/system/cpu"), 1);
    if Utf8Path::new("/sys/devices/system/node/node0").exists() {
        assert_eq!(folders("/sys/devices/system/node/node0"), 1);
        let meminfo = text(&*node, "/sys/devices/system/node/node0/meminfo").await;
        assert_eq!(number(&meminfo, "Node 0 MemTotal:"), Some(300 << 10));
        let core = text(&*node, "/sys/devices/system/node/node0/cpu0/topology/core_id").await;
        assert!(core.trim().parse::<u32>().is_ok(), "{core}");
    }
    let processors = text(&*node, "/proc/cpuinfo").await.matches("processor\t:").count();
    assert!(processors <= 1, "{processors}");
    // Whole ones are there, too: pods in user namespaces could mount none of their own without.
    let mounts = text(&*node, "/proc/1/mountinfo").await;
    for whole in ["/run/.kernel/proc", "/run/.kernel/sys"] {
        let is_below = |target: &str| target.starts_with(whole);
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        assert_eq!(targets.filter(|target| is_below(target)).collect::<Vec<_>>(), [whole]);
    }
    // Nothing of how it was made, and nobody can change it.
    assert!(!std::path::Path::new(&format!("/proc/{pid}/root/run/.machine")).exists());
    assert!(std::fs::write(format!("/proc/{pid}/root/proc/meminfo"), "").is_err());
    // The host itself sees all of it.
    let host = number(&std::fs::read_to_string("/proc/meminfo").unwrap(), "MemTotal:");
    assert!(host > Some(300 << 10));
}
