//! `bivouac plan`

use std::process::ExitCode;
use std::time::SystemTime;

use bivouac_engine::{ImageChoice, PrepareRequest, prepare};
use bivouac_plan::{Action, Plan};
use bivouac_spec::{Cluster, Problems};
use bivouac_stacks::Given;

use crate::args::{self, Format, Global, Source};
use crate::grounds::{open_ground, open_grounds};
use crate::images::StoreImages;
use crate::selection::{cluster_asked_for, open_state};
use crate::{output, sources};

pub async fn run(global: &Global, plan: &args::Plan) -> Result<ExitCode, Problems> {
    show(global, &plan.source, plan.output).await
}

/// Shows what `up` would do. A plan with refusals is shown and then reported as their problems.
pub async fn show(global: &Global, source: &Source, format: Format) -> Result<ExitCode, Problems> {
    let cluster = cluster_asked_for(global, source)?;
    let planned = Planned { cluster: &cluster, node_image: ImageChoice::Own };
    show_plan(global, &planned, &format!("bivouac up{}", asked(source)), format).await
}

/// What a command would make.
pub struct Planned<'a> {
    /// The cluster that is asked for.
    pub cluster: &'a Cluster,
    /// Which node image it gets if it exists.
    pub node_image: ImageChoice,
}

/// Shows what would make a cluster what it is asked to be, which `command` does.
pub async fn show_plan(
    global: &Global,
    planned: &Planned<'_>,
    command: &str,
    format: Format,
) -> Result<ExitCode, Problems> {
    let cluster = planned.cluster;
    let given = Given { found: sources::found(cluster)?, drain: None };
    let stack = bivouac_stacks::open_with(&cluster.spec.stack, given)?;
    let state = open_state(global);
    let request = PrepareRequest {
        cluster,
        provider: open_ground(global, &cluster.spec.provider).provider,
        grounds: &open_grounds(global, &state),
        stack: stack.as_ref(),
        images: &StoreImages::of(global, &cluster.spec.stack),
        state: &state,
        node_image: planned.node_image,
        now: SystemTime::now(),
    };
    // What stops it before anything is planned is a plan that refuses, for whoever reads documents.
    let plan = prepare(&request).await.map_or_else(
        |problems| Plan {
            cluster: cluster.name().clone(),
            actions: Vec::new(),
            refusals: problems.as_slice().to_vec(),
            notes: Vec::new(),
        },
        |prepared| prepared.plan,
    );
    output::write(format, &plan, || {
        let mut text = String::new();
        for action in &plan.actions {
            text.push_str(&format!("{}\n", action.describe()));
        }
        for note in &plan.notes {
            text.push_str(&format!("note: {note}\n"));
        }
        if !plan.refusals.is_empty() {
            return text;
        }
        if plan.is_empty() {
            text.push_str(&format!("cluster {} is as asked: nothing to do\n", cluster.name()));
        } else {
            text.push_str(&format!("{} to do; `{command}` does it\n", count(&plan.actions)));
        }
        text
    })?;
    plan.check()?;
    Ok(ExitCode::SUCCESS)
}

/// What was asked for, as it was typed.
fn asked(source: &Source) -> String {
    let file = source.file.as_ref().map(|file| format!(" -f {file}")).unwrap_or_default();
    let name = source.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    let provider = source.provider.map(|provider| provider.settings());
    let provider = provider.map(|settings| format!(" --provider {}", settings.name()));
    file + &provider.unwrap_or_default() + &name
}

/// How many actions, in words.
pub fn count(actions: &[Action]) -> String {
    match actions.len() {
        1 => "1 action".to_owned(),
        many => format!("{many} actions"),
    }
}
