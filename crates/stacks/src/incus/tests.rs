//! What is rendered, as documents, and what holds for every cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use bivouac_spec::cluster::{
    InstanceProfile, NodeGroup, Role, Stack as Chosen, StorageDriver, parse,
};
use bivouac_spec::facts::{Applied, CgroupVersion};
use bivouac_spec::network::{Families, NodeAddresses, NodeNetwork};
use bivouac_spec::node::graph::check_units;
use bivouac_spec::node::{Content, FileKind, Run};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Addresses, Cluster, Facts, NodeConfig, NodeName};

use super::preseed;
use crate::stack::{Access, Change, Keys, RenderRequest, Stack, open};

mod scripts;

/// A cluster on a ground.
struct Bench {
    cluster: Cluster,
    addresses: Addresses,
    facts: Facts,
    joined: BTreeSet<NodeName>,
}

impl Bench {
    fn new(count: u32) -> Self {
        let mut cluster = Cluster::named("lab".parse().unwrap());
        cluster.spec.stack = Chosen::Incus(bivouac_spec::cluster::Incus::default());
        cluster.spec.nodes = vec![NodeGroup::new(Role::Member, count)];
        let addresses = addresses(&cluster);
        Self { cluster, addresses, facts: facts(), joined: BTreeSet::new() }
    }

    fn joining(mut self, nodes: &[&str]) -> Self {
        self.joined = nodes.iter().map(|node| node.parse().unwrap()).collect();
        self
    }

    fn settings(&mut self) -> &mut bivouac_spec::cluster::Incus {
        match &mut self.cluster.spec.stack {
            Chosen::Incus(settings) => settings,
            Chosen::Kubernetes(_) => panic!("another stack"),
        }
    }

    fn stack(&self) -> Box<dyn Stack> {
        open(&self.cluster.spec.stack)
    }

    fn request(&self) -> RenderRequest<'_> {
        let Self { cluster, addresses, facts, joined } = self;
        RenderRequest { cluster, addresses, facts, joined }
    }

    fn keys(&self, existing: Option<Keys>) -> Keys {
        self.stack().ensure_keys(existing, &self.request(), now()).unwrap()
    }

    fn render(&self, keys: &Keys) -> BTreeMap<NodeName, NodeConfig> {
        self.stack().render(&self.request(), keys).unwrap()
    }

    fn config(&self, node: &str) -> NodeConfig {
        self.render(&self.keys(None)).remove(&node.parse::<NodeName>().unwrap()).unwrap()
    }
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn addresses(cluster: &Cluster) -> Addresses {
    let node = |(index, node): (usize, bivouac_spec::cluster::NodeSpec)| {
        let addresses = Families::single(format!("10.89.0.{}", index + 2).parse().unwrap());
        let pod_networks = vec![format!("10.244.{index}.0/24").parse().unwrap()];
        (node.name, NodeAddresses { addresses, pod_networks })
    };
    let (network, gateway) = ("10.89.0.0/24".parse().unwrap(), "10.89.0.1".parse().unwrap());
    Addresses {
        node_networks: Families::single(NodeNetwork { network, gateway }),
        pod_networks: vec!["10.244.0.0/16".parse().unwrap()],
        service_networks: vec!["10.96.0.0/16".parse().unwrap()],
        nodes: cluster.nodes().into_iter().enumerate().map(node).collect(),
    }
}

fn facts() -> Facts {
    Facts {
        kernel: "6.18.0".to_owned(),
        architecture: "amd64".to_owned(),
        cpus: 2,
        memory: Bytes(8 << 30),
        disk_free: Bytes(50 << 30),
        cgroup: CgroupVersion::V1,
        raises_limits: false,
        shares_kernel: true,
        shares_images: true,
        open_files: 524_288,
        occupied: BTreeMap::new(),
        reaches_nodes: true,
        shares_network: true,
        file_systems: ["btrfs".to_owned()].into(),
        identity: String::new(),
        place: String::new(),
        remote: false,
        remakes_for: Vec::new(),
        no_disks: None,
    }
}

