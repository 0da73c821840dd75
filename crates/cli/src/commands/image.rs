//! `bivouac image`

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use bivouac_image::{Cancel, NodeImageInfo, NodeManifest, Stack};
use bivouac_spec::{Problem, Problems};
use camino::Utf8Path;
use serde::Serialize;

use crate::args::{self, Format, Global, ImageCommand};
use crate::images::{StoreImages, problem_of, step_reporter};
use crate::output::{self, table};
use crate::selection::open_state;
use crate::{progress, report, signals};

/// A node image, as documents show it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    key: String,
    /// What it is for.
    stack: Stack,
    digest: String,
    created: jiff::Timestamp,
    versions: BTreeMap<String, String>,
    /// Bytes of the files in its root file system.
    size: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    key: String,
    /// What it is for.
    stack: Stack,
    digest: String,
    created: jiff::Timestamp,
    versions: BTreeMap<String, String>,
    size: u64,
    /// Whether a node of this machine runs on it.
    in_use: bool,
    /// Whether clusters were made from it.
    used_by_clusters: bool,
    /// Whether this bivouac makes nodes from it.
    current: bool,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned {
    removed: Vec<String>,
    bytes: u64,
    build_running: bool,
}

pub async fn run(global: &Global, image: &args::Image) -> Result<ExitCode, Problems> {
    match &image.command {
        ImageCommand::Build { stack, version, bundle, output } => {
            let images = StoreImages::open(global).with_bundle(bundle.clone());
            let images = images.for_stack((*stack).into()).with_version(version.clone());
            let reporter = progress::reporter(global);
            let built = images.build(&reporter, &signals::cancellation()).await?;
            let shown = shown(built.manifest);
            output::write(*output, &shown, || {
                format!("node image {} for {} is in the store\n", shown.digest, shown.stack)
            })?;
        }
        ImageCommand::List { output } => list(global, *output)?,
        ImageCommand::Verify { output } => return verify(global, *output).await,
        ImageCommand::Prune { all, output } => prune(global, *all, *output)?,
        ImageCommand::Cache { empty, output } => cache(global, *empty, *output)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn shown(manifest: NodeManifest) -> Shown {
    let NodeManifest { key, stack, digest, created, versions, size, .. } = manifest;
    Shown { key, stack, digest: digest.to_string(), created, versions, size }
}

fn list(global: &Global, format: Format) -> Result<(), Problem> {
    let (images, mut used) = (StoreImages::open(global), used(global)?);
    let needed = super::snapshot::needed(global)?;
    used.extend(needed.images);
    for problem in &needed.unreadable {
        report::warning(problem, global.color);
    }
    let current = current(&images)?;
    let there = match images.store_if_there()? {
        Some(store) => bivouac_image::list(&store).map_err(|error| problem_of(&error))?,
        None => Vec::new(),
    };
    let listed = there.into_iter().map(|image| {
        let NodeImageInfo { key, stack, digest, created, versions, size, in_use } = image;
        let (current, used_by_clusters) = (current.contains(&key), used.contains(&key));
        let digest = digest.to_string();
        Listed { key, stack, digest, created, versions, size, in_use, used_by_clusters, current }
    });
    let listed: Vec<Listed> = listed.collect();
    output::write(format, &listed, || {
        let mut rows =
            vec![["KEY", "STACK", "VERSION", "SIZE", "CREATED", "USE"].map(str::to_owned).to_vec()];
        rows.extend(listed.iter().map(row));
        table(&rows)
    })
}

fn row(image: &Listed) -> Vec<String> {
    let uses =
        [(image.current, "this bivouac"), (image.in_use || image.used_by_clusters, "clusters")];
    let uses: Vec<&str> = uses.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
    vec![
        image.key.chars().take(12).collect(),
        image.stack.to_string(),
        version(image),
        output::bytes(image.size),
        image.created.strftime("%Y-%m-%d %H:%M").to_string(),
        uses.join(", "),
    ]
}

/// Of what gives the stack its name.
fn version(image: &Listed) -> String {
    let program = match image.stack {
        Stack::Kubernetes => "kube",
        Stack::Incus => "incus-base",
    };
    image.versions.get(program).cloned().unwrap_or_default()
}

/// The keys of the images that this bivouac makes nodes from.
fn current(images: &StoreImages) -> Result<BTreeSet<String>, Problem> {
    let keys = Stack::ALL.into_iter().map(|stack| images.all_of(stack));
    let keys = keys.collect::<Result<Vec<_>, _>>()?;
    Ok(keys.into_iter().flat_map(BTreeMap::into_keys).collect())
}

/// What clusters with an image cache pulled, or what of it was removed now.
fn cache(global: &Global, empty: bool, format: Format) -> Result<(), Problem> {
    let folder = &global.image_cache;
    let look = if empty { bivouac_agent::empty_cache } else { bivouac_agent::cache_usage };
    let usage = look(folder).map_err(|error| unusable(folder, &error))?;
    output::write(format, &usage, || {
        let done = if empty { "removed" } else { "there are" };
        let (blobs, size) = (usage.blobs, output::bytes(usage.size));
        let mut text = format!("{done} {blobs} parts of images, {size}, in {folder}\n");
        for image in &usage.images {
            text.push_str(&format!("{image}\n"));
        }
        text
    })
}

fn unusable(folder: &Utf8Path, error: &std::io::Error) -> Problem {
    let message = format!("the cache of images at {folder} cannot be read or emptied");
    Problem::failed("cli.image_cache", message)
        .because(error)
        .help("run the command as the user who owns the folder, or with sudo")
}

fn prune(global: &Global, all: bool, format: Format) -> Result<(), Problem> {
    let (images, mut keep) = (StoreImages::open(global), used(global)?);
    // A snapshot is restored with the image that its cluster had. Of one that cannot be read nobody knows what it needs.
    let needed = super::snapshot::needed(global)?;
    if let Some(problem) = needed.unreadable.into_iter().next() {
        return Err(problem);
    }
    keep.extend(needed.images);
    if !all {
        keep.extend(current(&images)?);
    }
    let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
    let mut pruned = Pruned::default();
    if let Some(store) = images.store_if_there()? {
        let done = bivouac_image::prune(&store, &keep, needed.loaded)
            .map_err(|error| problem_of(&error))?;
        let bivouac_image::Pruned { removed, bytes, build_running } = done;
        pruned = Pruned { removed, bytes, build_running };
    }
    output::write(format, &pruned, || {
        format!("removed {} things, {}\n", pruned.removed.len(), output::bytes(pruned.bytes))
    })
}

/// Hashes everything in the store. Damage is shown and makes the command fail; the next build mends it.
async fn verify(global: &Global, format: Format) -> Result<ExitCode, Problems> {
    let (store, reporter, stop) =
        (StoreImages::open(global).store_if_there()?, progress::reporter(global), Cancel::new());
    let check = move || match store {
        Some(store) => bivouac_image::verify(&store, &step_reporter(reporter), &stop),
        None => Ok(Vec::new()),
    };
    let damage = tokio::task::spawn_blocking(check)
        .await
        .map_err(|error| Problem::from_error("image.verify", &error))?;
    let damage = damage.map_err(|error| problem_of(&error))?;
    output::write(format, &damage, || {
        if damage.is_empty() {
            return "everything in the store is as it was made\n".to_owned();
        }
        let lines = damage.iter().map(|damage| format!("{}: {}\n", damage.piece, damage.why));
        lines
            .chain([
                "run `bivouac image build` to make what was built again; load the rest again\n"
                    .to_owned(),
            ])
            .collect()
    })?;
    Ok(if damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The keys of the images that clusters were made from.
fn used(global: &Global) -> Result<BTreeSet<String>, Problem> {
    let state = open_state(global);
    let mut keys = BTreeSet::new();
    for name in state.clusters()? {
        let known = state.read(&name)?;
        // That of an upgrade that is not finished, and the one that it could be taken back to.
        keys.extend(
            known
                .into_iter()
                .flat_map(|known| [Some(known.image), known.completed_image].into_iter().flatten()),
        );
    }
    Ok(keys)
}
