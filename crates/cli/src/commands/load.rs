//! `bivouac load`

use std::process::ExitCode;
use std::time::Instant;

use bivouac_engine::{LoadRequest, load};
use bivouac_spec::cluster::Stack;
use bivouac_spec::{NodeName, Problem, Problems};
use serde::Serialize;

use crate::args::{self, Global};
use crate::images::Containers;
use crate::selection::{choose, open_state};
use crate::{output, progress, signals};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded {
    images: Vec<String>,
    nodes: Vec<NodeName>,
    seconds: f64,
}

pub async fn run(global: &Global, arguments: &args::Load) -> Result<ExitCode, Problems> {
    let started = Instant::now();
    let existing = choose(global, arguments.chosen.cluster.as_ref()).await?;
    let stack = &existing.known()?.applied.cluster.spec.stack;
    if !matches!(stack, Stack::Kubernetes(_)) {
        let (name, stack) = (existing.name(), stack.name());
        let message =
            format!("cluster `{name}` is of stack {stack}, which runs no container images");
        let help =
            format!("import an image of instances: `bivouac {stack} -c {name} -- image import`");
        return Err(Problem::usage("cli.no_container_images", message).help(help).into());
    }
    let request = LoadRequest {
        cluster: existing.name(),
        provider: existing.provider(),
        state: &open_state(global),
        images: &Containers::open(global),
        asked: &arguments.images,
    };
    let reporter = progress::reporter(global);
    let done = load(&request, &reporter, &signals::cancellation()).await?;
    drop(reporter);
    let seconds = started.elapsed().as_secs_f64();
    let loaded = Loaded { images: done.images, nodes: done.nodes, seconds };
    output::write(arguments.output, &loaded, || {
        let lines = loaded.images.iter().map(|image| format!("loaded {image}\n"));
        let (count, seconds) = (loaded.nodes.len(), loaded.seconds);
        let have = if count == 1 { "1 node has".to_owned() } else { format!("{count} nodes have") };
        lines.chain([format!("{have} it, {seconds:.2} s\n")]).collect()
    })?;
    Ok(ExitCode::SUCCESS)
}