/// The config as a document, without keys and what differs from run to run.
fn document(mut config: NodeConfig) -> serde_json::Value {
    for file in &mut config.files {
        if let FileKind::Regular(Content(content)) = &mut file.kind {
            if content.starts_with("-----BEGIN") {
                "(a certificate or its key)".clone_into(content);
            }
            let lines = content.lines().map(|line| match line.split_once("ertificate\": \"") {
                Some((name, _)) => format!("{name}ertificate\": (a certificate)"),
                None => line.to_owned(),
            });
            *content = lines.collect::<Vec<_>>().join("\n");
        }
    }
    serde_json::to_value(&config).unwrap()
}

#[test]
fn a_founder_is_rendered() {
    insta::assert_json_snapshot!(document(Bench::new(3).config("member-0")));
}

#[test]
fn founders_join_one_after_another() {
    let bench = Bench::new(3);
    insta::assert_json_snapshot!(document(bench.config("member-2")));
    let before: Vec<String> = ["member-0", "member-1", "member-2"]
        .into_iter()
        .map(|node| command(&bench.config(node), "cluster").get(6).cloned().unwrap_or_default())
        .collect();
    assert_eq!(before[1..], ["member-0", "member-1"]);
}

#[test]
fn who_comes_later_asks_whoever_answers_and_waits_for_nobody() {
    let config = Bench::new(4).joining(&["member-0", "member-3"]).config("member-3");
    let joins: Vec<&str> = config
        .files
        .iter()
        .filter_map(|file| file.path.as_str().strip_prefix("/etc/incus/join/"))
        .collect();
    assert_eq!(joins, ["member-0.json", "member-1.json", "member-2.json"]);
    assert_eq!(command(&config, "cluster")[5..7], ["member-3", ""]);
}

fn command(config: &NodeConfig, task: &str) -> Vec<String> {
    let task = config.tasks.iter().find(|one| one.name == task).unwrap();
    let Run::Command(command) = &task.run else { panic!("no command") };
    command.clone()
}

#[test]
fn exactly_one_makes_the_cluster_unless_it_is_there() {
    let founders = |bench: &Bench| -> Vec<String> {
        let configs = bench.render(&bench.keys(None));
        let founds = |config: &NodeConfig| config.tasks.iter().any(|task| task.name == "image");
        let founders = configs.iter().filter(|(_, config)| founds(config));
        founders.map(|(name, _)| name.to_string()).collect()
    };
    assert_eq!(founders(&Bench::new(1)), ["member-0"]);
    assert_eq!(founders(&Bench::new(5)), ["member-0"]);
    // Not even one that loses its data later.
    assert!(founders(&Bench::new(3).joining(&["member-0"])).is_empty());
    assert!(founders(&Bench::new(3).joining(&["member-2"])).is_empty());
    assert!(founders(&Bench::new(2).joining(&["member-0", "member-1"])).is_empty());
}

#[test]
fn every_config_can_be_brought_up_and_keeps_its_keys() {
    for count in 1..5 {
        for joined in [&[][..], &["member-0"], &["member-1"]] {
            let bench = Bench::new(count).joining(joined);
            let keys = bench.keys(None);
            let configs = bench.render(&keys);
            assert_eq!(configs, bench.render(&keys));
            assert_eq!(configs.len(), count as usize);
            for config in configs.values() {
                assert_eq!(check_units(config), Vec::<String>::new());
                for file in &config.files {
                    let FileKind::Regular(Content(content)) = &file.kind else { continue };
                    // What users write as options may be passwords.
                    let settings = [super::places::PRESEED, super::places::OPTIONS];
                    let is_secret =
                        content.contains("PRIVATE KEY") || settings.contains(&file.path.as_str());
                    assert_eq!(is_secret, file.mode == 0o600, "{}", file.path);
                }
                let mut rest = config.clone();
                rest.files.clear();
                assert!(!serde_json::to_string(&rest).unwrap().contains("BEGIN"));
            }
        }
    }
}

