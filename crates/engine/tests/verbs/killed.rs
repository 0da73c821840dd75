//! Killed at any moment: whatever a verb was at when its process ended, the same command reaches the world that it reaches undisturbed.
//!
//! A moment is before or after a call of the ground, or a change of a file. Whoever is killed hears nothing and tidies up nothing: its
//! locks are free, and its temporary files are gone.

mod world;

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bivouac_engine::{ImageChoice, Reporter, StopRequest, stop, watch_writes};
use bivouac_provider::fake::Fake;
use bivouac_spec::Problems;
use bivouac_spec::cluster::Kubernetes;
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use tokio_util::sync::CancellationToken;

use crate::bench::Bench;
use crate::snapshot::cluster_named;
use world::world;

/// What a test unwinds with in place of a signal.
struct Killed;

/// A verb, and what was there before it.
struct Scenario {
    before: for<'a> fn(&'a mut Bench) -> LocalBoxFuture<'a, ()>,
    verb: for<'a> fn(&'a Bench) -> LocalBoxFuture<'a, Result<(), Problems>>,
}

/// Kills whoever reaches this moment, counted from 0. Gives the count.
fn arm(bench: &Bench, moment: usize) -> Arc<AtomicUsize> {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let reached = move || {
        if counted.fetch_add(1, Ordering::Relaxed) == moment {
            resume_unwind(Box::new(Killed));
        }
    };
    let call = reached.clone();
    bench.fake.watch(Some(Arc::new(move |_| call())));
    watch_writes(Some(Rc::new(move |_| reached())));
    count
}

/// What was there before a verb.
struct Before {
    bench: Bench,
    fake: Fake,
    files: tempfile::TempDir,
}

impl Before {
    async fn of(scenario: &Scenario) -> Self {
        let mut bench = Bench::new();
        (scenario.before)(&mut bench).await;
        let files = tempfile::tempdir().unwrap();
        copy(bench.folder.path(), files.path());
        Self { fake: bench.fake.copied(), files, bench }
    }

