//! A ground to test on: a folder of its own, a minimal image, and a look at the whole machine before and after.

use std::collections::BTreeSet;
use std::process::Command;

use bivouac_provider::{ImagePaths, NetworkRequest, NodeRequest};
use bivouac_providers::linux::{LinuxProvider, LinuxRequest, open};
use bivouac_spec::cluster::Resources;
use bivouac_spec::network::{Families, NodeAddresses, NodeNetwork};
use bivouac_spec::node::config::FORMAT;
use bivouac_spec::quantity::{Bytes, Cpus};
use bivouac_spec::{Addresses, ClusterName, NodeConfig, NodeName};
use camino::{Utf8Path, Utf8PathBuf};

use crate::tool;

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Four,
    Six,
}

/// One test's folder and cluster.
pub(crate) struct Ground {
    pub(crate) state: Utf8PathBuf,
    pub(crate) cluster: ClusterName,
    pub(crate) provider: LinuxProvider,
    octet: u8,
    families: &'static [Family],
    image: Utf8PathBuf,
    _dir: tempfile::TempDir,
}

impl Ground {
    /// A fresh one; `octet` keeps the networks of tests that run at the same time apart.
    pub(crate) fn new(octet: u8) -> Self {
        Self::of(octet, &[Family::Four])
    }

    /// One of these families, the preferred one first.
    pub(crate) fn of(octet: u8, families: &'static [Family]) -> Self {
        let dir = tempfile::Builder::new().prefix("bivouac-test").tempdir().unwrap();
        let base = Utf8Path::from_path(dir.path()).unwrap().to_owned();
        let (state, image) = (base.join("state"), base.join("image"));
        make_image(&image);
        let cluster = format!("test-{}-{octet}", std::process::id()).parse().unwrap();
        let provider = open(LinuxRequest { state: state.clone() });
        Self { state, cluster, provider, octet, families, image, _dir: dir }
    }

    /// Uses the folder of another ground, as all clusters of a machine do.
    pub(crate) fn share_state(&mut self, other: &Self) {
        self.state.clone_from(&other.state);
        self.provider = open(LinuxRequest { state: self.state.clone() });
    }

    pub(crate) fn node(&self, index: u8) -> NodeName {
        format!("node-{index}").parse().unwrap()
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses_of(&[0, 1])
    }

    /// The same with these nodes.
    pub(crate) fn addresses_of(&self, nodes: &[u8]) -> Addresses {
        let octet = self.octet;
        let node = |index: &u8| {
            let addresses = self.each(
                || format!("10.203.{octet}.{}", index + 2),
                || format!("fd00:b1:{octet:x}::{:x}", index + 2),
            );
            let pod_networks = self.each(
                || format!("10.{}.{index}.0/24", 204 + octet % 40),
                || format!("fd00:b2:{octet:x}:{index:x}::/64"),
            );
            (self.node(*index), NodeAddresses { addresses, pod_networks: pod_networks.into() })
        };
        let networks: Vec<_> = Vec::from(self.each::<ipnet::IpNet>(
            || format!("10.203.{octet}.0/24"),
            || format!("fd00:b1:{octet:x}::/64"),
        ));
        let gateways = Vec::from(self.each::<std::net::IpAddr>(
            || format!("10.203.{octet}.1"),
            || format!("fd00:b1:{octet:x}::1"),
        ));
        let networks = networks.into_iter().zip(gateways);
        let networks: Vec<_> =
            networks.map(|(network, gateway)| NodeNetwork { network, gateway }).collect();
        Addresses {
            node_networks: networks.try_into().unwrap(),
            pod_networks: Vec::from(self.each(
                || format!("10.{}.0.0/16", 204 + octet % 40),
                || format!("fd00:b2:{octet:x}::/56"),
            )),
            service_networks: Vec::from(
                self.each(|| "10.96.0.0/16".into(), || "fd00:b3::/112".into()),
            ),
            nodes: nodes.iter().map(node).collect(),
        }
    }

    /// A value of each family of the cluster.
    fn each<T: std::str::FromStr<Err: std::fmt::Debug>>(
        &self,
        four: impl Fn() -> String,
        six: impl Fn() -> String,
    ) -> Families<T> {
        let text = |family: &Family| match family {
            Family::Four => four(),
            Family::Six => six(),
        };
        let values: Vec<T> = self.families.iter().map(|one| text(one).parse().unwrap()).collect();
        values.try_into().unwrap()
    }

    pub(crate) fn network(&self) -> NetworkRequest {
        let (cluster, addresses) = (self.cluster.clone(), self.addresses());
        NetworkRequest { cluster, addresses, ports: Vec::new() }
    }