#[test]
fn keys_come_with_members_and_stay() {
    let three = Bench::new(3);
    let keys = three.keys(None);
    assert_eq!(three.keys(Some(keys.clone())), keys);
    let four = Bench::new(4).keys(Some(keys.clone()));
    assert_ne!(four, keys);
    // Who goes is known by the same certificate as long as it is there.
    assert_eq!(three.keys(Some(four.clone())), four);
    let stale = Bench::new(4);
    assert_eq!(
        stale.stack().render(&stale.request(), &keys).unwrap_err().code,
        "stack.incus.stale_keys"
    );
    let broken = Keys(serde_json::json!({"cluster": 1}));
    let problem = three.stack().render(&three.request(), &broken).unwrap_err();
    assert_eq!(problem.code, "stack.incus.keys_unreadable");
}

#[test]
fn one_more_member_starts_no_daemon_anew() {
    let (three, four) = (Bench::new(3), Bench::new(4).joining(&["member-3"]));
    let keys = four.keys(None);
    let (before, after) = (three.render(&keys), four.render(&keys));
    for (name, before) in before {
        let after = &after[&name];
        let restarted: Vec<&str> = before
            .services
            .iter()
            .zip(&after.services)
            .filter(|(before, after)| !before.runs_as(after))
            .map(|(before, _)| before.name.as_str())
            .collect();
        assert_eq!(restarted, ["lan-names", "guard"], "{name}");
    }
}

#[test]
fn members_that_come_and_go_are_told_to_others() {
    let bench = Bench::new(3).joining(&["member-2"]);
    let node = "member-2".parse().unwrap();
    let request = bench.request();
    let applied = Applied::new(request.cluster.clone(), request.addresses.clone());
    for change in [Change::Joins(&node), Change::Leaves(&applied.members[&node])] {
        let steps = bench.stack().steps(&bench.request(), &change).unwrap();
        let [step] = &steps[..] else { panic!("{steps:?}") };
        assert_eq!(
            step.nodes.iter().map(NodeName::as_str).collect::<Vec<_>>(),
            ["member-0", "member-1"]
        );
        assert_eq!(step.command[4], "member-2");
    }
    let nothing = bench.stack().steps(&bench.request(), &Change::Changed(&bench.cluster)).unwrap();
    assert_eq!(nothing, []);
}

#[test]
fn profiles_and_options_are_merged_by_name() {
    let mut bench = Bench::new(1);
    let settings = bench.settings();
    let map = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let profile = |name: &str, config, device: &str| InstanceProfile {
        name: name.to_owned(),
        description: String::new(),
        config,
        devices: [(device.to_owned(), map("size", "8GiB"))].into(),
    };
    settings.profiles = vec![
        profile("default", map("limits.cpu", "1"), "root"),
        profile("large", map("limits.cpu", "4"), "scratch"),
    ];
    settings.config = map("images.auto_update_interval", "0");
    settings.storage.driver = StorageDriver::Btrfs;
    settings.storage.size = Some(Bytes(8 << 30));
    insta::assert_json_snapshot!("options", preseed::options(settings));
    let config = bench.config("member-0");
    let file = config.files.iter().find(|file| file.path.ends_with("preseed.json")).unwrap();
    let FileKind::Regular(Content(content)) = &file.kind else { panic!("no file") };
    let preseed: serde_json::Value = serde_json::from_str(content).unwrap();
    insta::assert_json_snapshot!("preseed", preseed);
}

#[test]
fn what_a_user_writes_as_options_is_in_no_argument() {
    let mut bench = Bench::new(2);
    let secret = || BTreeMap::from([("user.word".to_owned(), "it's secret".to_owned())]);
    let settings = bench.settings();
    settings.config = secret();
    settings.profiles = vec![InstanceProfile {
        name: "default".to_owned(),
        description: String::new(),
        config: secret(),
        devices: BTreeMap::new(),
    }];
    for mut config in bench.render(&bench.keys(None)).into_values() {
        config.files.clear();
        assert!(!serde_json::to_string(&config).unwrap().contains("secret"), "{}", config.node);
    }
}

