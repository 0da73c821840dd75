//! `bivouac load`

use std::process::ExitCode;
use std::time::Instant;

use bivouac_image::{Imported, Store, import_archive, import_docker_image};
use bivouac_provider::{ExecRequest, Node, Stdio};
use bivouac_spec::node::paths;
use bivouac_spec::{NodeName, Problem, Problems};
use camino::Utf8Path;
use serde::Serialize;
use tokio::io::AsyncReadExt;

use crate::args::{self, Global};
use crate::images::{problem_of, step_reporter};
use crate::selection::choose;
use crate::{home, output, progress};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Loaded {
    images: Vec<String>,
    nodes: Vec<NodeName>,
    seconds: f64,
}

/// Unpacks the images once into the store, which all nodes see, then has every node's agent register them.
pub async fn run(global: &Global, arguments: &args::Load) -> Result<ExitCode, Problems> {
    let started = Instant::now();
    let existing = choose(global, arguments.chosen.cluster.as_ref()).await?;
    let names: Vec<NodeName> = existing.observed.nodes.keys().cloned().collect();
    let nodes = futures::future::try_join_all(names.iter().map(|name| existing.node(name))).await?;
    let store = Store::open(&global.store_path()).map_err(|error| problem_of(&error))?;
    let reporter = progress::reporter(global);
    let asked = arguments.images.clone();
    let imported =
        tokio::task::spawn_blocking(move || import_all(&store, &asked, &step_reporter(reporter)));
    let imported = imported.await.map_err(|error| Problem::from_error("cli.load", &error))??;
    let images: Vec<String> = imported.into_iter().map(|image| image.name).collect();
    futures::future::try_join_all(nodes.iter().map(|node| register(node.as_ref(), &images)))
        .await?;
    let loaded = Loaded { images, nodes: names, seconds: started.elapsed().as_secs_f64() };
    output::write(arguments.output, &loaded, || {
        let lines = loaded.images.iter().map(|image| format!("loaded {image}\n"));
        let (count, seconds) = (loaded.nodes.len(), loaded.seconds);
        let have = if count == 1 { "1 node has".to_owned() } else { format!("{count} nodes have") };
        lines.chain([format!("{have} it, {seconds:.2} s\n")]).collect()
    })?;
    Ok(ExitCode::SUCCESS)
}

fn import_all(
    store: &Store,
    asked: &[String],
    on_event: &(dyn Fn(bivouac_image::Event) + Sync),
) -> Result<Vec<Imported>, Problem> {
    let folder = store.containers();
    let mut imported = Vec::new();
    for image in asked {
        let path = Utf8Path::new(image);
        let found = if path.exists() {
            import_archive(&folder, path, on_event)
        } else {
            import_docker_image(&folder, image, home::docker_host().as_deref(), on_event)
        };
        imported.extend(found.map_err(|error| {
            let mut problem = problem_of(&error);
            if !problem.message.contains(image) {
                problem.causes.insert(
                    0,
                    std::mem::replace(&mut problem.message, format!("cannot load {image}")),
                );
            }
            problem
        })?);
    }
    Ok(imported)
}

async fn register(node: &dyn Node, images: &[String]) -> Result<(), Problem> {
    let mut request =
        ExecRequest::piped([paths::AGENT, "agent", "images", "--directory", paths::SHARED_IMAGES]);
    request.command.extend(images.iter().cloned());
    request.stdio = Stdio::NoInput;
    let mut process = node.exec(&request).await?;
    let mut said = String::new();
    if let Some(stderr) = &mut process.stderr {
        let read = stderr.read_to_string(&mut said).await;
        read.map_err(|error| Problem::from_error("cli.load", &error))?;
    }
    match process.exit.await? {
        0 => Ok(()),
        code => {
            let mut problem = Problem::failed(
                "cli.load",
                format!("node `{}` did not take the images (exit code {code})", node.name()),
            );
            problem.causes = said.lines().map(str::to_owned).collect();
            Err(problem.help(format!("run `bivouac logs {} containerd` to see why", node.name())))
        }
    }
}
