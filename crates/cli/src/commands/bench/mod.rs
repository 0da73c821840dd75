//! `bivouac bench`: the phases that minikube publishes for itself, kind and k3d, and `down`.
//!
//! A run is what a person would do: bring the cluster up, deploy a web app, ask it for a page, have it resolve a name inside its
//! pod. The node image is in the store, and on the ground, before the first run. Processor time is that of the whole machine, so the
//! machine should be quiet.

mod app;
mod machine;
mod table;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bivouac_engine::{
    DownRequest, Ground, NodeImages as _, PrepareRequest, Reporter, UpOptions, bring_image, down,
    up,
};
use bivouac_provider::ImageRequest;
use bivouac_spec::cluster::{NodeGroup, Port, Protocol, Role};
use bivouac_spec::{Class, Cluster, ClusterName, Problem, Problems};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::args::{self, Global};
use crate::grounds::{open_ground, open_grounds};
use crate::images::StoreImages;
use crate::selection::{open_state, read_cluster};
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
    provider: &'static str,
    nodes: usize,
    /// Always: loading it once is not part of what is measured.
    node_image_loaded_before: bool,
    runs: &'a [Run],
    /// Why there are fewer runs than were asked for.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    problems: &'a [Problem],
}

struct Bench<'a> {
    global: &'a Global,
    cluster: Cluster,
    ground: Ground,
    cancel: CancellationToken,
}

pub async fn run(global: &Global, arguments: &args::Bench) -> Result<ExitCode, Problems> {
    let mut cluster = match (&arguments.file, arguments.provider) {
        (Some(file), provider) => read_cluster(file, provider)?,
        (None, provider) => {
            let mut cluster = Cluster::named(ClusterName::default());
            cluster.spec.provider = provider.map(args::ProviderName::settings).unwrap_or_default();
            cluster
        }
    };
    cluster.metadata.name =
        "bench".parse().map_err(|error| Problem::from_error("cli.bench", &error))?;
    if arguments.workers > 0 {
        cluster.spec.nodes.push(NodeGroup::new(Role::Worker, arguments.workers));
    }
    let ground = open_ground(global, &cluster.spec.provider);
    let mut bench = Bench { global, cluster, ground, cancel: signals::cancellation() };
    let mut runs = Vec::new();
    let outcome = bench.all(arguments.runs, &mut runs).await;
    let report = Report {
        provider: bench.cluster.spec.provider.name(),
        nodes: bench.cluster.nodes().len(),
        node_image_loaded_before: true,
        runs: &runs,
        problems: outcome.as_ref().err().map(Problems::as_slice).unwrap_or_default(),
    };
    output::write(arguments.output, &report, || match &runs[..] {
        [] => String::new(),
        runs => table::text(report.provider, report.nodes, runs),
    })?;
    outcome.map(|()| ExitCode::SUCCESS)
}

impl Bench<'_> {
    /// All runs; those that were done are in `runs` when one fails.
    async fn all(&mut self, count: u32, runs: &mut Vec<Run>) -> Result<(), Problems> {
        self.prepare().await?;
        for number in 1..=count {
            let run = self.once().await?;
            let line =
                format!("run {number} of {count}: {:.2} s until DNS answers", run.dns_answers);
            crate::progress::write_line(&line);
            runs.push(run);
        }
        Ok(())
    }

    /// The image is there and no cluster of the name is, so that runs measure only themselves.
    async fn prepare(&mut self) -> Result<(), Problems> {
        let survey = self.ground.provider.survey().await?;
        Problems::check(survey.unmet())?;
        if !survey.facts.reaches_nodes {
            self.publish_app()?;
        }
        let (reporter, images) =
            (crate::progress::reporter(self.global), StoreImages::open(self.global));
        let image = images.ensure(&images.current()?, &reporter, &self.cancel).await?;
        let request = ImageRequest { image, agent: home::own_binary()? };
        let ground = (self.ground.settings.name(), self.ground.provider.as_ref());
        bring_image(ground, &request, &reporter, &self.cancel).await?;
        self.down().await
    }

    /// Publishes the app on a port of the host, unless the cluster file does.
    fn publish_app(&mut self) -> Result<(), Problem> {
        let ports = &mut self.cluster.spec.ports;
        if ports.iter().any(|port| port.port == app::NODE_PORT && port.node.is_none()) {
            return Ok(());
        }
        // Free at this moment; whoever takes it meanwhile is told by `up`.
        let host_ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let free = TcpListener::bind((host_ip, 0)).and_then(|listener| listener.local_addr());
        let free = free.map_err(|error| Problem::from_error("cli.bench", &error))?;
        ports.push(Port {
            host_port: free.port(),
            port: app::NODE_PORT,
            node: None,
            host_ip,
            protocol: Protocol::Tcp,
        });
        Ok(())
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
        let state = open_state(self.global);
        let request = PrepareRequest {
            cluster: &self.cluster,
            provider: Arc::clone(&self.ground.provider),
            grounds: &open_grounds(self.global, &state),
            stack: stack.as_ref(),
            images: &StoreImages::open(self.global),
            state: &state,
        };
        let options = UpOptions {
            agent: home::own_binary()?,
            kubeconfig: None,
            remotes: None,
            verb: "up",
            only: std::collections::BTreeSet::new(),
            timeout: Duration::from_secs(300),
        };
        up(&request, &options, &Reporter::silent(), &self.cancel).await?;
        let command_returns = started.elapsed().as_secs_f64();
        let app = app::App::deploy(self.global, self.cluster.name()).await?;
        app.answers().await?;
        let app_answers = started.elapsed().as_secs_f64();
        app.resolves().await?;
        let dns_answers = started.elapsed().as_secs_f64();
        let cpu_seconds = machine::busy_seconds()? - busy;
        let memory = machine::memory(self.ground.provider.as_ref(), self.cluster.name()).await?;
        let stopping = Instant::now();
        self.down().await?;
        let down = stopping.elapsed().as_secs_f64();
        Ok(Run { command_returns, app_answers, dns_answers, down, cpu_seconds, memory })
    }

    async fn down(&self) -> Result<(), Problems> {
        let (provider, state) = (Arc::clone(&self.ground.provider), open_state(self.global));
        let request =
            DownRequest { cluster: self.cluster.name(), provider, state: &state, kubeconfig: None };
        down(&request, &Reporter::silent()).await.map(drop)
    }
}
