//! What is brought beside Kubernetes itself, and taken away again.

use bivouac_spec::cluster::Addons;

use super::*;

impl Bench {
    fn with_addons(mut self, metrics_server: bool, storage: bool) -> Self {
        if let Chosen::Kubernetes(settings) = &mut self.cluster.spec.stack {
            settings.addons = Addons { metrics_server, storage };
        }
        self.stack = open(&self.cluster.spec.stack);
        self
    }
}

fn tasks(bench: &Bench) -> Vec<String> {
    let configs = bench.configs();
    let config = &configs[&name("control-plane-0")];
    assert_eq!(check_units(config), Vec::<String>::new());
    config.tasks.iter().map(|task| task.name.clone()).collect()
}

#[test]
fn what_is_switched_off_is_not_applied() {
    for by in [Bootstrap::Services, Bootstrap::Kubeadm] {
        let has = |metrics: bool, storage: bool| {
            let tasks = tasks(&single().with(by, Cni::Bridge).with_addons(metrics, storage));
            ["metrics-server", "storage", "provisioner"]
                .map(|task| tasks.contains(&task.to_owned()))
        };
        assert_eq!(has(true, true), [true, true, true]);
        assert_eq!(has(true, false), [true, false, false]);
        assert_eq!(has(false, true), [false, true, true]);
        assert_eq!(has(false, false), [false, false, false]);
    }
}

#[test]
fn no_usable_cluster_waits_for_metrics() {
    for config in Bench::several().configs().values() {
        for task in &config.tasks {
            assert_eq!(task.late, task.name == "metrics-server", "{}", task.name);
            if task.late {
                assert_eq!(config.node, name("control-plane-0"));
                assert_eq!(task.watch.len(), 2);
            }
        }
    }
}

#[test]
fn the_key_of_metrics_is_in_a_file_of_one_node() {
    let bench = Bench::several();
    let with_key = |config: &NodeConfig| {
        let mut files = config.files.iter();
        files.any(|file| file.path == super::super::places::METRICS_SECRET && file.mode == 0o600)
    };
    let configs = bench.configs();
    let nodes: Vec<_> = configs.values().filter(|config| with_key(config)).collect();
    assert_eq!(
        nodes.iter().map(|config| &config.node).collect::<Vec<_>>(),
        [&name("control-plane-0")]
    );
    let requests = serde_json::to_string(&nodes[0].tasks).unwrap();
    assert!(!requests.contains("tls.key\":"), "a key is in a request");
    // Whoever has none of it keeps none.
    let keys = bench.keys(None, now());
    let off = bench.with_addons(false, true);
    let rest = off.keys(Some(keys), now());
    assert!(!serde_json::to_string(&rest).unwrap().contains("\"metrics-server\":"));
}

#[test]
fn it_listens_where_its_service_leads() {
    let binds = |families: &[bool]| {
        let configs = single().of_families(families).configs();
        serde_json::to_string(&configs[&name("control-plane-0")].tasks)
            .unwrap()
            .contains("--bind-address=::")
    };
    assert!(!binds(&[true]));
    assert!(!binds(&[true, false]));
    assert!(binds(&[false]));
    assert!(binds(&[false, true]));
}

#[test]
fn what_was_switched_off_is_removed() {
    let before = single().cluster;
    let steps =
        |metrics, storage| single().with_addons(metrics, storage).steps(&Change::Changed(&before));
    assert_eq!(steps(true, true), []);
    let both: Vec<_> = steps(false, false)
        .iter()
        .map(|step| format!("{}: {}", step.name, step.command[4..].join("\n  ")))
        .collect();
    insta::assert_snapshot!("removed_addons", both.join("\n"));
    // Switched on: the tasks of the node bring it.
    let off = single().with_addons(false, false).cluster;
    assert_eq!(single().steps(&Change::Changed(&off)), []);
}

/// It does not start otherwise (`cmd/metrics-server/app/options`).
#[test]
fn a_kubelet_may_take_less_than_the_time_between_two_questions() {
    use super::super::tuning::{METRICS_PATIENCE, METRICS_RESOLUTION};
    let span = |text: &str| text.parse::<bivouac_spec::quantity::Span>().unwrap().duration();
    let resolution = span(METRICS_RESOLUTION);
    assert!(resolution >= Duration::from_secs(10));
    assert!(resolution * 9 / 10 >= span(METRICS_PATIENCE));
}