#[test]
fn a_pool_that_the_ground_cannot_have_is_refused() {
    let refused = |driver, file_systems: &[&str]| {
        let mut bench = Bench::new(1);
        bench.settings().storage.driver = driver;
        bench.facts.file_systems = file_systems.iter().map(|name| (*name).to_owned()).collect();
        let made = bench.stack().ensure_keys(None, &bench.request(), now());
        made.err().map(|problem| (problem.code, problem.class.exit_code()))
    };
    let code = |code: &str, exit| Some((code.into(), exit));
    assert_eq!(refused(StorageDriver::Dir, &[]), None);
    assert_eq!(refused(StorageDriver::Btrfs, &["btrfs", "ext4"]), None);
    assert_eq!(refused(StorageDriver::Btrfs, &["ext4"]), code("stack.incus.no_file_system", 3));
    assert_eq!(refused(StorageDriver::Zfs, &["zfs"]), code("stack.incus.no_storage_tools", 2));
}

#[test]
fn a_pool_in_a_file_has_its_devices_before_the_daemon_starts() {
    let mut bench = Bench::new(1);
    let after = |bench: &Bench| {
        let config = bench.config("member-0");
        assert_eq!(check_units(&config), Vec::<String>::new());
        config.services.into_iter().find(|service| service.name == "incusd").unwrap().after
    };
    assert!(!after(&bench).contains(&"loop-devices".to_owned()));
    bench.settings().storage.driver = StorageDriver::Btrfs;
    assert!(after(&bench).contains(&"loop-devices".to_owned()));
}

#[test]
fn zones_and_labels_are_told_to_the_cluster() {
    let mut bench = Bench::new(2);
    bench.cluster.spec.nodes[0].zones = vec!["a".to_owned(), "b".to_owned()];
    bench.cluster.spec.nodes[0].labels = [("disk".to_owned(), "fast".to_owned())].into();
    assert_eq!(
        command(&bench.config("member-1"), "member")[4..],
        ["member-1", "b", "user.disk=fast"]
    );
}

#[test]
fn the_user_gets_the_way_to_the_first_member() {
    let bench = Bench::new(2);
    let keys = bench.keys(None);
    let Access::Incus(access) = bench.stack().access(&bench.request(), &keys).unwrap() else {
        panic!("another stack")
    };
    assert_eq!(
        (access.node.as_str(), access.address.to_string().as_str()),
        ("member-0", "10.89.0.2:8443")
    );
    assert!(access.certificate.contains("BEGIN CERTIFICATE"));
}

#[test]
fn a_guard_that_watches_nothing_is_not_there() {
    let text = "apiVersion: bivouac.dev/v1alpha1\nkind: Cluster\nspec:\n  stack: {incus: {guard: {memory: {interval: 0s}, health: {interval: 0s}}}}\n";
    let cluster = parse(text, "a.yaml").unwrap();
    let addresses = addresses(&cluster);
    let bench = Bench { cluster, addresses, facts: facts(), joined: BTreeSet::new() };
    assert!(bench.config("member-0").services.iter().all(|service| service.name != "guard"));
}

#[test]
fn scripts_are_scripts() {
    let configs = ["member-0", "member-1"].map(|member| Bench::new(2).config(member));
    let of_tasks = configs.iter().flat_map(|config| &config.tasks);
    let of_tasks = of_tasks.filter_map(|task| match &task.run {
        Run::Command(command) => Some(command.clone()),
        _ => None,
    });
    let of_services = configs.iter().flat_map(|config| &config.services);
    let of_services = of_services.map(|service| service.command.clone());
    let scripts: Vec<_> =
        of_tasks.chain(of_services).filter(|command| command[0] == "/bin/sh").collect();
    assert!(scripts.len() >= 8);
    for script in scripts {
        let checked = std::process::Command::new("/bin/sh").args(["-n", "-c", &script[2]]).status();
        assert!(checked.unwrap().success(), "{}", script[3]);
    }
}

#[test]
fn a_copy_stays_the_cluster_that_it_is_of() {
    let bench = Bench::new(3);
    assert_eq!(bench.stack().data(), ["/var"]);
    let problem = bench.stack().fork_joins(&bench.cluster).unwrap_err();
    assert_eq!(problem.code, "stack.incus.fork");
    let before = Applied::new(bench.cluster.clone(), bench.addresses.clone());
    assert_eq!(bench.stack().fork(&before, &bench.request()), Err(problem));
}
