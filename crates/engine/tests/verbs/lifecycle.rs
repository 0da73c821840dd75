//! A cluster comes and goes: crash at every step, run again, and the same world is reached.

use std::sync::Arc;

use bivouac_engine::{Ground, Reporter, StepState};
use bivouac_provider::Provider;
use bivouac_provider::fake::{Fake, Injection, When};
use bivouac_spec::Class;
use bivouac_spec::cluster::{self, Cni, DockerProvider};
use bivouac_spec::quantity::Cpus;

use crate::bench::{Bench, keeping, steps};

#[tokio::test]
async fn up_twice_changes_nothing_and_down_leaves_nothing() {
    let bench = Bench::new();
    assert!(!bench.up().await.unwrap().actions.is_empty());
    bench.assert_whole().await;
    assert_eq!(bench.up().await.unwrap().actions, []);
    bench.down().await.unwrap();
    bench.assert_gone().await;
    bench.down().await.unwrap();
}

#[tokio::test]
async fn an_up_that_fails_at_any_step_is_finished_by_the_next() {
    let calls = {
        let bench = Bench::new();
        bench.up().await.unwrap();
        bench.fake.calls().len()
    };
    assert!(calls > 5, "an up asks the provider for more than {calls} things");
    for call in 0..calls {
        for when in [When::Before, When::After] {
            let bench = Bench::new();
            bench.fake.inject(Some(Injection { call, when }));
            // Some calls may fail without harm, such as asking for what is not needed any more.
            let _ = bench.up().await;
            bench.fake.inject(None);
            bench
                .up()
                .await
                .unwrap_or_else(|problems| panic!("after a failure at call {call}: {problems}"));
            bench.assert_whole().await;
            bench.down().await.unwrap();
            bench.assert_gone().await;
        }
    }
}

#[tokio::test]
async fn a_down_that_fails_at_any_step_is_finished_by_the_next() {
    let calls = {
        let bench = Bench::new();
        bench.up().await.unwrap();
        bench.fake.inject(None);
        bench.down().await.unwrap();
        bench.fake.calls().len()
    };
    assert!(calls >= 2, "a down looks and destroys");
    for call in 0..calls {
        for when in [When::Before, When::After] {
            let bench = Bench::new();
            bench.up().await.unwrap();
            bench.fake.inject(Some(Injection { call, when }));
            bench.down().await.unwrap_err();
            bench.fake.inject(None);
            bench.down().await.unwrap();
            bench.assert_gone().await;
        }
    }
}

#[tokio::test]
async fn a_node_that_died_is_brought_back_with_its_address() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    bench.fake.kill(bench.cluster.name(), &"worker-1".parse().unwrap());
    let upped = bench.up().await.unwrap();
    assert_eq!(upped.actions.len(), 1, "{:?}", upped.actions);
    bench.assert_whole().await;
}

#[tokio::test]
async fn a_change_that_cannot_be_applied_changes_nothing() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    let (world, calls) = (bench.observed().await, bench.fake.calls().len());
    bench.cluster.spec.network.cni = Cni::Flannel;
    let refused = bench.up().await.unwrap_err();
    assert_eq!(refused.class(), Class::Usage);
    assert_eq!(refused.as_slice()[0].code, "plan.change_needs_new_cluster");
    assert!(bench.fake.calls()[calls..].iter().all(|call| !call.contains("ensure")));
    assert_eq!(bench.observed().await, world);
}

#[tokio::test]
async fn a_first_up_that_is_refused_leaves_nothing() {
    let mut bench = Bench::new();
    bench.cluster.spec.nodes[1].resources.cpus = Some(Cpus(1_000_000));
    bench.up().await.unwrap_err();
    bench.assert_gone().await;
}

#[tokio::test]
async fn a_first_up_that_made_nothing_may_be_tried_with_another_file() {
    let mut bench = Bench::new();
    // Calls 0 and 1 are the survey and the look, 2 brings the image; the network is the next.
    bench.fake.inject(Some(Injection { call: 3, when: When::Before }));
    bench.up().await.unwrap_err();
    bench.fake.inject(None);
    bench.cluster.spec.network.pod_cidr = vec!["10.200.0.0/16".parse().unwrap()];
    bench.up().await.unwrap();
    bench.assert_whole().await;
}

#[tokio::test]
async fn bringing_the_image_is_told_before_the_network_is_made() {
    let bench = Bench::new();
    let (reporter, events) = keeping();
    bench.up_telling(&reporter).await.unwrap();
    let step = || "node image to linux".to_owned();
    assert_eq!(steps(&events), [(step(), StepState::Running), (step(), StepState::Done)]);
    let calls = bench.fake.calls();
    assert_eq!(calls[2..4], ["ensure_image image", "ensure_network demo"]);
}

