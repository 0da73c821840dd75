//! A cluster that is stopped, started, saved, restored and forked.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bivouac_engine::{
    DeleteRequest, DownRequest, ForkRequest, Reporter, RestoreRequest, SaveRequest, Snapshots,
    StopRequest, UpOptions, delete_snapshots, down, fork, restore, save, stop,
};
use bivouac_spec::{ClusterName, Problem, Problems, SnapshotName};

use super::Bench;
use super::figures::Life;
use crate::grounds::open_grounds;
use crate::home;
use crate::selection::open_state;

fn options(verb: &'static str) -> Result<UpOptions, Problem> {
    Ok(UpOptions {
        agent: home::own_binary()?,
        kubeconfig: None,
        remotes: None,
        verb,
        only: BTreeSet::new(),
        timeout: Duration::from_secs(300),
    })
}

impl Bench<'_> {
    /// The snapshot, and the fork.
    fn names(&self) -> Result<(SnapshotName, ClusterName), Problem> {
        let unfit = |error| Problem::from_error("cli.bench", &error);
        let fork = format!("{}-fork", self.cluster.name());
        Ok(("bench".parse().map_err(unfit)?, fork.parse().map_err(unfit)?))
    }

    /// Each as its command does it. The cluster is usable before and afterwards.
    pub(super) async fn copies(&self, life: &mut Life) -> Result<(), Problems> {
        let (name, second) = self.names()?;
        self.forget().await?;
        self.save_and_restore(life, &name).await?;
        // Where there are no forks, there is nothing to measure.
        let stack = bivouac_stacks::open(&self.cluster.spec.stack);
        if stack.fork_joins(&self.cluster).is_ok() {
            life.fork = Some(self.fork(&second).await?);
        }
        self.forget().await?;
        self.stop_and_start(life).await
    }

    async fn stop_and_start(&self, life: &mut Life) -> Result<(), Problems> {
        let request = StopRequest {
            cluster: self.cluster.name(),
            nodes: &BTreeSet::new(),
            provider: Arc::clone(&self.ground.provider),
            state: &open_state(self.global),
        };
        let started = Instant::now();
        stop(&request, &Reporter::silent()).await?;
        life.stop = Some(started.elapsed().as_secs_f64());
        let started = Instant::now();
        self.up(&self.cluster).await?;
        life.start = Some(started.elapsed().as_secs_f64());
        Ok(())
    }

    async fn save_and_restore(&self, life: &mut Life, name: &SnapshotName) -> Result<(), Problems> {
        let (cluster, state) = (self.cluster.name(), open_state(self.global));
        let request = SaveRequest {
            cluster,
            name,
            provider: Arc::clone(&self.ground.provider),
            state: &state,
        };
        let started = Instant::now();
        let saved = save(&request, &Reporter::silent(), &self.cancel).await?;
        life.save = Some(started.elapsed().as_secs_f64());
        life.paused = Some(Duration::from_millis(saved.paused_for).as_secs_f64());
        let request = RestoreRequest {
            cluster,
            name,
            provider: Arc::clone(&self.ground.provider),
            grounds: &open_grounds(self.global, &state),
            images: &self.images(),
            state: &state,
        };
        let options = options("snapshot restore")?;
        let started = Instant::now();
        restore(&request, &options, &Reporter::silent(), &self.cancel).await?;
        life.restore = Some(started.elapsed().as_secs_f64());
        Ok(())
    }

    /// Saving is part of it.
    async fn fork(&self, name: &ClusterName) -> Result<f64, Problems> {
        let state = open_state(self.global);
        let request = ForkRequest {
            name,
            before: self.cluster.name(),
            snapshot: None,
            provider: Arc::clone(&self.ground.provider),
            grounds: &open_grounds(self.global, &state),
            images: &self.images(),
            state: &state,
        };
        let options = options("fork")?;
        let started = Instant::now();
        fork(&request, &options, &Reporter::silent(), &self.cancel).await?;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Removes what a run leaves, one that was cut short as well.
    pub(super) async fn forget(&self) -> Result<(), Problems> {
        let (name, second) = &self.names()?;
        let (cluster, state) = (self.cluster.name(), open_state(self.global));
        let provider = Arc::clone(&self.ground.provider);
        let request = DownRequest { cluster: second, provider, state: &state, kubeconfig: None };
        down(&request, &Reporter::silent()).await?;
        if Snapshots::of(&state).names(cluster)?.contains(name) {
            let names = std::slice::from_ref(name);
            delete_snapshots(&DeleteRequest { cluster, names, state: &state })?;
        }
        Ok(())
    }
}
