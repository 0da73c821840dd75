//! `bivouac exec`

use std::process::ExitCode;

use bivouac_provider::{ExecRequest, Stdio};
use bivouac_spec::Problems;

use crate::args::{self, Global};
use crate::selection::choose;

pub async fn run(global: &Global, arguments: &args::Exec) -> Result<ExitCode, Problems> {
    let existing = choose(global, arguments.chosen.cluster.as_ref()).await?;
    let node = existing.node(&arguments.node).await?;
    let command = if arguments.command.is_empty() {
        vec!["/bin/bash".to_owned()]
    } else {
        arguments.command.clone()
    };
    let request = ExecRequest { command, stdio: Stdio::Inherited, ..ExecRequest::default() };
    let code = node.exec(&request).await?.exit.await?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