#[tokio::test]
async fn images_are_registered_where_nodes_see_them() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    bench.fake.inject(None);
    let (reporter, events) = keeping();
    let loaded = bench.load(&["one", "two"], &reporter).await.unwrap();
    assert_eq!(loaded.images, ["one", "two"]);
    assert_eq!(loaded.nodes.len(), 3);
    assert_eq!(steps(&events), []);
    let calls = bench.fake.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("exec ")).count(), 3, "{calls:?}");
}

#[tokio::test]
async fn images_are_sent_where_nodes_do_not_see_them() {
    let bench = Bench::remote().await;
    bench.up().await.unwrap();
    bench.fake.inject(None);
    let (reporter, events) = keeping();
    let loaded = bench.load(&["one", "two"], &reporter).await.unwrap();
    assert_eq!(loaded.images, ["one", "two"]);
    assert_eq!(loaded.nodes.len(), 3);
    let step = |name: &str, state| (format!("{name} to 3 nodes"), state);
    let expected = ["one", "two"]
        .map(|name| [step(name, StepState::Running), step(name, StepState::Done)])
        .concat();
    assert_eq!(steps(&events), expected);
    let calls = bench.fake.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("exec ")).count(), 6, "{calls:?}");
}

#[tokio::test]
async fn an_archive_that_cannot_be_read_or_is_none_is_loaded_nowhere() {
    let bench = Bench::remote().await;
    bench.up().await.unwrap();
    let broken = bench.load(&["broken"], &Reporter::silent()).await.unwrap_err();
    assert_eq!(broken.as_slice()[0].code, "engine.load_source");
    assert_eq!(broken.as_slice()[0].causes, ["the disk is on fire"]);
    let (reporter, events) = keeping();
    let refused = bench.load(&["nothing"], &reporter).await.unwrap_err();
    assert_eq!(refused.as_slice().len(), 3, "every node says it");
    assert_eq!(refused.as_slice()[0].code, "engine.load_refused");
    assert_eq!(refused.as_slice()[0].causes, ["this is no archive"]);
    assert_eq!(steps(&events).last().unwrap().1, StepState::Failed);
    // Nothing is held afterwards.
    bench.load(&["one"], &Reporter::silent()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_loaded_while_a_node_is_away_or_another_verb_works() {
    let bench = Bench::new();
    let unknown = bench.load(&["one"], &Reporter::silent()).await.unwrap_err();
    assert_eq!(unknown.as_slice()[0].code, "engine.unrecorded");
    assert!(!bench.path("state").exists(), "asking made a state folder");
    bench.up().await.unwrap();
    let lock = bench.state().lock(bench.cluster.name(), "up").unwrap();
    let busy = bench.load(&["one"], &Reporter::silent()).await.unwrap_err();
    assert_eq!(busy.as_slice()[0].code, "state.busy");
    drop(lock);
    bench.fake.kill(bench.cluster.name(), &"worker-1".parse().unwrap());
    bench.fake.inject(None);
    let away = bench.load(&["one"], &Reporter::silent()).await.unwrap_err();
    assert_eq!(away.as_slice()[0].code, "engine.node_not_running");
    assert!(away.to_string().contains("worker-1"), "{away}");
    assert_eq!(bench.fake.calls(), ["observe"]);
}

/// A ground of this name.
fn ground(settings: cluster::Provider) -> (Arc<Fake>, Ground) {
    let fake = Arc::new(Fake::new());
    let provider: Arc<dyn Provider> = fake.clone();
    (fake, Ground { settings, provider })
}

#[tokio::test]
async fn a_name_that_another_ground_has_is_refused_before_anything_is_made() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    let docker = cluster::Provider::Docker(DockerProvider::default());
    let linux = Ground { settings: cluster::Provider::default(), provider: bench.fake.clone() };
    // The same file for another ground, with what is known of the cluster and without.
    bench.cluster.spec.provider = docker.clone();
    let (other, ground) = ground(docker);
    bench.fake = other;
    bench.grounds = vec![linux, ground];
    let state = bench.path("state");
    for is_known in [true, false] {
        if !is_known {
            std::fs::remove_dir_all(&state).unwrap();
        }
        let refused = bench.up().await.unwrap_err();
        assert_eq!(refused.as_slice()[0].code, "engine.name_taken");
        assert_eq!(refused.to_string(), "cluster `demo` exists already, on linux");
        assert_eq!(bench.observed().await, []);
    }
}

#[tokio::test]
async fn a_ground_that_does_not_answer_counts_only_where_the_cluster_was_made_on_it() {
    let mut bench = Bench::new();
    let (silent, ground) = ground(cluster::Provider::Docker(DockerProvider::default()));
    bench.grounds = vec![ground];
    silent.inject(Some(Injection { call: 0, when: When::Before }));
    bench.up().await.unwrap();
    // As if it had been made there.
    let mut known = bench.state().read(bench.cluster.name()).unwrap().unwrap();
    known.applied.cluster.spec.provider = cluster::Provider::Docker(DockerProvider::default());
    bench.state().write(&known).unwrap();
    silent.inject(Some(Injection { call: 0, when: When::Before }));
    let refused = bench.up().await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "engine.ground_silent");
    assert!(refused.to_string().contains("made on docker"), "{refused}");
}

