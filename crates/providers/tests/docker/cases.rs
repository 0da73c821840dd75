//! What is tested.

use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use bivouac_provider::conformance::{self, Outcome};
use bivouac_provider::{LogRequest, Node, Progress, Provider, Stdio};
use bivouac_spec::cluster::Protocol;
use bivouac_spec::facts::ObservedState;
use bivouac_spec::node::{Ground as GroundDocument, paths};
use bivouac_spec::quantity::Bytes;
use bivouac_spec::{Class, ObservedNode, PublishedPort};
use camino::Utf8Path;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::ground::{Ground, provider};
use crate::{changes, families, faults};

type Case = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// All tests, by name.
pub(crate) const ALL: [(&str, Case); 25] = [
    ("conforms", || Box::pin(conforms())),
    ("compose_conforms", || Box::pin(compose_conforms())),
    ("a_node_is_remade_around_its_data", || Box::pin(changes::remade())),
    ("a_change_that_fails_is_made_again", || Box::pin(changes::refused())),
    ("limits_come_and_go", || Box::pin(changes::limited())),
    ("less_memory_than_a_node_uses_is_refused", || Box::pin(changes::too_little())),
    ("nodes_of_two_ip_families_reach_each_other", || Box::pin(families::both())),
    ("nodes_of_ipv6_alone_reach_each_other", || Box::pin(families::ipv6_alone())),
    ("nothing_is_left", || Box::pin(nothing_is_left())),
    ("an_engine_that_is_not_there_is_told", || Box::pin(no_engine())),
    ("things_of_others_are_left_alone", || Box::pin(name_taken())),
    ("a_taken_port_is_refused_before_anything_is_made", || Box::pin(port_taken())),
    ("ports_stay_and_lead_to_the_node", || Box::pin(ports())),
    ("an_image_is_brought_once_and_old_ones_go", || Box::pin(images())),
    ("a_stopped_node_has_its_logs", || Box::pin(logs())),
    ("a_paused_node_goes_on", || Box::pin(paused())),
    ("a_node_that_cannot_start_leaves_nothing", || Box::pin(cannot_start())),
    ("an_engine_that_is_too_old_is_told", || Box::pin(faults::too_old())),
    ("an_engine_that_is_lost_midway_is_told", || Box::pin(faults::lost_midway())),
    ("an_engine_that_is_lost_under_compose_is_told", || Box::pin(faults::compose_lost_midway())),
    ("a_full_disk_is_told_and_leaves_nothing", || Box::pin(faults::disk_full())),
    ("a_network_of_somebody_else_is_left_alone", || Box::pin(faults::network_taken())),
    ("images_that_are_built_upon_ours_stay", || Box::pin(faults::built_upon())),
    ("an_image_removed_under_compose_is_brought_again", || Box::pin(faults::compose_image_gone())),
    (RESTART, || Box::pin(restart())),
];

/// Runs over an engine of the tests' own only: somebody else's is not stopped.
pub(crate) const RESTART: &str = "nodes_come_back_with_the_engine";

/// Cases with this in their names need the `docker compose` command.
pub(crate) const COMPOSE: &str = "compose";

const GRACE: Duration = Duration::from_secs(20);

/// Removes the cluster when the test panics, too.
pub(crate) struct Cleanup<'a>(pub(crate) &'a Ground);

impl Drop for Cleanup<'_> {
    fn drop(&mut self) {
        remove(self.0, &self.0.provider);
    }
}

/// The same for what was made by `docker compose`, which the other provider leaves alone.
pub(crate) struct ComposeCleanup<'a>(pub(crate) &'a Ground);

impl Drop for ComposeCleanup<'_> {
    fn drop(&mut self) {
        remove(self.0, &self.0.compose());
    }
}

fn remove(ground: &Ground, provider: &dyn Provider) {
    std::thread::scope(|scope| {
        let end = scope.spawn(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(provider.destroy_cluster(&ground.cluster))
        });
        if let Err(problem) = end.join().unwrap() {
            assert!(std::thread::panicking(), "{problem:?}");
        }
    });
}

async fn prepare(ground: &Ground) {
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    ground.provider.ensure_network(&ground.network()).await.unwrap();
}

