//! Nodes that are changed after they were made.

use bivouac_provider::{ExecRequest, Provider, Reader, Stdio};
use bivouac_spec::cluster::Resources;
use bivouac_spec::facts::ObservedState;
use bivouac_spec::node::{File, paths};
use bivouac_spec::quantity::Bytes;
use camino::{Utf8Path, Utf8PathBuf};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::agent::REFUSED;
use crate::cases::{Cleanup, observed, port, start, text};
use crate::ground::Ground;

/// Another container takes the place of one that publishes other ports, and has its data and its ports.
pub(crate) async fn remade() {
    let ground = Ground::new(12);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let kept = Utf8PathBuf::from(paths::STATE).join("kept");
    let content: Reader = Box::new(&b"kept"[..]);
    node.put(&kept, 0o600, content).await.unwrap();
    let mut request = ground.request(0);
    // In place first, so that there is a record of that, too.
    request.config.files.push(File::public("/etc/conformance", "new"));
    ground.provider.ensure_node(&request).await.unwrap();
    let before = observed(&ground, 0).await.unwrap();
    assert_eq!(before.record, Some(request.record()));
    assert_eq!(ground.traces().len(), 4, "{:?}", ground.traces());
    request.ports = vec![port(&ground, None)];
    let node = ground.provider.ensure_node(&request).await.unwrap();
    let after = observed(&ground, 0).await.unwrap();
    assert_eq!((after.state, after.record), (ObservedState::Running, Some(request.record())));
    assert_ne!(after.pid, before.pid);
    assert_eq!(text(node.get(&kept).await.unwrap()).await, "kept");
    assert!(node.forward(8080).await.unwrap().ip().is_loopback());
    assert_eq!(ground.traces().len(), 3, "{:?}", ground.traces());
}

/// Wherever a change ends, it is seen that there is more to do, also when the old config is wanted again.
pub(crate) async fn refused() {
    let ground = Ground::new(13);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let before = observed(&ground, 0).await.unwrap();
    let (first, mut other) = (ground.request(0), ground.request(0));
    other.config.modules.push(REFUSED.to_owned());
    let Err(problem) = ground.provider.ensure_node(&other).await else { panic!() };
    assert_eq!(problem.code, "provider.docker.apply", "{problem:?}");
    assert_eq!(problem.causes, ["it is refused"]);
    let halfway = observed(&ground, 0).await.unwrap();
    assert_eq!((halfway.state, halfway.pid), (ObservedState::Running, before.pid));
    for request in [&first, &other] {
        assert_ne!(halfway.record, Some(request.record()));
    }
    ground.provider.ensure_node(&first).await.unwrap();
    assert_eq!(observed(&ground, 0).await.unwrap(), before);
    let config = text(node.get(Utf8Path::new(paths::CONFIG)).await.unwrap()).await;
    assert_eq!(config, serde_json::to_string(&first.config).unwrap());
    // Stopped halfway, it is made of what is wanted.
    assert!(ground.provider.ensure_node(&other).await.is_err());
    let _ = ground.engine.docker(["stop", &ground.container(0)]).success();
    ground.provider.ensure_node(&first).await.unwrap();
    assert_eq!(observed(&ground, 0).await.unwrap().record, Some(first.record()));
    assert_eq!(ground.traces().len(), 3, "{:?}", ground.traces());
}

/// Limits come and go while a node runs.
pub(crate) async fn limited() {
    let ground = Ground::new(14);
    let _cleanup = Cleanup(&ground);
    start(&ground, 0).await;
    let before = observed(&ground, 0).await.unwrap();
    let limits = || {
        let format = "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}";
        let lines = ground.engine.lines(["inspect", "--format", format, &ground.container(0)]);
        let limits = lines[0].split(' ').map(|number| number.parse().unwrap());
        limits.collect::<Vec<u64>>()
    };
    assert_eq!(limits(), [1 << 30, 1_500_000_000]);
    let survey = ground.provider.survey().await.unwrap().facts;
    let machine = [survey.memory.0, u64::from(survey.cpus) * 1_000_000_000];
    let mut request = ground.request(0);
    for (memory, expected) in [(Some(512 << 20), [512 << 20, 1_500_000_000]), (None, machine)] {
        request.resources.memory = memory.map(Bytes);
        if memory.is_none() {
            request.resources = Resources::default();
        }
        ground.provider.ensure_node(&request).await.unwrap();
        assert_eq!(limits(), expected);
        let after = observed(&ground, 0).await.unwrap();
        assert_eq!((after.pid, after.record), (before.pid, Some(request.record())));
    }
}

/// Nothing is changed then, and no process is ended.
pub(crate) async fn too_little() {
    let ground = Ground::new(17);
    let _cleanup = Cleanup(&ground);
    let node = start(&ground, 0).await;
    let before = observed(&ground, 0).await.unwrap();
    let hold = ExecRequest { stdio: Stdio::NoInput, ..ExecRequest::piped(["hold", "96"]) };
    let mut holding = node.exec(&hold).await.unwrap();
    let mut lines = BufReader::new(holding.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
    let mut request = ground.request(0);
    request.resources.memory = Some(Bytes(64 << 20));
    let Err(problem) = ground.provider.ensure_node(&request).await else { panic!("it is limited") };
    assert_eq!(problem.code, "provider.docker.memory_in_use", "{problem:?}");
    assert!(problem.message.contains("limited to 64 MiB of memory: it uses "), "{problem:?}");
    assert_eq!(observed(&ground, 0).await.unwrap(), before);
    request.resources.memory = Some(Bytes(256 << 20));
    ground.provider.ensure_node(&request).await.unwrap();
    assert_eq!(observed(&ground, 0).await.unwrap().record, Some(request.record()));
    drop(holding);
}