    pub(crate) fn request(&self, index: u8) -> NodeRequest {
        let node = self.node(index);
        let config = NodeConfig {
            format: FORMAT,
            cluster: self.cluster.clone(),
            node: node.clone(),
            modules: Vec::new(),
            sysctls: Vec::new(),
            mounts: Vec::new(),
            files: Vec::new(),
            services: Vec::new(),
            tasks: Vec::new(),
            conditions: Vec::new(),
        };
        NodeRequest {
            cluster: self.cluster.clone(),
            node,
            addresses: self.addresses(),
            ports: Vec::new(),
            resources: Resources {
                cpus: Some(Cpus(1500)),
                memory: Some(Bytes(1 << 30)),
                disk: None,
            },
            image: ImagePaths {
                key: "test".to_owned(),
                digest: "sha256:test".to_owned(),
                layout: self.image.join("layout"),
                layers: Vec::new(),
                rootfs: self.image.join("rootfs"),
                shared_images: self.image.join("shared"),
                shared_cache: self.image.join("cache"),
            },
            agent: Utf8PathBuf::from_path_buf(std::env::current_exe().unwrap()).unwrap(),
            config,
        }
    }
}

/// Folders as Debian has them, and this test as every program.
fn make_image(image: &Utf8Path) {
    let rootfs = image.join("rootfs");
    for folder in ["usr/bin", "usr/lib", "usr/local/bin", "etc", "var/lib", "root"] {
        std::fs::create_dir_all(rootfs.join(folder)).unwrap();
    }
    for folder in ["bin", "lib"] {
        std::os::unix::fs::symlink(format!("usr/{folder}"), rootfs.join(folder)).unwrap();
    }
    std::fs::copy(std::env::current_exe().unwrap(), rootfs.join("usr/bin/tool")).unwrap();
    for name in tool::NAMES {
        std::os::unix::fs::symlink("tool", rootfs.join("usr/bin").join(name)).unwrap();
    }
    std::fs::create_dir_all(image.join("shared")).unwrap();
}

/// What this command says in the network of a process.
pub(crate) fn in_network(pid: u32, command: &str) -> String {
    let command = format!("nsenter -t {pid} -n {command}");
    let output = Command::new("sh").args(["-c", &command]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Everything on the machine that could be left behind by the cluster of this name.
pub(crate) fn traces(ground: &Ground) -> BTreeSet<String> {
    let name = ground.cluster.as_str();
    let mut traces = BTreeSet::new();
    let mut note = |what: &str, text: &str, needle: &str| {
        let lines = text.lines().filter(|line| line.contains(needle));
        traces.extend(lines.map(|line| format!("{what}: {}", line.trim())));
    };
    let run = |command: &str| {
        let output = Command::new("sh").args(["-c", command]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    note("link", &run("ip -details link").replace("\n    ", " "), name);
    note("address", &run("ip address"), &format!("10.203.{}.", ground.octet));
    note("route", &run("ip route"), &format!("10.203.{}.", ground.octet));
    let (nodes, pods) =
        (format!("fd00:b1:{:x}:", ground.octet), format!("fd00:b2:{:x}:", ground.octet));
    note("address", &run("ip -6 address"), &nodes);
    note("route", &run("ip -6 route show table all"), &nodes);
    note("route", &run("ip -6 route show table all"), &pods);
    note("table", &run("nft list tables"), name);
    note("rule", &run("nft list ruleset"), &format!("bivouac:{name}\""));
    note("cgroup", &run("find /sys/fs/cgroup -type d"), name);
    note("process", &run("ps -eo pid,args"), &format!("--label {name}"));
    note("mount", &std::fs::read_to_string("/proc/self/mountinfo").unwrap(), ground.state.as_str());
    if ground.state.exists() {
        note("file", &run(&format!("find {}", ground.state)), "");
    }
    traces
}

/// What must be the same on the machine before and after. Clusters of others, which come and go meanwhile, are left out.
pub(crate) fn machine() -> String {
    let command = "ip -brief link | cut -d' ' -f1 | grep -v '^bv'; ip route | grep -v ' dev bv'; \
                   ip -6 route | grep -v ' dev bv' | sed 's/ expires [0-9]*sec//'; \
                   nft list tables | grep -v ' bivouac-'; grep -c . /proc/self/mountinfo; \
                   find /sys/fs/cgroup -type d -name 'bivouac-survey*'; ls /tmp | grep bivouac-survey; \
                   ip -brief link | grep -q '^bv-' || \
                   grep . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv6/conf/*/*forwarding \
                   /proc/sys/net/ipv6/conf/*/accept_ra | grep -v /bv";
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}
