//! `bivouac status`

use std::fmt::Write as _;
use std::process::ExitCode;

use bivouac_engine::{ClusterStatus, cluster_status};
use bivouac_spec::Problems;
use bivouac_spec::node::UnitState;

use crate::args::{self, Global};
use crate::progress::sentence;
use crate::selection::choose;
use crate::{output, report};

pub async fn run(global: &Global, arguments: &args::Status) -> Result<ExitCode, Problems> {
    let existing = choose(global, arguments.name.as_ref()).await?;
    let (ground, state) = (&existing.ground, existing.state.as_ref());
    let (provider, name) = (ground.provider.as_ref(), ground.settings.name());
    let status = cluster_status(provider, name, &existing.observed, state).await;
    output::write(arguments.output, &status, || text(&status, arguments.services))?;
    Ok(if status.usable { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn text(status: &ClusterStatus, services: bool) -> String {
    let usable = if status.usable { "usable" } else { "not usable" };
    let mut text = format!("cluster {} on {}: {usable}\n\n", status.name, status.provider);
    let mut rows = vec![
        ["NODE", "ROLE", "STATE", "ADDRESS", "UP FOR", "WAITS FOR"].map(str::to_owned).to_vec(),
    ];
    for (name, node) in &status.nodes {
        let said = node.status.as_ref();
        rows.push(vec![
            name.to_string(),
            node.role.clone().unwrap_or_else(|| "-".to_owned()),
            node.word().name().to_owned(),
            node.address.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            said.map_or_else(|| "-".to_owned(), |said| up_for(said.uptime)),
            said.and_then(sentence::waiting).unwrap_or_default(),
        ]);
    }
    text.push_str(&output::table(&rows));
    if services {
        text.push('\n');
        text.push_str(&output::table(&service_rows(status)));
    }
    for remains in &status.remains {
        let _ = writeln!(text, "left over: {remains}");
    }
    for problem in &status.problems {
        text.push('\n');
        report::render(&mut text, "problem", problem, false);
    }
    text
}

fn service_rows(status: &ClusterStatus) -> Vec<Vec<String>> {
    let mut rows = vec![
        ["NODE", "UNIT", "STATE", "PID", "RESTARTS", "READY AFTER", "DETAIL"]
            .map(str::to_owned)
            .to_vec(),
    ];
    for (name, node) in &status.nodes {
        for unit in node.status.iter().flat_map(|said| &said.units) {
            let state = match unit.state {
                UnitState::Waiting => "waiting",
                UnitState::Starting => "starting",
                UnitState::Ready => "ready",
                UnitState::Restarting => "restarting",
                UnitState::Stopping => "stopping",
                UnitState::Stopped => "stopped",
            };
            rows.push(vec![
                name.to_string(),
                unit.name.clone(),
                state.to_owned(),
                unit.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
                unit.restarts.to_string(),
                unit.ready_after.map_or_else(|| "-".to_owned(), sentence::seconds),
                unit.detail.clone().unwrap_or_default(),
            ]);
        }
    }
    rows
}

/// A time in milliseconds for people, to two units.
fn up_for(millis: u64) -> String {
    let seconds = millis / 1000;
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, minutes) => format!("{minutes}m{}s", seconds % 60),
        (0, hours, minutes) => format!("{hours}h{}m", minutes % 60),
        (days, hours, _) => format!("{days}d{}h", hours % 24),
    }
}
