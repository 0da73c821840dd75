//! `bivouac upgrade`

use std::collections::BTreeSet;
use std::process::ExitCode;

use bivouac_engine::ImageChoice;
use bivouac_spec::Problems;
use bivouac_spec::cluster::{Locations, validate};

use super::plan::{Planned, show_plan};
use super::up::{BringUp, bring_up_with, tell};
use crate::args::{Global, Upgrade};
use crate::selection::choose;

pub async fn run(global: &Global, upgrade: &Upgrade) -> Result<ExitCode, Problems> {
    let existing = choose(global, upgrade.name.as_ref()).await?;
    let mut cluster = existing.known()?.applied.cluster.clone();
    cluster.set_version(upgrade.to.as_deref())?;
    Problems::check(validate(&cluster, &Locations::default()))?;
    let node_image = ImageChoice::Current;
    if upgrade.dry_run {
        let planned = Planned { cluster: &cluster, node_image };
        return show_plan(global, &planned, &command(upgrade), upgrade.output).await;
    }
    let asked = BringUp {
        cluster: &cluster,
        verb: "upgrade",
        only: BTreeSet::new(),
        follow: &upgrade.follow,
        drain: upgrade.drain.drain(),
        node_image,
    };
    tell(&bring_up_with(global, asked).await?, upgrade.output)
}

/// As it was typed.
fn command(upgrade: &Upgrade) -> String {
    let name = upgrade.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let to = upgrade.to.as_ref().map(|to| format!(" --to {to}")).unwrap_or_default();
    format!("bivouac upgrade{name}{to}")
}