pub(crate) async fn start(ground: &Ground, index: u8) -> std::sync::Arc<dyn Node> {
    prepare(ground).await;
    ground.provider.ensure_node(&ground.request(index)).await.unwrap()
}

pub(crate) async fn text(mut reader: bivouac_provider::Reader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).await.unwrap();
    text
}

pub(crate) async fn observed(ground: &Ground, index: u8) -> Option<ObservedNode> {
    let clusters = ground.provider.observe().await.unwrap();
    let cluster = clusters.into_iter().find(|cluster| cluster.name == ground.cluster)?;
    cluster.nodes.get(&ground.node(index)).cloned()
}

async fn conforms() {
    let ground = Ground::new(1);
    let _cleanup = Cleanup(&ground);
    conform(&ground, &ground.provider).await;
}

async fn compose_conforms() {
    let ground = Ground::new(3);
    let _cleanup = ComposeCleanup(&ground);
    conform(&ground, &ground.compose()).await;
    assert_eq!(ground.traces().len(), 0, "{:?}", ground.traces());
}

async fn conform(ground: &Ground, provider: &dyn Provider) {
    provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    let nodes = vec![ground.request(0), ground.request(1)];
    let suite = conformance::Ground { network: ground.network(), nodes };
    let report = conformance::run(provider, &suite).await;
    assert_eq!(report.failures().collect::<Vec<_>>(), []);
    assert_eq!(report.count(|outcome| *outcome == Outcome::Passed), conformance::ALL.len());
}

async fn nothing_is_left() {
    let ground = Ground::new(2);
    let _cleanup = Cleanup(&ground);
    assert_eq!(ground.traces().len(), 0);
    start(&ground, 0).await;
    ground.provider.ensure_node(&ground.request(1)).await.unwrap();
    assert_eq!(ground.traces().len(), 5, "{:?}", ground.traces());
    let survey = ground.provider.survey().await.unwrap();
    assert_eq!(survey.unmet(), []);
    let own = format!("cluster {}", ground.cluster);
    assert_eq!(survey.facts.occupied[&ground.addresses().primary().network], own);
    let document = ground.provider.open_node(&ground.cluster, &ground.node(0)).await.unwrap();
    let document = text(document.get(Utf8Path::new(paths::GROUND)).await.unwrap()).await;
    let document: GroundDocument = serde_json::from_str(&document).unwrap();
    assert_eq!(document.routes.len(), 1);
    ground.provider.destroy_cluster(&ground.cluster).await.unwrap();
    assert_eq!(ground.traces().len(), 0, "{:?}", ground.traces());
}

async fn no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(dir.path()).unwrap();
    let absent = provider(&format!("unix://{folder}/no.sock"));
    let problem = absent.survey().await.unwrap_err();
    assert_eq!((problem.code.as_str(), problem.class), ("provider.docker.no_engine", Class::Unfit));
    assert!(bivouac_providers::is_absent(&problem) && problem.help.is_some());
    let far = provider("tcp://127.0.0.1:1");
    let problem = far.observe().await.unwrap_err();
    assert_eq!(problem.code, "provider.docker.no_engine", "{problem:?}");
}

