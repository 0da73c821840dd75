//! `bivouac status`

use std::fmt::Write as _;
use std::process::ExitCode;

use bivouac_engine::{About, ClusterStatus, NodeReport, add_certificates, cluster_status};
use bivouac_spec::node::UnitState;
use bivouac_spec::{Class, NodeName, Problems};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::args::{self, Global};
use crate::progress::sentence;
use crate::selection::{choose, open_state};
use crate::{output, report};

pub async fn run(global: &Global, arguments: &args::Status) -> Result<ExitCode, Problems> {
    let existing = choose(global, arguments.name.as_ref()).await?;
    let (ground, state) = (&existing.ground, existing.state.as_ref());
    let (provider, name) = (ground.provider.as_ref(), ground.settings.name());
    let mut status = cluster_status(provider, name, &existing.observed, state).await;
    if let Some(known) = state {
        let added = add_certificates(&mut status, &open_state(global), known, Timestamp::now());
        // Keys that cannot be read are one more thing that is wrong.
        status.problems.extend(added.err());
    }
    output::write(arguments.output, &status, || text(&status, arguments.services))?;
    let failed = ExitCode::from(Class::Failed.exit_code());
    Ok(if status.usable { ExitCode::SUCCESS } else { failed })
}

fn text(status: &ClusterStatus, services: bool) -> String {
    let usable = if status.usable { "usable" } else { "not usable" };
    let mut text = format!("cluster {} on {}: {usable}\n", status.name, status.provider);
    if let Some(about) = &status.about {
        text.push_str(&about_text(about));
    }
    text.push('\n');
    let head = ["NODE", "ROLE", "STATE", "ADDRESSES", "UP FOR", "MEMORY", "CPUS", "WAITS FOR"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(status.nodes.iter().map(|(name, node)| node_row(name, node)));
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

fn about_text(about: &About) -> String {
    let date = |time: Timestamp| time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string();
    let list = |networks: &[_]| {
        let networks: Vec<String> = networks.iter().map(ToString::to_string).collect();
        networks.join(", ")
    };
    let image: String = about.image.chars().take(12).collect();
    let mut rows = vec![
        ("stack", about.stack.clone()),
        (
            "made",
            format!(
                "{}, by bivouac {}, from node image {image}",
                date(about.created),
                about.bivouac
            ),
        ),
        ("nodes", list(&about.node_networks)),
    ];
    for (name, networks) in [("pods", &about.pod_networks), ("services", &about.service_networks)] {
        if !networks.is_empty() {
            rows.push((name, list(networks)));
        }
    }
    if let Some(end) = about.certificates_end {
        rows.push(("certificates", format!("until {}", date(end))));
    }
    rows.into_iter().map(|(name, value)| format!("  {name:<12}  {value}\n")).collect()
}

fn node_row(name: &NodeName, node: &NodeReport) -> Vec<String> {
    let absent = || "-".to_owned();
    let said = node.status.as_ref();
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    let usage = said.and_then(|said| said.usage);
    let memory = usage.and_then(|usage| usage.memory);
    let cpu = usage.and_then(|usage| usage.cpu);
    vec![
        name.to_string(),
        node.role.clone().unwrap_or_else(absent),
        node.word().name().to_owned(),
        if addresses.is_empty() { absent() } else { addresses.join(", ") },
        said.map_or_else(absent, |said| up_for(said.uptime)),
        memory.map_or_else(absent, output::bytes),
        said.zip(cpu).map_or_else(absent, |(said, cpu)| average(cpu, said.uptime)),
        said.and_then(sentence::waiting).unwrap_or_default(),
    ]
}

/// How many processors were busy on average: `0.25`. Both are milliseconds.
#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn average(busy: u64, uptime: u64) -> String {
    format!("{:.2}", busy as f64 / uptime.max(1) as f64)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_from_the_cluster_to_what_is_wrong() {
        let document = serde_json::json!({
            "name": "demo", "provider": "linux", "usable": false, "groundAnswers": true,
            "about": {
                "stack": "Kubernetes v1.36.3", "bivouac": "0.1.0", "created": "2026-11-21T10:00:00Z",
                "image": "0123456789abcdef", "nodeNetworks": ["10.80.0.0/24", "fd00::/64"],
                "podNetworks": ["10.244.0.0/16"], "serviceNetworks": [], "certificatesEnd": "2027-11-21T10:00:00Z",
            },
            "nodes": {
                "control-plane-0": {
                    "role": "control-plane", "state": "running", "address": "10.80.0.2",
                    "addresses": ["10.80.0.2", "fd00::2"],
                    "status": {
                        "cluster": "demo", "node": "control-plane-0", "config": "", "phase": "usable",
                        "uptime": 3_700_000, "units": [],
                        "usage": {"memory": 812_000_000, "cpu": 925_000, "tasks": 61},
                    },
                },
                "worker-0": {"role": "worker", "addresses": ["10.80.0.3", "fd00::3"]},
            },
            "problems": [{
                "code": "status.node_absent", "class": "failed", "message": "node `worker-0` is missing", "causes": [],
                "help": "run `bivouac up demo` to bring it back",
            }],
        });
        let status = serde_json::from_value(document).unwrap();
        let expected = "\
cluster demo on linux: not usable
  stack         Kubernetes v1.36.3
  made          2026-11-21, by bivouac 0.1.0, from node image 0123456789ab
  nodes         10.80.0.0/24, fd00::/64
  pods          10.244.0.0/16
  certificates  until 2027-11-21

NODE             ROLE           STATE    ADDRESSES           UP FOR  MEMORY     CPUS  WAITS FOR
control-plane-0  control-plane  usable   10.80.0.2, fd00::2  1h1m    812.00 MB  0.25
worker-0         worker         missing  10.80.0.3, fd00::3  -       -          -

problem: node `worker-0` is missing [status.node_absent]
  hint: run `bivouac up demo` to bring it back
";
        assert_eq!(text(&status, false), expected);
    }
}
