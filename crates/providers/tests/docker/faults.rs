//! Engines that are too old, full, or gone in the middle, and things of others on them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bivouac_e2e::Run;
use bivouac_provider::Provider;
use bivouac_spec::{Class, Problem};

use crate::cases::{Cleanup, ComposeCleanup};
use crate::ground::{Ground, compose_program, has_compose, provider};
use crate::small::SmallEngine;
use crate::stand_in::StandIn;

/// What the disk of a small engine has in the beginning and later, in MiB. The image does not fit into the first.
const SMALL: u32 = 24;
const LARGE: u32 = 2048;

pub(crate) async fn too_old() {
    let dir = tempfile::tempdir().unwrap();
    let old = StandIn::of_version(dir.path().join("old.sock"), "1.39");
    let survey = provider(&old.host()).survey().await.unwrap();
    let unmet = survey.unmet();
    assert_eq!(unmet.len(), 1, "{unmet:?}");
    assert_eq!((unmet[0].code.as_str(), unmet[0].class), ("provider.docker.too_old", Class::Unfit));
    assert!(unmet[0].message.contains("`1.39`"), "{:?}", unmet[0]);
    assert!(unmet[0].help.as_ref().unwrap().contains("20.10"));
    let new = StandIn::of_version(dir.path().join("new.sock"), "1.41");
    assert_eq!(provider(&new.host()).survey().await.unwrap().unmet(), []);
}

/// What is told is what struck first, not that nothing could be cleaned up after it.
pub(crate) async fn lost_midway() {
    let ground = Ground::new(20);
    let _cleanup = Cleanup(&ground);
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    let socket = PathBuf::from(ground.engine.host().strip_prefix("unix://").unwrap());
    let lost = StandIn::until(ground.path("lost.sock"), socket, "/start");
    let through = provider(&lost.host());
    let Err(problem) = through.ensure_node(&ground.request(0)).await else { panic!() };
    assert!(lost.is_lost());
    is_told(&problem, "provider.docker.connection");
    assert!(problem.message.ends_with("cannot be started"), "{problem}");
    // The engine is back.
    ground.provider.ensure_node(&ground.request(0)).await.unwrap();
    assert_eq!(ground.traces().len(), 3, "{:?}", ground.traces());
}

pub(crate) async fn compose_lost_midway() {
    let ground = Ground::new(21);
    let _cleanup = ComposeCleanup(&ground);
    let socket = PathBuf::from(ground.engine.host().strip_prefix("unix://").unwrap());
    let lost = StandIn::until(ground.path("lost.sock"), socket, "/start");
    let through = ground.compose_over(&lost.host());
    // Not through it: the image has the word in it.
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    through.ensure_network(&ground.network()).await.unwrap();
    let Err(problem) = through.ensure_node(&ground.request(0)).await else { panic!() };
    assert!(lost.is_lost());
    is_told(&problem, "provider.compose.connection");
    let compose = ground.compose();
    compose.ensure_node(&ground.request(0)).await.unwrap();
    compose.destroy_cluster(&ground.cluster).await.unwrap();
    assert_eq!(ground.traces().len(), 0, "{:?}", ground.traces());
}

/// A full disk is told as such wherever it strikes, leaves nothing half made, and is no trouble any more when there is room.
pub(crate) async fn disk_full() {
    let ground = Ground::new(22);
    let engine = SmallEngine::start(SMALL);
    let docker: Box<dyn Provider> = Box::new(provider(&engine.host()));
    let refused = docker.ensure_image(&ground.image(), &|_| ()).await.unwrap_err();
    is_told(&refused, "provider.docker.disk_full");
    assert_eq!(listed(&engine, &["images", "--all", "--quiet"]), "");
    engine.resize(LARGE);
    docker.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    let compose = has_compose().then(|| Box::new(ground.compose_over(&engine.host())) as _);
    let code = |name| format!("provider.{name}.disk_full");
    for (name, provider) in [("docker", Some(docker)), ("compose", compose)] {
        let Some(provider): Option<Box<dyn Provider>> = provider else { continue };
        provider.ensure_network(&ground.network()).await.unwrap();
        let filling = engine.fill();
        let Err(problem) = provider.ensure_node(&ground.request(0)).await else { panic!() };
        is_told(&problem, &code(name));
        drop(filling);
        assert_eq!(listed(&engine, &["ps", "--all", "--quiet"]), "");
        assert_eq!(listed(&engine, &["volume", "ls", "--quiet"]), "");
        provider.ensure_node(&ground.request(0)).await.unwrap();
        provider.destroy_cluster(&ground.cluster).await.unwrap();
        assert_eq!(listed(&engine, &["volume", "ls", "--quiet"]), "");
    }
}

