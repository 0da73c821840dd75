//! A name belongs to one cluster, whichever ground it is on.

use std::sync::Arc;
use std::time::Duration;

use bivouac_provider::Provider;
use bivouac_spec::cluster::Provider as Settings;
use bivouac_spec::{Cluster, ClusterName, Facts, Problem};

use crate::ClusterState;

/// How long a ground elsewhere may take to answer on which nothing is known to be.
pub const GROUND_PATIENCE: Duration = Duration::from_secs(2);

/// The same for this machine, which may be busy, but answers.
const OWN_PATIENCE: Duration = Duration::from_secs(15);

/// A ground.
#[derive(Clone)]
pub struct Ground {
    /// As a cluster file names it.
    pub settings: Settings,
    /// The opened ground.
    pub provider: Arc<dyn Provider>,
}

impl Ground {
    /// How long it may take to answer when nothing is known to be on it.
    #[must_use]
    pub const fn patience(&self) -> Duration {
        match self.settings {
            Settings::Linux(_) => OWN_PATIENCE,
            Settings::Docker(_) | Settings::Compose(_) => GROUND_PATIENCE,
        }
    }

    /// Its name, with what tells it from others of the kind: ``docker (context `office`)``.
    #[must_use]
    pub fn describe(&self) -> String {
        let name = self.settings.name();
        match &self.settings {
            Settings::Docker(docker) | Settings::Compose(docker) => match &docker.context {
                Some(context) => format!("{name} (context `{context}`)"),
                None => name.to_owned(),
            },
            Settings::Linux(_) => name.to_owned(),
        }
    }
}

/// Whether a cluster was made on another ground of the kind than the one that is asked now, such as another container engine. What
/// is recorded says nothing of that one then. `None` where it is the same, or cannot be told.
#[must_use]
pub fn other_ground(name: &ClusterName, state: &ClusterState, facts: &Facts) -> Option<Problem> {
    let (before, now) = (&state.facts, facts);
    let is_same = [&before.identity, &now.identity].iter().any(|it| it.is_empty())
        || before.identity == now.identity;
    if is_same {
        return None;
    }
    let message = if before.place == now.place {
        format!("cluster `{name}` was made on {}, where another one answers now", before.place)
    } else {
        format!("cluster `{name}` was made on {}, and {} is selected now", before.place, now.place)
    };
    let mut problem = Problem::usage("engine.other_ground", message).help(format!(
        "select that engine again, with `DOCKER_HOST` or `docker context use`, or delete `clusters/{name}` in the state folder if that engine is gone for good"
    ));
    problem
        .causes
        .push(format!("it was made on `{}`, this is `{}`", before.identity, now.identity));
    Some(problem)
}

/// Refuses to work on a cluster that was made on another ground than this one. Asks the ground only where there may be several.
pub(crate) async fn refuse_other_ground(
    name: &ClusterName,
    provider: &dyn Provider,
    known: Option<&ClusterState>,
) -> Result<(), Problem> {
    let Some(known) = known.filter(|state| !state.facts.identity.is_empty()) else {
        return Ok(());
    };
    let survey = provider.survey().await?;
    other_ground(name, known, &survey.facts).map_or(Ok(()), Err)
}

/// Refuses a cluster whose name another ground has. A ground that does not answer counts only when the cluster is recorded there.
pub(crate) async fn refuse_elsewhere(
    cluster: &Cluster,
    others: &[Ground],
    known: Option<&ClusterState>,
) -> Result<(), Problem> {
    let recorded = known.map(|state| &state.applied.cluster.spec.provider);
    if recorded == Some(&cluster.spec.provider) {
        return Ok(());
    }
    let asked = others.iter().filter(|other| other.settings != cluster.spec.provider);
    let asked =
        asked.map(|other| ask(cluster, other, known.filter(|_| recorded == Some(&other.settings))));
    futures::future::try_join_all(asked).await.map(drop)
}

async fn ask(
    cluster: &Cluster,
    other: &Ground,
    recorded: Option<&ClusterState>,
) -> Result<(), Problem> {
    let (name, ground) = (cluster.name(), other.describe());
    let observed = if recorded.is_some() {
        let observed = other.provider.observe().await.map_err(|problem| {
            let message =
                format!("cluster `{name}` was made on {ground}, which does not answer now");
            Problem::failed("engine.ground_silent", message).because(&problem).help(format!(
                "name another cluster, or make {ground} answer and run the same command again"
            ))
        })?;
        refuse_other_ground(name, other.provider.as_ref(), recorded).await?;
        observed
    } else {
        let answer = tokio::time::timeout(other.patience(), other.provider.observe()).await;
        answer.ok().and_then(Result::ok).unwrap_or_default()
    };
    if !observed.iter().any(|observed| observed.name == *name) {
        return Ok(());
    }
    let message = format!("cluster `{name}` exists already, on {ground}");
    Err(Problem::usage("engine.name_taken", message)
        .help(format!("name another cluster, or remove that one with `bivouac down {name}`")))
}
