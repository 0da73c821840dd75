//! `bivouac logs`

use std::process::ExitCode;

use bivouac_provider::LogRequest;
use bivouac_spec::{NodeName, Problem, Problems};
use tokio::io::AsyncReadExt;

use crate::args::{self, Global};
use crate::grounds::Existing;
use crate::output;
use crate::selection::choose;

pub async fn run(global: &Global, arguments: &args::Logs) -> Result<ExitCode, Problems> {
    let existing = choose(global, arguments.chosen.cluster.as_ref()).await?;
    let name = match &arguments.node {
        Some(node) => node.clone(),
        None => only_node(&existing)?,
    };
    let node = existing.node(&name).await?;
    let request = LogRequest {
        service: arguments.service.clone(),
        tail: arguments.tail,
        follow: arguments.follow,
    };
    let mut log = node.logs(&request).await?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read =
            log.read(&mut buffer).await.map_err(|error| Problem::from_error("cli.log", &error))?;
        if read == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        output::raw(&buffer[..read])?;
    }
}

fn only_node(existing: &Existing) -> Result<NodeName, Problem> {
    let names: Vec<&NodeName> = existing.observed.nodes.keys().collect();
    match names[..] {
        [only] => Ok(only.clone()),
        _ => {
            let list: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            let message = format!(
                "cluster `{}` has {} nodes and none was named",
                existing.name(),
                names.len()
            );
            Err(Problem::usage("cli.which_node", message)
                .help(format!("name one of: {}", list.join(", "))))
        }
    }
}
