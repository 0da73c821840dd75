//! `bivouac bench`: the phases that minikube publishes for itself, kind and k3d, and `down`.
//!
//! A run is what a person would do: bring the cluster up, deploy a web app, ask it for a page, have it resolve a name inside its
//! pod. Processor time is that of the whole machine, so the machine should be quiet.

mod app;
mod machine;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bivouac_engine::{DownRequest, Reporter, UpRequest, down, up};
use bivouac_provider::Provider;
use bivouac_spec::cluster::{NodeGroup, Role};
use bivouac_spec::{Class, Cluster, ClusterName, Problem, Problems};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::args::{self, Global};
use crate::images::StoreImages;
use crate::selection::{open_provider, open_state, read_cluster};
use crate::{home, output, signals};

fn interrupted() -> Problem {
    Problem::new(Class::Interrupted, "cli.bench", "stopped before all runs were done")
}

/// The figures of one run. Times in seconds from the start of the command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    command_returns: f64,
    app_answers: f64,
    dns_answers: f64,
    down: f64,
    cpu_seconds: f64,
    memory: Vec<NodeMemory>,
}

/// The memory of a node once everything answers: PSS of all its processes, in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeMemory {
    node: String,
    pss: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    nodes: usize,
    runs: &'a [Run],
}

struct Bench<'a> {
    global: &'a Global,
    cluster: Cluster,
    provider: Arc<dyn Provider>,
    cancel: CancellationToken,
}

pub async fn run(global: &Global, arguments: &args::Bench) -> Result<ExitCode, Problems> {
    let mut cluster = match &arguments.file {
        Some(file) => read_cluster(file)?,
        None => Cluster::named(ClusterName::default()),
    };
    cluster.metadata.name =
        "bench".parse().map_err(|error| Problem::from_error("cli.bench", &error))?;
    if arguments.workers > 0 {
        cluster.spec.nodes.push(NodeGroup::new(Role::Worker, arguments.workers));
    }
    let provider = open_provider(global, &cluster.spec.provider);
    let bench = Bench { global, cluster, provider, cancel: signals::cancellation() };
    bench.prepare().await?;
    let mut runs = Vec::new();
    for number in 1..=arguments.runs {
        let run = bench.once().await?;
        let line = format!(
            "run {number} of {}: {:.2} s until DNS answers",
            arguments.runs, run.dns_answers
        );
        crate::progress::write_line(&line);
        runs.push(run);
    }
    let report = Report { nodes: bench.cluster.nodes().len(), runs: &runs };
    output::write(arguments.output, &report, || table::text(report.nodes, &runs))?;
    Ok(ExitCode::SUCCESS)
}

impl Bench<'_> {
    /// The image is there and no cluster of the name is, so that runs measure only themselves.
    async fn prepare(&self) -> Result<(), Problems> {
        let reporter = crate::progress::reporter(self.global);
        StoreImages::open(self.global).build(&reporter, &self.cancel).await?;
        self.down().await
    }

    async fn once(&self) -> Result<Run, Problems> {
        let run = tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(interrupted().into()),
            run = self.measure() => run,
        };
        if run.is_err() {
            // The error of the run is the one to tell; what could not be removed is told by the next run.
            let _ = self.down().await;
        }
        run
    }

    async fn measure(&self) -> Result<Run, Problems> {
        let (started, busy) = (Instant::now(), machine::busy_seconds()?);
        let stack = bivouac_stacks::open(&self.cluster.spec.stack);
        let request = UpRequest {
            cluster: &self.cluster,
            provider: Arc::clone(&self.provider),
            stack: stack.as_ref(),
            images: &StoreImages::open(self.global),
            agent: home::own_binary()?,
            state: &open_state(self.global),
            kubeconfig: None,
            timeout: Duration::from_secs(300),
        };
        up(&request, &Reporter::silent(), &self.cancel).await?;
        let command_returns = started.elapsed().as_secs_f64();
        let app = app::App::deploy(self.global, self.cluster.name()).await?;
        app.answers().await?;
        let app_answers = started.elapsed().as_secs_f64();
        app.resolves().await?;
        let dns_answers = started.elapsed().as_secs_f64();
        let cpu_seconds = machine::busy_seconds()? - busy;
        let memory = machine::memory(self.provider.as_ref(), self.cluster.name()).await?;
        let stopping = Instant::now();
        self.down().await?;
        let down = stopping.elapsed().as_secs_f64();
        Ok(Run { command_returns, app_answers, dns_answers, down, cpu_seconds, memory })
    }

    async fn down(&self) -> Result<(), Problems> {
        let (provider, state) = (Arc::clone(&self.provider), open_state(self.global));
        let request =
            DownRequest { cluster: self.cluster.name(), provider, state: &state, kubeconfig: None };
        down(&request, &Reporter::silent()).await.map(drop)
    }
}
