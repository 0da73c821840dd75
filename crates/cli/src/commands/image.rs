//! `bivouac image`

use std::collections::BTreeSet;
use std::process::ExitCode;

use bivouac_image::Cancel;
use bivouac_spec::{Problem, Problems};

use crate::args::{self, Format, Global, ImageCommand};
use crate::images::{StoreImages, problem_of, step_reporter};
use crate::output::{self, table};
use crate::selection::open_state;
use crate::{progress, signals};

pub async fn run(global: &Global, image: &args::Image) -> Result<ExitCode, Problems> {
    match &image.command {
        ImageCommand::Build { bundle, output } => {
            let images = StoreImages::open(global).with_bundle(bundle.clone());
            let reporter = progress::reporter(global);
            let image = images.build(&reporter, &signals::cancellation()).await?;
            output::write(*output, &image.manifest, || {
                format!("node image {} is in the store\n", image.manifest.digest)
            })?;
        }
        ImageCommand::List { output } => {
            let (store, used) = (StoreImages::open(global).store()?, used(global)?);
            let current = StoreImages::open(global).bundle()?.image_key();
            let images = bivouac_image::list(&store).map_err(|error| problem_of(&error))?;
            output::write(*output, &images, || {
                let mut rows = vec![
                    ["KEY", "KUBERNETES", "SIZE", "CREATED", "USE"].map(str::to_owned).to_vec(),
                ];
                for image in &images {
                    let uses = [
                        (image.key == current, "this bivouac"),
                        (image.in_use || used.contains(&image.key), "clusters"),
                    ];
                    let uses: Vec<&str> =
                        uses.into_iter().filter(|(is, _)| *is).map(|(_, what)| what).collect();
                    rows.push(vec![
                        image.key.chars().take(12).collect(),
                        image.versions.get("kube").cloned().unwrap_or_default(),
                        output::bytes(image.size),
                        image.created.strftime("%Y-%m-%d %H:%M").to_string(),
                        uses.join(", "),
                    ]);
                }
                table(&rows)
            })?;
        }
        ImageCommand::Verify { output } => return verify(global, *output).await,
        ImageCommand::Prune { all, output } => {
            let images = StoreImages::open(global);
            let mut keep = used(global)?;
            if !all {
                keep.insert(images.bundle()?.image_key());
            }
            let keep: Vec<&str> = keep.iter().map(String::as_str).collect();
            let pruned = bivouac_image::prune(&images.store()?, &keep)
                .map_err(|error| problem_of(&error))?;
            output::write(*output, &pruned, || {
                format!(
                    "removed {} things, {}\n",
                    pruned.removed.len(),
                    output::bytes(pruned.bytes)
                )
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Hashes everything in the store. Damage is shown and makes the command fail; the next build mends it.
async fn verify(global: &Global, format: Format) -> Result<ExitCode, Problems> {
    let (store, reporter, stop) =
        (StoreImages::open(global).store()?, progress::reporter(global), Cancel::new());
    let check = move || bivouac_image::verify(&store, &step_reporter(reporter), &stop);
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
        keys.extend(state.read(&name)?.map(|cluster| cluster.image));
    }
    Ok(keys)
}