async fn name_taken() {
    let ground = Ground::new(4);
    let _cleanup = Cleanup(&ground);
    let volume = ground.container(1);
    let _ = ground.engine.docker(["volume", "create", &volume]).success();
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    let problem = ground.provider.ensure_network(&ground.network()).await.unwrap_err();
    assert_eq!(problem.code, "provider.docker.name_taken", "{problem:?}");
    assert!(problem.message.contains(&volume), "{problem}");
    assert_eq!(ground.traces().len(), 1, "{:?}", ground.traces());
    ground.provider.destroy_cluster(&ground.cluster).await.unwrap();
    assert_eq!(ground.traces().len(), 1, "{:?}", ground.traces());
    let _ = ground.engine.docker(["volume", "rm", &volume]).success();
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    // A container that somebody makes between the network and the nodes.
    let image = ground.engine.lines(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let image = image.iter().find(|tag| tag.starts_with("bivouac.dev/node:")).unwrap();
    let name = ground.container(0);
    let _ = ground.engine.docker(["create", "--name", &name, image]).success();
    let Err(problem) = ground.provider.ensure_node(&ground.request(0)).await else { panic!() };
    assert_eq!(problem.code, "provider.docker.name_taken", "{problem:?}");
    let _ = ground.engine.docker(["rm", &name]).success();
}

pub(crate) fn port(ground: &Ground, host_port: Option<u16>) -> PublishedPort {
    let node = ground.node(0);
    PublishedPort { node, port: 8080, protocol: Protocol::Tcp, host_ip: None, host_port }
}

async fn port_taken() {
    let ground = Ground::new(5);
    let _cleanup = Cleanup(&ground);
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let number = held.local_addr().unwrap().port();
    let mut network = ground.network();
    network.ports = vec![port(&ground, Some(number))];
    let problem = ground.provider.ensure_network(&network).await.unwrap_err();
    assert_eq!(problem.code, "provider.docker.port_taken", "{problem:?}");
    assert!(problem.message.contains(&number.to_string()), "{problem}");
    assert_eq!(ground.traces().len(), 0);
    // Somebody takes it between the network and the node.
    network.ports.clear();
    ground.provider.ensure_network(&network).await.unwrap();
    let mut request = ground.request(0);
    request.ports = vec![port(&ground, Some(number))];
    let Err(problem) = ground.provider.ensure_node(&request).await else { panic!() };
    assert_eq!(problem.code, "provider.docker.port_taken", "{problem:?}");
    assert_eq!(problem.class, Class::Unfit);
    assert!(problem.help.is_some() && !problem.causes.is_empty());
    assert_eq!(ground.traces().len(), 1, "{:?}", ground.traces());
}

async fn ports() {
    let ground = Ground::new(6);
    let _cleanup = Cleanup(&ground);
    prepare(&ground).await;
    let mut request = ground.request(0);
    request.ports = vec![port(&ground, None)];
    let mut places = Vec::new();
    for _ in 0..2 {
        let node = ground.provider.ensure_node(&request).await.unwrap();
        places.push(node.forward(8080).await.unwrap());
        let Err(problem) = node.forward(9).await.map(|place| {
            // The engine's bridge is this machine's own.
            assert_eq!(place.ip(), node.address());
        }) else {
            ground.provider.stop_node(&ground.cluster, &ground.node(0), GRACE).await.unwrap();
            continue;
        };
        assert_eq!(problem.code, "provider.docker.not_published");
        ground.provider.stop_node(&ground.cluster, &ground.node(0), GRACE).await.unwrap();
    }
    assert_eq!(places[0], places[1]);
    // It is ours while the node runs.
    let node = ground.provider.ensure_node(&request).await.unwrap();
    let mut network = ground.network();
    network.ports = vec![port(&ground, Some(places[0].port()))];
    ground.provider.ensure_network(&network).await.unwrap();
    let own = node.forward(8080).await.unwrap();
    let serve = bivouac_provider::ExecRequest {
        stdio: Stdio::NoInput,
        ..bivouac_provider::ExecRequest::piped(["serve", "0.0.0.0:8080"])
    };
    let mut process = node.exec(&serve).await.unwrap();
    let mut listening = [0; 10];
    process.stdout.as_mut().unwrap().read_exact(&mut listening).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(own).await.unwrap();
    let mut said = [0; 5];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"hello");
}

