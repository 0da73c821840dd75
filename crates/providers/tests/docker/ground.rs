//! A ground to test on: an engine, a folder, and a minimal image.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use bivouac_e2e::Engine;
use bivouac_provider::{ImagePaths, ImageRequest, LayerPath, NetworkRequest, NodeRequest};
use bivouac_providers::docker::compose::{self, ComposeProvider, ComposeRequest};
use bivouac_providers::docker::{DockerProvider, DockerRequest, EngineEnvironment, open};
use bivouac_spec::cluster::Resources;
use bivouac_spec::network::{Families, NodeAddresses, NodeNetwork};
use bivouac_spec::node::config::FORMAT;
use bivouac_spec::node::paths;
use bivouac_spec::quantity::{Bytes, Cpus};
use bivouac_spec::{Addresses, ClusterName, NodeConfig, NodeName};
use camino::{Utf8Path, Utf8PathBuf};
use sha2::{Digest as _, Sha256};

use crate::tool;

/// Where the `docker compose` command is. When absent, the user has it, or there is none.
const COMPOSE: &str = "BIVOUAC_E2E_COMPOSE";

/// Whether there is a `docker compose` command. In CI there must be.
pub(crate) fn has_compose() -> bool {
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
    is_ci || found_compose().is_some()
}

/// The command.
///
/// # Panics
/// When there is none.
pub(crate) fn compose_program() -> PathBuf {
    let found = found_compose();
    found.unwrap_or_else(|| {
        panic!("there is no `docker compose`: run `make test`, or name one in ${COMPOSE}")
    })
}

fn found_compose() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os(COMPOSE) {
        return Some(program.into());
    }
    // Where `docker` itself finds it.
    let format = "{{range .ClientInfo.Plugins}}{{if eq .Name \"compose\"}}{{.Path}}{{end}}{{end}}";
    let info = Command::new("docker").args(["info", "--format", format]).output().ok()?;
    let path = String::from_utf8_lossy(&info.stdout).trim().to_owned();
    (!path.is_empty()).then(|| path.into())
}

/// One test's cluster.
pub(crate) struct Ground {
    pub(crate) engine: &'static Engine,
    pub(crate) cluster: ClusterName,
    pub(crate) provider: DockerProvider,
    octet: u8,
    image: ImagePaths,
    base: Utf8PathBuf,
    _dir: tempfile::TempDir,
}

impl Ground {
    /// A fresh one; `octet` keeps the networks of tests apart.
    pub(crate) fn new(octet: u8) -> Self {
        let engine = Engine::shared();
        let dir = tempfile::Builder::new().prefix("bivouac-test").tempdir_in("/var/tmp").unwrap();
        let base = Utf8Path::from_path(dir.path()).unwrap().to_owned();
        let image = image_in(&base);
        let cluster = format!("test-{}-{octet}", std::process::id()).parse().unwrap();
        let provider = provider(engine.host());
        Self { engine, cluster, provider, octet, image, base, _dir: dir }
    }

    pub(crate) fn node(&self, index: u8) -> NodeName {
        format!("node-{index}").parse().unwrap()
    }

    /// The name of a node's container and volume.
    pub(crate) fn container(&self, index: u8) -> String {
        format!("bivouac-{}.{}", self.cluster, self.node(index))
    }

    pub(crate) fn addresses(&self) -> Addresses {
        let node = |index: u8| {
            let address = format!("10.202.{}.{}", self.octet, index + 2).parse().unwrap();
            let pods = format!("10.{}.{index}.0/24", 160 + self.octet % 40).parse().unwrap();
            let addresses = Families::single(address);
            (self.node(index), NodeAddresses { addresses, pod_networks: vec![pods] })
        };
        Addresses {
            node_networks: Families::single(NodeNetwork {
                network: format!("10.202.{}.0/24", self.octet).parse().unwrap(),
                gateway: format!("10.202.{}.1", self.octet).parse().unwrap(),
            }),
            pod_networks: vec![format!("10.{}.0.0/16", 160 + self.octet % 40).parse().unwrap()],
            service_networks: vec!["10.96.0.0/16".parse().unwrap()],
            nodes: (0..2).map(node).collect(),
        }
    }

    /// Addresses of IPv6 only.
    pub(crate) fn ipv6(&self) -> Addresses {
        let octet = self.octet;
        let mut addresses = self.addresses();
        addresses.node_networks = Families::single(NodeNetwork {
            network: format!("fd00:202:{octet}::/64").parse().unwrap(),
            gateway: format!("fd00:202:{octet}::1").parse().unwrap(),
        });
        addresses.pod_networks = vec![format!("fd00:160:{octet}::/48").parse().unwrap()];
        for (index, node) in (0..).zip(addresses.nodes.values_mut()) {
            let address = format!("fd00:202:{octet}::{}", index + 2).parse().unwrap();
            node.addresses = Families::single(address);
            node.pod_networks = vec![format!("fd00:160:{octet}:{index}::/64").parse().unwrap()];
        }
        addresses
    }