/// Neither provider takes a network for its own that is not, and neither removes it.
pub(crate) async fn network_taken() {
    let ground = Ground::new(23);
    let name = format!("bivouac-{}", ground.cluster);
    let _ = ground.engine.docker(["network", "create", &name]).success();
    let _theirs = Theirs(&ground, ["network", "rm", &name].map(str::to_owned).to_vec());
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    let before = ground.traces();
    let compose = has_compose().then(|| ground.compose());
    let compose = compose.as_ref().map(|compose| compose as &dyn Provider);
    for provider in [Some(&ground.provider as &dyn Provider), compose].into_iter().flatten() {
        let problem = provider.ensure_network(&ground.network()).await.unwrap_err();
        is_told(&problem, "provider.docker.name_taken");
        assert!(problem.message.contains(&name), "{problem}");
        provider.destroy_cluster(&ground.cluster).await.unwrap();
        assert_eq!(ground.traces(), before);
    }
}

/// Images that somebody builds from ours have our label, and are theirs.
pub(crate) async fn built_upon() {
    let ground = Ground::new(24);
    ground.provider.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    let ours = ground.engine.lines(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let ours: Vec<_> = ours.iter().filter(|tag| tag.starts_with("bivouac.dev/node:")).collect();
    let container = format!("built-{}", ground.cluster);
    let _ = ground.engine.docker(["create", "--name", &container, ours[0], "/none"]).success();
    let theirs = format!("bivouac.test/built:{}", ground.cluster);
    let _named = Theirs(&ground, ["image", "rm", &theirs].map(str::to_owned).to_vec());
    let _ = ground.engine.docker(["commit", &container, &theirs]).success();
    let nameless = ground.engine.docker(["commit", "--message=other", &container]).success();
    let nameless = nameless.stdout().trim().to_owned();
    let _nameless = Theirs(&ground, ["image", "rm", &nameless].map(str::to_owned).to_vec());
    let _ = ground.engine.docker(["rm", &container]).success();
    // Removes what is old of ours.
    ground.provider.ensure_image(&ground.other_image(), &|_| ()).await.unwrap();
    for image in [&theirs, &nameless] {
        let label =
            ["inspect", "--format", "{{index .Config.Labels \"dev.bivouac.image\"}}", image];
        assert_eq!(ground.engine.lines(label), ["test"]);
    }
    let _ = ground.engine.docker(["image", "inspect", ours[0]]).outcome().expect_code(1);
}

/// Somebody removes the image after it was looked for: it is brought again.
pub(crate) async fn compose_image_gone() {
    let ground = Ground::new(25);
    let _cleanup = ComposeCleanup(&ground);
    let compose = ground.compose();
    let program = ground.path("docker/cli-plugins/docker-compose");
    let real = compose_program();
    std::fs::create_dir_all(program.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(&program);
    let marker = ground.path("removed");
    let script = format!(
        "#!/bin/sh
case \" $* \" in *' up '*)
    if [ ! -e {marker} ]; then
        : > {marker}
        docker image ls --quiet --filter label=dev.bivouac.image=test | xargs docker image rm --force >&2
    fi;;
esac
exec {real} \"$@\"
",
        marker = marker.display(),
        real = real.display(),
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    compose.ensure_image(&ground.image(), &|_| ()).await.unwrap();
    compose.ensure_network(&ground.network()).await.unwrap();
    compose.ensure_node(&ground.request(0)).await.unwrap();
    assert!(marker.exists(), "the command was not the test's");
    compose.destroy_cluster(&ground.cluster).await.unwrap();
}

/// The problem has this code, says why, and says what to do.
#[track_caller]
fn is_told(problem: &Problem, code: &str) {
    assert_eq!(problem.code, code, "{problem:?}");
    assert!(problem.help.is_some(), "{problem:?}");
    assert!(code.ends_with("name_taken") || !problem.causes.is_empty(), "{problem:?}");
}

#[track_caller]
fn listed(engine: &SmallEngine, arguments: &[&str]) -> String {
    engine.docker(arguments.iter().copied()).success().stdout()
}

/// Something that somebody else has on the engine, and the command that removes it.
struct Theirs<'a>(&'a Ground, Vec<String>);

impl Drop for Theirs<'_> {
    fn drop(&mut self) {
        let removed: Run = self.0.engine.docker(&self.1);
        let _ = removed.outcome();
    }
}