async fn images() {
    let ground = Ground::new(7);
    let _cleanup = Cleanup(&ground);
    let ours = || {
        let all = ground.engine.lines(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        all.into_iter().filter(|tag| tag.starts_with("bivouac.dev/node:")).count()
    };
    let seen = Mutex::new(Vec::new());
    let note = |progress: Progress| seen.lock().unwrap().push(progress);
    ground.provider.ensure_image(&ground.other_image(), &note).await.unwrap();
    let progress = std::mem::take(&mut *seen.lock().unwrap());
    let last = progress.last().unwrap();
    assert_eq!(last.done, last.total);
    assert!(progress.is_sorted_by_key(|progress| progress.done));
    ground.provider.ensure_image(&ground.other_image(), &note).await.unwrap();
    assert_eq!(seen.lock().unwrap().len(), 0);
    let before = ours();
    // Two at once bring it once, and the other one, of which nothing is made, goes.
    let (image, again) = (ground.image(), ground.image());
    let none = |_| ();
    let both = futures::join!(
        ground.provider.ensure_image(&image, &none),
        ground.provider.ensure_image(&again, &none),
    );
    both.0.and(both.1).unwrap();
    assert!(ours() <= before, "{} images", ours());
    // Removed behind our back, it is brought again.
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    let ids =
        ground.engine.lines(["images", "--quiet", "--filter", "label=dev.bivouac.image=test"]);
    for id in ids {
        let _ = ground.engine.docker(["rmi", &id]).success();
    }
    ground.provider.ensure_node(&ground.request(0)).await.unwrap();
}

async fn logs() {
    let ground = Ground::new(8);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let path = Utf8Path::new(paths::LOGS).join("etcd.log");
    let content = |text: &'static str| -> bivouac_provider::Reader { Box::new(text.as_bytes()) };
    node.put(&path, 0o600, content("one\ntwo\nthree\n")).await.unwrap();
    let ask = |service: Option<&str>, tail, follow| LogRequest {
        service: service.map(str::to_owned),
        tail,
        follow,
    };
    // Before it says that it started it may not heed a signal.
    let mut lines = BufReader::new(node.logs(&ask(None, None, true)).await.unwrap()).lines();
    lines.next_line().await.unwrap();
    ground.provider.stop_node(&ground.cluster, &ground.node(0), GRACE).await.unwrap();
    let etcd = text(node.logs(&ask(Some("etcd"), Some(2), true)).await.unwrap()).await;
    assert_eq!(etcd, "two\nthree\n");
    let agent = text(node.logs(&ask(None, None, false)).await.unwrap()).await;
    assert!(agent.ends_with("stopped\n"), "{agent}");
    let Err(problem) = node.logs(&ask(Some("etdc"), None, false)).await else { panic!() };
    assert!(problem.help.unwrap().contains("etcd"));
}

async fn paused() {
    let ground = Ground::new(11);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let _ = ground.engine.docker(["pause", &ground.container(0)]).success();
    let seen = async || {
        let clusters = ground.provider.observe().await.unwrap();
        let cluster = clusters.into_iter().find(|it| it.name == ground.cluster).unwrap();
        cluster.nodes[&ground.node(0)].state
    };
    assert_eq!(seen().await, ObservedState::Stopped);
    ground.provider.ensure_node(&ground.request(0)).await.unwrap();
    assert_eq!(seen().await, ObservedState::Running);
    node.get(Utf8Path::new(paths::GROUND)).await.unwrap();
}

async fn cannot_start() {
    let ground = Ground::new(9);
    let _cleanup = Cleanup(&ground);
    prepare(&ground).await;
    let before = ground.traces();
    // Too little memory is refused when the container is made, an address that the host does not have when it starts.
    let (mut small, mut elsewhere) = (ground.request(0), ground.request(0));
    small.resources.memory = Some(Bytes(1 << 20));
    let host_ip = Some("192.0.2.1".parse().unwrap());
    elsewhere.ports = vec![PublishedPort { host_ip, ..port(&ground, Some(8080)) }];
    for request in [small, elsewhere] {
        let Err(problem) = ground.provider.ensure_node(&request).await else { panic!() };
        assert_eq!(problem.code, "provider.docker.start", "{problem:?}");
        assert!(!problem.causes.is_empty());
        assert_eq!(ground.traces(), before);
    }
}

async fn restart() {
    let ground = Ground::new(10);
    let _cleanup = Cleanup(&ground);
    start(&ground, 0).await;
    ground.provider.ensure_node(&ground.request(1)).await.unwrap();
    ground.provider.stop_node(&ground.cluster, &ground.node(1), GRACE).await.unwrap();
    let before = observed(&ground, 0).await.unwrap();
    ground.engine.restart(|| ());
    let after = observed(&ground, 0).await.unwrap();
    assert_eq!((after.state, after.address), (ObservedState::Running, before.address));
    assert_ne!(after.pid, before.pid);
    let stopped = observed(&ground, 1).await.unwrap();
    assert_eq!(stopped.state, ObservedState::Stopped);
}
