//! `bivouac kubectl`

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};

use bivouac_spec::{Problem, Problems};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{self, Global};
use crate::images::StoreImages;
use crate::{access, selection};

/// Runs the kubectl of the cluster's own node image, a static program, with a kubeconfig of its own in a temporary file.
pub async fn run(global: &Global, arguments: &args::Kubectl) -> Result<ExitCode, Problems> {
    let existing = selection::choose(global, arguments.chosen.cluster.as_ref()).await?;
    let image = StoreImages::open(global).rootfs(&existing.known()?.image)?;
    let kubeconfig = access::kubeconfig(global, Some(existing.name())).await?;
    let file = tempfile::Builder::new().prefix("bivouac-kubeconfig-").tempfile();
    let file = file.map_err(|error| Problem::from_error("cli.kubectl", &error))?;
    std::fs::write(file.path(), kubeconfig.render().expose())
        .map_err(|error| Problem::from_error("cli.kubectl", &error))?;
    // Ctrl-C ends kubectl, and then the file with the key goes before this process does.
    let _interrupt = signal(SignalKind::interrupt());
    let status = Command::new(image.join("usr/local/bin/kubectl"))
        .args(&arguments.arguments)
        .env("KUBECONFIG", file.path())
        .status()
        .map_err(|error| {
            Problem::failed("cli.kubectl", "cannot run the kubectl of the node image")
                .because(&error)
        })?;
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
