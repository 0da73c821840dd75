//! `bivouac kubeconfig`

use std::process::ExitCode;

use bivouac_spec::{Problem, Problems};

use crate::args::{self, Global};
use crate::selection::choose;
use crate::{access, home, output};

pub async fn run(global: &Global, arguments: &args::Kubeconfig) -> Result<ExitCode, Problems> {
    let existing = choose(global, arguments.name.as_ref()).await?;
    let ours = access::kubeconfig(global, &existing).await?;
    let merge = |existing: Option<&str>| {
        bivouac_pki::merge(existing, &ours, true)
            .map_err(|error| Problem::from_error("kubeconfig.unmergeable", &error))
    };
    match home::kubeconfig_file(None).filter(|_| arguments.merge) {
        Some(file) => file.edit(merge)?,
        None => output::raw(merge(None)?.as_bytes())?,
    }
    Ok(ExitCode::SUCCESS)
}