/// Makes the ground another one of its kind, or the one that it was.
async fn become_engine(fake: &Fake, identity: &str) {
    let mut survey = fake.survey().await.unwrap();
    survey.facts.identity = identity.to_owned();
    survey.facts.place = format!("the engine at unix:///{identity}");
    fake.set_survey(survey);
}

#[tokio::test]
async fn a_cluster_that_was_made_on_another_engine_is_left_alone() {
    let mut bench = Bench::new();
    become_engine(&bench.fake, "one").await;
    bench.up().await.unwrap();
    // Another engine is selected, on which there is nothing.
    let one = std::mem::replace(&mut bench.fake, Arc::new(Fake::new()));
    become_engine(&bench.fake, "two").await;
    let known = bench.state().read(bench.cluster.name()).unwrap();
    // Not even where the user's kubeconfig knows nothing of it is the record forgotten.
    for is_merged in [true, false] {
        let mut known = known.clone().unwrap();
        if !is_merged {
            known.kubeconfig = None;
            bench.state().write(&known).unwrap();
        }
        bench.fake.inject(None);
        let refused = [
            bench.up().await.map(drop).unwrap_err(),
            bench.load(&["one"], &Reporter::silent()).await.map(drop).unwrap_err(),
            bench.down().await.unwrap_err(),
        ];
        for problems in refused {
            assert_eq!(problems.class(), Class::Usage);
            assert_eq!(problems.as_slice()[0].code, "engine.other_ground");
            assert_eq!(
                problems.to_string(),
                "cluster `demo` was made on the engine at unix:///one, and the engine at unix:///two is selected now"
            );
        }
        let calls = bench.fake.calls();
        assert!(calls.iter().all(|call| call == "survey" || call == "observe"), "{calls:?}");
        assert_eq!(bench.state().read(bench.cluster.name()).unwrap(), Some(known));
    }
    bench.state().write(&known.unwrap()).unwrap();
    bench.fake = one;
    bench.assert_whole().await;
    bench.down().await.unwrap();
    bench.assert_gone().await;
}

#[tokio::test]
async fn another_engine_does_not_free_a_name_for_a_ground_of_another_kind() {
    let mut bench = Bench::new();
    bench.up().await.unwrap();
    let (engine, ground) = ground(cluster::Provider::Docker(DockerProvider::default()));
    become_engine(&engine, "two").await;
    let mut known = bench.state().read(bench.cluster.name()).unwrap().unwrap();
    known.applied.cluster.spec.provider = ground.settings.clone();
    known.facts.identity = "one".to_owned();
    bench.state().write(&known).unwrap();
    bench.grounds = vec![ground];
    let refused = bench.up().await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "engine.other_ground");
    assert_eq!(bench.state().read(bench.cluster.name()).unwrap(), Some(known));
}

#[tokio::test]
async fn a_record_that_does_not_say_its_engine_is_never_refused() {
    let bench = Bench::new();
    bench.up().await.unwrap();
    become_engine(&bench.fake, "two").await;
    bench.up().await.unwrap();
    bench.down().await.unwrap();
    bench.assert_gone().await;
}

#[tokio::test]
async fn a_first_up_without_any_node_leaves_nothing_half_done() {
    let mut bench = Bench::new();
    bench.cluster.spec.nodes.pop();
    // Calls 0 to 3 are the survey, the look, the image and the network.
    for when in [When::Before, When::After] {
        bench.fake.inject(Some(Injection { call: 4, when }));
        let problems = bench.up().await.unwrap_err();
        assert_eq!(problems.as_slice()[0].code, "provider.fake.injected");
        assert!(problems.to_string().starts_with("ensure_node demo/"), "{problems}");
        assert!(bench.fake.calls().contains(&"destroy_cluster demo".to_owned()));
        bench.assert_gone().await;
    }
}

#[tokio::test]
async fn an_api_on_a_loopback_address_of_another_machine_is_refused() {
    let mut bench = Bench::remote().await;
    let mut survey = bench.fake.survey().await.unwrap();
    survey.facts.remote = true;
    bench.fake.set_survey(survey);
    let port = cluster::Port {
        host_port: 36_443,
        port: 6443,
        node: None,
        host_ip: "127.0.0.1".parse().unwrap(),
        protocol: cluster::Protocol::Tcp,
    };
    bench.cluster.spec.ports.push(port);
    let refused = bench.up().await.unwrap_err();
    assert_eq!(refused.as_slice()[0].code, "engine.unreachable_port");
    bench.assert_gone().await;
    bench.cluster.spec.ports[0].host_ip = "0.0.0.0".parse().unwrap();
    bench.up().await.unwrap();
}