    /// Addresses of both families, IPv4 first.
    pub(crate) fn dual_stack(&self) -> Addresses {
        let (mut both, ipv6) = (self.addresses(), self.ipv6());
        both.node_networks.secondary = Some(ipv6.node_networks.primary);
        both.pod_networks.extend(ipv6.pod_networks);
        for (name, node) in &mut both.nodes {
            let other = &ipv6.nodes[name];
            node.addresses.secondary = Some(other.primary());
            node.pod_networks.extend(other.pod_networks.clone());
        }
        both
    }

    pub(crate) fn network(&self) -> NetworkRequest {
        let (cluster, addresses) = (self.cluster.clone(), self.addresses());
        NetworkRequest { cluster, addresses, ports: Vec::new() }
    }

    pub(crate) fn image(&self) -> ImageRequest {
        let agent = Utf8PathBuf::from_path_buf(std::env::current_exe().unwrap()).unwrap();
        ImageRequest { image: self.image.clone(), agent }
    }

    /// The provider that makes containers by `docker compose`, over the same engine.
    pub(crate) fn compose(&self) -> ComposeProvider {
        self.compose_over(self.engine.host())
    }

    /// The same over another engine.
    pub(crate) fn compose_over(&self, host: &str) -> ComposeProvider {
        let mut docker = asked("compose", host);
        let settings = self.base.join("docker");
        let program = settings.join("cli-plugins/docker-compose");
        if !program.exists() {
            std::fs::create_dir_all(settings.join("cli-plugins")).unwrap();
            symlink(compose_program(), &program).unwrap();
        }
        docker.environment.config = Some(settings);
        compose::open(ComposeRequest { docker, projects: self.base.join("projects") })
    }

    /// A path in the folder of the test.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(name).into()
    }

    /// The same image with another agent.
    pub(crate) fn other_image(&self) -> ImageRequest {
        let agent = self.base.join("other-agent");
        let mut bytes = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        bytes.extend(b"other");
        std::fs::write(&agent, bytes).unwrap();
        ImageRequest { image: self.image.clone(), agent }
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
        let ImageRequest { image, agent } = self.image();
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
            image,
            agent,
            config,
        }
    }

    /// Everything on the engine that has the cluster's name in it.
    pub(crate) fn traces(&self) -> BTreeSet<String> {
        let mut traces = BTreeSet::new();
        let lists: [(&str, &[&str]); 3] = [
            ("container", &["ps", "--all", "--format", "{{.Names}}"]),
            ("volume", &["volume", "ls", "--format", "{{.Name}}"]),
            ("network", &["network", "ls", "--format", "{{.Name}}"]),
        ];
        for (kind, command) in lists {
            let lines = self.engine.lines(command.iter().copied());
            let own = lines.iter().filter(|line| line.contains(self.cluster.as_str()));
            traces.extend(own.map(|line| format!("{kind} {line}")));
        }
        traces
    }
}

/// The provider over an engine.
pub(crate) fn provider(host: &str) -> DockerProvider {
    open(asked("docker", host))
}

fn asked(name: &'static str, host: &str) -> DockerRequest {
    let environment =
        EngineEnvironment { host: Some(host.to_owned()), ..EngineEnvironment::default() };
    DockerRequest { name, context: None, environment }
}

/// Folders as Debian has them, and this test as every program: one layer, as the store keeps it.
fn image_in(base: &Utf8Path) -> ImagePaths {
    let mut layer = tar::Builder::new(Vec::new());
    let mut append = |kind: tar::EntryType, path: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            layer.append_data(&mut header, path, content).unwrap();
        } else {
            layer.append_link(&mut header, path, link).unwrap();
        }
    };
    let folders =
        ["usr/bin", "usr/lib", "usr/local/bin", "etc/bivouac", "root", "run", "tmp", "lib"];
    let real = paths::REAL_DIRECTORIES.map(|path| path.trim_start_matches('/'));
    for folder in folders.into_iter().chain(real) {
        append(tar::EntryType::Directory, folder, "", &[]);
    }
    append(tar::EntryType::Symlink, "bin", "usr/bin", &[]);
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    append(tar::EntryType::Regular, "usr/bin/tool", "", &program);
    for name in tool::NAMES {
        append(tar::EntryType::Symlink, &format!("usr/bin/{name}"), "tool", &[]);
    }
    let plain = layer.into_inner().unwrap();
    let blob = base.join("layer");
    let mut file = std::fs::File::create(&blob).unwrap();
    file.write_all(&zstd::encode_all(&plain[..], 1).unwrap()).unwrap();
    let digest = format!("sha256:{}", hex::encode(Sha256::digest(&plain)));
    ImagePaths {
        key: "test".to_owned(),
        digest: digest.clone(),
        layout: base.join("layout"),
        layers: vec![LayerPath { blob, diff_id: digest, size: plain.len() as u64 }],
        rootfs: base.join("rootfs"),
        shared_images: base.join("shared"),
        shared_cache: base.join("cache"),
    }
}