    /// Everything is as it was.
    fn again(&self) -> &Bench {
        self.bench.fake.restore(&self.fake);
        for entry in self.bench.folder.path().read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        copy(self.files.path(), self.bench.folder.path());
        &self.bench
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Runs a verb that is killed at this moment. Gives whether it came so far, and how many moments it had.
async fn kill(scenario: &Scenario, bench: &Bench, moment: usize) -> (bool, usize) {
    let count = arm(bench, moment);
    let outcome = AssertUnwindSafe((scenario.verb)(bench)).catch_unwind().await;
    bench.fake.watch(None);
    watch_writes(None);
    let count = count.load(Ordering::Relaxed);
    match outcome {
        Ok(done) => {
            done.unwrap_or_else(|problems| panic!("at {moment}: {problems}"));
            (false, count)
        }
        Err(payload) if payload.is::<Killed>() => (true, count),
        Err(payload) => resume_unwind(payload),
    }
}

/// Kills a verb at all its moments. There are at least so many.
async fn survives(at_least: usize, scenario: Scenario) {
    let before = Before::of(&scenario).await;
    let bench = before.again();
    let (_, moments) = kill(&scenario, bench, usize::MAX).await;
    assert!(moments >= at_least, "{moments} moments");
    let wanted = world(bench).await;
    for moment in 0..moments {
        let bench = before.again();
        assert!(kill(&scenario, bench, moment).await.0, "it lives on after moment {moment}");
        let again = (scenario.verb)(bench).await;
        again.unwrap_or_else(|problems| panic!("after moment {moment}: {problems}"));
        assert_eq!(world(bench).await, wanted, "killed at moment {moment} of {moments}");
    }
}

/// Kills a verb at all its moments, and removes the cluster that it was about.
async fn leaves_nothing(name: &str, scenario: Scenario) {
    let before = Before::of(&scenario).await;
    let bench = before.again();
    bench.remove(&cluster_named(name), &Reporter::silent()).await;
    let wanted = world(bench).await;
    let (_, moments) = kill(&scenario, before.again(), usize::MAX).await;
    for moment in 0..moments {
        let bench = before.again();
        assert!(kill(&scenario, bench, moment).await.0, "it lives on after moment {moment}");
        bench.remove(&cluster_named(name), &Reporter::silent()).await;
        assert_eq!(world(bench).await, wanted, "killed at moment {moment} of {moments}");
    }
}

/// Done before, and killed when only the answer was missing.
fn or_done(outcome: Result<(), Problems>, code: &str) -> Result<(), Problems> {
    match outcome {
        Err(problems) if problems.as_slice().iter().all(|problem| problem.code == code) => Ok(()),
        outcome => outcome,
    }
}

async fn up(bench: &Bench) -> Result<(), Problems> {
    bench.up().await.map(drop)
}

async fn stop_all(bench: &Bench) -> Result<(), Problems> {
    let (state, nodes) = (bench.state(), BTreeSet::new());
    let request = StopRequest {
        cluster: bench.cluster.name(),
        nodes: &nodes,
        provider: Arc::clone(&bench.fake) as _,
        state: &state,
    };
    stop(&request, &Reporter::silent()).await.map(drop)
}

fn with_nodes(bench: &mut Bench, control_planes: u32, workers: u32) {
    bench.cluster.spec.nodes[0].count = control_planes;
    bench.cluster.spec.nodes[1].count = workers;
}

fn with_version(bench: &mut Bench, version: &str) {
    bench.cluster.set_version(Some(version)).unwrap();
    bench.image = format!("image-{version}");
}

#[tokio::test]
async fn up_is_finished() {
    let scenario = Scenario {
        before: |bench| async { with_nodes(bench, 1, 1) }.boxed_local(),
        verb: |bench| up(bench).boxed_local(),
    };
    survives(30, scenario).await;
}

#[tokio::test]
async fn up_of_several_control_planes_is_finished() {
    let scenario = Scenario {
        before: |bench| async { with_nodes(bench, 3, 0) }.boxed_local(),
        verb: |bench| up(bench).boxed_local(),
    };
    survives(40, scenario).await;
}

#[tokio::test]
async fn what_was_cut_short_can_be_given_up() {
    let made = Scenario {
        before: |bench| async { with_nodes(bench, 1, 1) }.boxed_local(),
        verb: |bench| up(bench).boxed_local(),
    };
    leaves_nothing("demo", made).await;
    let forked = Scenario {
        before: |bench| async { *bench = Bench::small().await }.boxed_local(),
        verb: |bench| fork(bench, None).boxed_local(),
    };
    leaves_nothing("second", forked).await;
}

#[tokio::test]
async fn down_is_finished() {
    let scenario = Scenario {
        before: |bench| async { up(bench).await.unwrap() }.boxed_local(),
        verb: |bench| bench.down().boxed_local(),
    };
    survives(15, scenario).await;
}

#[tokio::test]
async fn nodes_that_come_and_go_have_come_and_gone() {
    let more = Scenario {
        before: |bench| {
            async {
                with_nodes(bench, 1, 1);
                up(bench).await.unwrap();
                with_nodes(bench, 1, 2);
            }
            .boxed_local()
        },
        verb: |bench| up(bench).boxed_local(),
    };
    survives(30, more).await;
    let fewer = Scenario {
        before: |bench| {
            async {
                with_nodes(bench, 1, 2);
                up(bench).await.unwrap();
                with_nodes(bench, 1, 1);
            }
            .boxed_local()
        },
        verb: |bench| up(bench).boxed_local(),
    };
    survives(30, fewer).await;
}

#[tokio::test]
async fn control_planes_have_come() {
    let scenario = Scenario {
        before: |bench| {
            async {
                with_nodes(bench, 1, 0);
                up(bench).await.unwrap();
                with_nodes(bench, 3, 0);
            }
            .boxed_local()
        },
        verb: |bench| up(bench).boxed_local(),
    };
    survives(40, scenario).await;
}

#[tokio::test]
async fn control_planes_have_gone() {
    let scenario = Scenario {
        before: |bench| {
            async {
                with_nodes(bench, 3, 0);
                up(bench).await.unwrap();
                with_nodes(bench, 1, 0);
            }
            .boxed_local()
        },
        verb: |bench| up(bench).boxed_local(),
    };
    survives(40, scenario).await;
}

#[tokio::test]
async fn an_upgrade_is_finished() {
    let scenario = Scenario {
        before: |bench| {
            async {
                with_nodes(bench, 1, 1);
                with_version(bench, Kubernetes::VERSIONS[1]);
                up(bench).await.unwrap();
                with_version(bench, Kubernetes::VERSIONS[0]);
            }
            .boxed_local()
        },
        verb: |bench| {
            async {
                let (silent, never) = (Reporter::silent(), CancellationToken::new());
                bench.up_choosing(ImageChoice::Current, &silent, &never).await.map(drop)
            }
            .boxed_local()
        },
    };
    survives(60, scenario).await;
}

#[tokio::test]
async fn stop_and_start_are_finished() {
    let stopped = Scenario {
        before: |bench| async { up(bench).await.unwrap() }.boxed_local(),
        verb: |bench| stop_all(bench).boxed_local(),
    };
    survives(8, stopped).await;
    let started = Scenario {
        before: |bench| {
            async {
                up(bench).await.unwrap();
                stop_all(bench).await.unwrap();
            }
            .boxed_local()
        },
        verb: |bench| up(bench).boxed_local(),
    };
    survives(20, started).await;
}

#[tokio::test]
async fn images_are_loaded() {
    let scenario = Scenario {
        before: |bench| async { up(bench).await.unwrap() }.boxed_local(),
        verb: |bench| {
            async { bench.load(&["one"], &Reporter::silent()).await.map(drop) }.boxed_local()
        },
    };
    survives(8, scenario).await;
}

#[tokio::test]
async fn a_save_is_whole_or_nothing() {
    let scenario = Scenario {
        before: |bench| async { *bench = Bench::small().await }.boxed_local(),
        verb: |bench| {
            async { or_done(bench.save("first").await.map(drop), "snapshot.name_taken") }
                .boxed_local()
        },
    };
    survives(20, scenario).await;
}

#[tokio::test]
async fn a_restore_is_finished() {
    let scenario = Scenario {
        before: |bench| {
            async {
                *bench = Bench::small().await;
                bench.save("first").await.unwrap();
                bench.fill("changed").await;
            }
            .boxed_local()
        },
        verb: |bench| async { bench.restore("first").await.map(drop) }.boxed_local(),
    };
    survives(30, scenario).await;
}

async fn fork(bench: &Bench, snapshot: Option<&str>) -> Result<(), Problems> {
    let forked = bench.fork(snapshot, &Reporter::silent()).await.map(drop);
    let known = bench.state().read(&cluster_named("second"))?;
    // What is being made is no cluster whose name is taken.
    if known.is_some_and(|known| known.restoring.is_none()) {
        return or_done(forked, "engine.name_taken");
    }
    forked
}

#[tokio::test]
async fn a_fork_is_finished() {
    let scenario = Scenario {
        before: |bench| async { *bench = Bench::small().await }.boxed_local(),
        verb: |bench| fork(bench, None).boxed_local(),
    };
    survives(60, scenario).await;
}

#[tokio::test]
async fn a_fork_of_a_snapshot_is_finished() {
    let scenario = Scenario {
        before: |bench| {
            async {
                *bench = Bench::small().await;
                bench.save("first").await.unwrap();
            }
            .boxed_local()
        },
        verb: |bench| fork(bench, Some("first")).boxed_local(),
    };
    survives(50, scenario).await;
}
