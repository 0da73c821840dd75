//! `bivouac kubectl`

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use bivouac_spec::{Problem, Problems};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::args::{self, Global};
use crate::images::StoreImages;
use crate::{access, selection};

/// Becomes the kubectl of the cluster's own node image, a static program. Its kubeconfig is a file without a name, which goes when
/// kubectl ends, however it ends.
pub async fn run(global: &Global, arguments: &args::Kubectl) -> Result<ExitCode, Problems> {
    let existing = selection::choose(global, arguments.chosen.cluster.as_ref()).await?;
    let image = StoreImages::open(global).rootfs(&existing.known()?.image)?;
    let kubeconfig = access::kubeconfig(global, &existing).await?;
    let failed = |error: std::io::Error| {
        Problem::failed("cli.kubectl", "cannot hand over the kubeconfig to kubectl").because(&error)
    };
    // Not closed on exec: kubectl opens it by its number.
    let file = memfd_create("kubeconfig", MemfdFlags::empty());
    let mut file = File::from(file.map_err(|error| failed(error.into()))?);
    file.write_all(kubeconfig.render().expose().as_bytes()).map_err(failed)?;
    let error = Command::new(image.join("usr/local/bin/kubectl"))
        .args(&arguments.arguments)
        .env("KUBECONFIG", format!("/proc/self/fd/{}", file.as_raw_fd()))
        .exec();
    let message = "cannot run the kubectl of the node image";
    Err(Problem::failed("cli.kubectl", message).because(&error).into())
}
