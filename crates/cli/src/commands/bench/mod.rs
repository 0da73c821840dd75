//! `bivouac bench`: the phases that minikube publishes for itself, kind and k3d, and `down`.
//!
//! A run is what a person would do: bring the cluster up, deploy a web app, ask it for a page, have it resolve a name inside its
//! pod; of a cluster of Incus, launch an instance on each member and have them reach each other by name. The node image is in the store, and on the ground, before the first run. Processor time is that of the whole machine, so the
//! machine should be quiet.

mod app;
mod copies;
mod figures;
mod instances;
mod machine;
mod table;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bivouac_engine::{
    DownRequest, Ground, ImageChoice, NodeImages as _, PrepareRequest, Reporter, UpOptions,
    bring_image, down, up,
};
use bivouac_provider::ImageRequest;
use bivouac_spec::cluster::{NodeGroup, Port, Protocol, Role, Stack};
use bivouac_spec::{Class, Cluster, ClusterName, Problem, Problems};
use bivouac_stacks::Given;
use figures::{Answers, Life, Run};
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::args::{self, Global};
use crate::grounds::{open_ground, open_grounds};
use crate::images::StoreImages;
use crate::selection::{open_state, read_cluster};
use crate::{home, output, signals, sources};

fn interrupted() -> Problem {
    Problem::new(Class::Interrupted, "cli.bench", "stopped before all runs were done")
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report<'a> {
    provider: &'static str,
    stack: &'static str,
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
    /// Whether it goes through changes as well.
    lives: bool,
    cancel: CancellationToken,
}

pub async fn run(global: &Global, arguments: &args::Bench) -> Result<ExitCode, Problems> {
    let cluster = wanted(arguments)?;
    let ground = open_ground(global, &cluster.spec.provider);
    let (cancel, lives) = (signals::cancellation(), arguments.life);
    let mut bench = Bench { global, cluster, ground, lives, cancel };
    let mut runs = Vec::new();
    let outcome = bench.all(arguments.runs, &mut runs).await;
    let report = Report {
        provider: bench.cluster.spec.provider.name(),
        stack: bench.cluster.spec.stack.name(),
        nodes: bench.cluster.nodes().len(),
        node_image_loaded_before: true,
        runs: &runs,
        problems: outcome.as_ref().err().map(Problems::as_slice).unwrap_or_default(),
    };
    output::write(arguments.output, &report, || match &runs[..] {
        [] => String::new(),
        runs => {
            table::text(&format!("{} on {}", report.stack, report.provider), report.nodes, runs)
        }
    })?;
    outcome.map(|()| ExitCode::SUCCESS)
}

/// What is brought up.
fn wanted(arguments: &args::Bench) -> Result<Cluster, Problems> {
    let mut cluster = match (&arguments.file, arguments.provider) {
        (Some(file), provider) => read_cluster(file, provider)?,
        (None, provider) => {
            let mut cluster = Cluster::named(ClusterName::default());
            cluster.spec.provider = provider.map(args::ProviderName::settings).unwrap_or_default();
            if arguments.stack == args::ImageStack::Incus {
                cluster.spec.stack = Stack::Incus(bivouac_spec::cluster::Incus::default());
                cluster.spec.nodes = vec![NodeGroup::new(Role::Member, 1)];
            }
            cluster
        }
    };
    cluster.metadata.name = arguments.name.clone();
    if arguments.workers > 0 {
        cluster.add_nodes(usual_role(&cluster), None, arguments.workers)?;
    }
    Ok(cluster)
}

/// What a cluster of this stack can have any number of.
fn usual_role(cluster: &Cluster) -> Role {
    cluster.spec.stack.roles().last().copied().unwrap_or(Role::Worker)
}

impl Bench<'_> {
    /// All runs; those that were done are in `runs` when one fails.
    async fn all(&mut self, count: u32, runs: &mut Vec<Run>) -> Result<(), Problems> {
        self.prepare().await?;
        for number in 1..=count {
            let run = self.once().await?;
            let line =
                format!("run {number} of {count}: {:.2} s until all answers", run.answers.last());
            crate::progress::write_line(&line);
            runs.push(run);
        }
        Ok(())
    }

    /// The image is there and no cluster of the name is, so that runs measure only themselves.
    async fn prepare(&mut self) -> Result<(), Problems> {
        let survey = self.ground.provider.survey().await?;
        Problems::check(survey.unmet())?;
        if !survey.facts.reaches_nodes && matches!(self.cluster.spec.stack, Stack::Kubernetes(_)) {
            self.publish_app()?;
        }
        let (reporter, images) = (crate::progress::reporter(self.global), self.images());
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
            if self.lives {
                let _ = self.forget().await;
            }
            let _ = self.down().await;
        }
        run
    }

    async fn measure(&self) -> Result<Run, Problems> {
        let (started, busy) = (Instant::now(), machine::busy_seconds()?);
        self.up(&self.cluster).await?;
        let command_returns = started.elapsed().as_secs_f64();
        let answers = self.ask(started).await?;
        let cpu_seconds = machine::busy_seconds()? - busy;
        let memory = machine::memory(self.ground.provider.as_ref(), self.cluster.name()).await?;
        let life = if self.lives { Some(self.live().await?) } else { None };
        let stopping = Instant::now();
        self.down().await?;
        let down = stopping.elapsed().as_secs_f64();
        Ok(Run { command_returns, answers, life, down, cpu_seconds, memory })
    }

    /// Uses the cluster, and says when that worked.
    async fn ask(&self, started: Instant) -> Result<Answers, Problem> {
        match &self.cluster.spec.stack {
            Stack::Kubernetes(_) => app::ask(self.global, self.cluster.name(), started).await,
            Stack::Incus(_) => instances::ask(self.global, self.cluster.name(), started).await,
        }
    }

    /// Changes of the cluster, one after another.
    async fn live(&self) -> Result<Life, Problems> {
        let mut life = Life::default();
        self.copies(&mut life).await?;
        let mut larger = self.cluster.clone();
        larger.add_nodes(usual_role(&larger), None, 1)?;
        let started = Instant::now();
        self.up(&larger).await?;
        life.node_joins = started.elapsed().as_secs_f64();
        Ok(life)
    }

    fn images(&self) -> StoreImages {
        StoreImages::of(self.global, &self.cluster.spec.stack)
    }

    async fn up(&self, cluster: &Cluster) -> Result<(), Problems> {
        let given = Given { found: sources::found(cluster)?, drain: None };
        let stack = bivouac_stacks::open_with(&cluster.spec.stack, given)?;
        let state = open_state(self.global);
        let request = PrepareRequest {
            cluster,
            provider: Arc::clone(&self.ground.provider),
            grounds: &open_grounds(self.global, &state),
            stack: stack.as_ref(),
            images: &self.images(),
            state: &state,
            node_image: ImageChoice::Own,
            now: SystemTime::now(),
        };
        let options = UpOptions {
            agent: home::own_binary()?,
            kubeconfig: None,
            remotes: None,
            verb: "up",
            only: std::collections::BTreeSet::new(),
            timeout: Duration::from_secs(300),
        };
        up(&request, &options, &Reporter::silent(), &self.cancel).await.map(drop)
    }

    async fn down(&self) -> Result<(), Problems> {
        let (provider, state) = (Arc::clone(&self.ground.provider), open_state(self.global));
        let request =
            DownRequest { cluster: self.cluster.name(), provider, state: &state, kubeconfig: None };
        down(&request, &Reporter::silent()).await.map(drop)
    }
}
