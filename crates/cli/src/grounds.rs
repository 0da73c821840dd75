//! All grounds, and what is on them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bivouac_engine::{ClusterState, Ground, StateDirectory, other_ground};
use bivouac_provider::Provider;
use bivouac_providers::{OpenRequest, is_absent};
use bivouac_spec::cluster::Provider as Settings;
use bivouac_spec::{ClusterName, Facts, ObservedCluster, Problem};

use crate::args::Global;

/// How long a ground may take to answer that a recorded cluster is on.
const NEEDED_PATIENCE: Duration = Duration::from_secs(15);

/// What can be read of a cluster's state.
type Read = Result<Option<ClusterState>, Problem>;

/// Opens a ground. Touches nothing.
pub fn open_ground(global: &Global, settings: &Settings) -> Ground {
    let request = OpenRequest { state: global.state_dir.clone(), docker: global.docker.clone() };
    let provider = bivouac_providers::open(settings, &request);
    Ground { settings: settings.clone(), provider }
}

/// Every ground that clusters can be on: each kind with its defaults, and those that recorded clusters were made on.
pub fn open_grounds(global: &Global, state: &StateDirectory) -> Vec<Ground> {
    // A state folder that cannot be read is told by whoever works with it.
    let read = read_all(state).unwrap_or_default();
    settings(read.values()).iter().map(|settings| open_ground(global, settings)).collect()
}

fn read_all(state: &StateDirectory) -> Result<BTreeMap<ClusterName, Read>, Problem> {
    let names = state.clusters()?.into_iter();
    Ok(names.map(|name| (name.clone(), state.read(&name))).collect())
}

fn settings<'a>(read: impl Iterator<Item = &'a Read>) -> Vec<Settings> {
    let mut all = bivouac_providers::all();
    for settings in read.filter_map(recorded) {
        if !all.contains(settings) {
            all.push(settings.clone());
        }
    }
    all
}

fn recorded(read: &Read) -> Option<&Settings> {
    let state = read.as_ref().ok()?.as_ref()?;
    Some(&state.applied.cluster.spec.provider)
}

/// A cluster that exists: on its ground, in the state, or both.
pub struct Existing {
    /// What is known of it, unless only its ground has it.
    pub state: Option<ClusterState>,
    /// Why what is known of it cannot be read.
    pub unreadable: Option<Problem>,
    /// Why its ground cannot say how it is.
    pub silent: Option<Problem>,
    /// Whether that is because it was made on another ground than the one that is selected now.
    pub is_elsewhere: bool,
    /// What its ground has of it.
    pub observed: ObservedCluster,
    /// Its ground.
    pub ground: Ground,
}

impl Existing {
    /// The opened ground.
    pub fn provider(&self) -> Arc<dyn Provider> {
        Arc::clone(&self.ground.provider)
    }
}

/// What all grounds and the state folder have.
pub struct Found {
    /// In order of their names.
    pub clusters: Vec<Existing>,
    /// Why a ground that is there could not be asked, although nothing is known to be on it.
    pub silent: Vec<Problem>,
}

/// Every cluster that exists. All grounds are asked at the same moment. One that is not there has no clusters; it matters only to
/// the clusters that are recorded on it.
///
/// # Errors
/// When the state folder cannot be read. What is wrong with one cluster is part of its [`Existing`].
pub async fn existing_clusters(global: &Global, state: &StateDirectory) -> Result<Found, Problem> {
    let read = read_all(state)?;
    let grounds = settings(read.values()).into_iter().map(|settings| {
        let on_it = || read.values().filter(|read| recorded(read) == Some(&settings));
        let needed = on_it().next().is_some();
        let told_apart = on_it().any(|read| {
            read.as_ref().is_ok_and(|state| {
                state.as_ref().is_some_and(|state| !state.facts.identity.is_empty())
            })
        });
        let ground = open_ground(global, &settings);
        async move {
            let facts = async { if told_apart { facts(&ground).await } else { None } };
            let (answer, facts) = futures::join!(observe(&ground, needed), facts);
            (ground, answer, facts)
        }
    });
    let (mut answers, mut known) = (Vec::new(), Vec::new());
    for (ground, answer, facts) in futures::future::join_all(grounds).await {
        known.extend(facts.map(|facts| (ground.settings.clone(), facts)));
        answers.push((ground, answer));
    }
    let mut found = merge(read, answers);
    found.clusters.iter_mut().for_each(|cluster| tell_elsewhere(cluster, &known));
    Ok(found)
}

/// What a ground is like, to be told from others. One that does not say so does not answer at all.
async fn facts(ground: &Ground) -> Option<Facts> {
    let survey = tokio::time::timeout(NEEDED_PATIENCE, ground.provider.survey()).await;
    Some(survey.ok()?.ok()?.facts)
}

/// A cluster that was made on another ground than the one that is selected: whatever has its name there is somebody else's.
fn tell_elsewhere(cluster: &mut Existing, grounds: &[(Settings, Facts)]) {
    let Some(state) = &cluster.state else { return };
    let facts = grounds.iter().find(|(settings, _)| *settings == cluster.ground.settings);
    let problem = facts.and_then(|(_, facts)| other_ground(cluster.name(), state, facts));
    if problem.is_some() {
        (cluster.silent, cluster.is_elsewhere) = (problem, true);
        (cluster.observed.networks, cluster.observed.nodes) = (Vec::new(), BTreeMap::new());
        cluster.observed.remains.clear();
    }
}

async fn observe(ground: &Ground, needed: bool) -> Result<Vec<ObservedCluster>, Problem> {
    let patience = if needed { NEEDED_PATIENCE } else { ground.patience() };
    let answer = tokio::time::timeout(patience, ground.provider.observe()).await;
    answer.unwrap_or_else(|_| {
        let message =
            format!("{} did not answer within {} s", ground.describe(), patience.as_secs());
        Err(Problem::failed("cli.ground_silent", message)
            .help("run `bivouac doctor` to see how it is"))
    })
}

/// Joins what is known with what is there. A ground that answers under two settings, such as a context and the default that names
/// the same, has its clusters once.
fn merge(
    mut known: BTreeMap<ClusterName, Read>,
    answers: Vec<(Ground, Result<Vec<ObservedCluster>, Problem>)>,
) -> Found {
    let mut found = Found { clusters: Vec::new(), silent: Vec::new() };
    let grounds: Vec<Ground> = answers.iter().map(|(ground, _)| ground.clone()).collect();
    let (mut failed, mut unclaimed) = (Vec::new(), Vec::new());
    for (ground, answer) in answers {
        match answer {
            Err(problem) => failed.push((ground.settings, problem)),
            Ok(clusters) => {
                for observed in clusters {
                    let is_own = known.get(&observed.name).is_some_and(|read| {
                        recorded(read).is_none_or(|settings| *settings == ground.settings)
                    });
                    if is_own && let Some(read) = known.remove(&observed.name) {
                        let ground = ground.clone();
                        found.clusters.push(existing(read, observed, ground, None));
                    } else {
                        unclaimed.push((ground.clone(), observed));
                    }
                }
            }
        }
    }
    for (ground, observed) in unclaimed {
        let is_same = |other: &Existing| {
            other.ground.settings.name() == ground.settings.name() && other.observed == observed
        };
        if !found.clusters.iter().any(is_same) {
            found.clusters.push(existing(Ok(None), observed, ground, None));
        }
    }
    // A folder without a record is what an `up` that was cut short may leave: nothing exists of that one.
    for (name, read) in known.into_iter().filter(|(_, read)| !matches!(read, Ok(None))) {
        let (networks, nodes, remains) = (Vec::new(), BTreeMap::new(), Vec::new());
        let observed = ObservedCluster { name, networks, nodes, remains };
        let settings = recorded(&read).cloned().unwrap_or_default();
        let Some(ground) = grounds.iter().find(|ground| ground.settings == settings) else {
            continue;
        };
        let silent = failed.iter().find(|(settings, _)| *settings == ground.settings);
        let silent = silent.map(|(_, problem): &(Settings, Problem)| problem.clone());
        found.clusters.push(existing(read, observed, ground.clone(), silent));
    }
    let told = |problem: &Problem| {
        found.clusters.iter().any(|cluster| cluster.silent.as_ref() == Some(problem))
    };
    let silent = failed.into_iter().map(|(_, problem)| problem);
    found.silent = silent.filter(|problem| !is_absent(problem) && !told(problem)).collect();
    // Of two with one name the recorded one comes first.
    found.clusters.sort_by(|a, b| {
        let key = |cluster: &Existing| (cluster.observed.name.clone(), cluster.state.is_none());
        key(a).cmp(&key(b))
    });
    found
}

fn existing(
    read: Read,
    observed: ObservedCluster,
    ground: Ground,
    silent: Option<Problem>,
) -> Existing {
    let (state, unreadable) = match read {
        Ok(state) => (state, None),
        Err(problem) => (None, Some(problem)),
    };
    Existing { state, unreadable, silent, is_elsewhere: false, observed, ground }
}

#[cfg(test)]
mod tests {
    use bivouac_provider::fake::Fake;
    use bivouac_spec::cluster::DockerProvider;
    use bivouac_spec::facts::Applied;
    use bivouac_spec::{Class, Cluster};

    use super::*;

    fn docker(context: Option<&str>) -> Settings {
        Settings::Docker(DockerProvider { context: context.map(str::to_owned) })
    }

    fn ground(settings: Settings) -> Ground {
        Ground { settings, provider: Arc::new(Fake::new()) }
    }

    fn observed(name: &str) -> ObservedCluster {
        let (networks, nodes, remains) = (Vec::new(), BTreeMap::new(), Vec::new());
        ObservedCluster { name: name.parse().unwrap(), networks, nodes, remains }
    }

    async fn state(name: &str, settings: Settings) -> (ClusterName, Read) {
        let mut cluster = Cluster::named(name.parse().unwrap());
        cluster.spec.provider = settings;
        let addresses = bivouac_plan::assign_addresses(&cluster, &BTreeMap::new(), None).unwrap();
        let facts = Fake::new().survey().await.unwrap().facts;
        let applied = Applied::new(cluster, addresses);
        let state = ClusterState::new(applied, facts, "image".to_owned());
        (name.parse().unwrap(), Ok(Some(state)))
    }

    fn absent() -> Problem {
        Problem::new(Class::Unfit, "provider.docker.no_engine", "no engine answers")
    }

    /// `NAME on GROUND` with `known` and `silent` where that is so.
    fn text(found: &Found) -> Vec<String> {
        let text = |cluster: &Existing| {
            let mut text = format!("{} on {}", cluster.observed.name, cluster.ground.describe());
            text.push_str(if cluster.state.is_some() { ", known" } else { "" });
            text.push_str(if cluster.silent.is_some() { ", silent" } else { "" });
            text
        };
        found.clusters.iter().map(text).collect()
    }

    #[tokio::test]
    async fn an_absent_engine_is_told_only_by_clusters_that_are_on_it() {
        let answers = || {
            let linux = (ground(Settings::default()), Ok(vec![observed("a")]));
            vec![linux, (ground(docker(None)), Err(absent()))]
        };
        let known = BTreeMap::from([state("a", Settings::default()).await]);
        let found = merge(known, answers());
        assert_eq!(text(&found), ["a on linux, known"]);
        assert!(found.silent.is_empty());
        let known = BTreeMap::from([state("b", docker(None)).await]);
        let found = merge(known, answers());
        assert_eq!(text(&found), ["a on linux", "b on docker, known, silent"]);
        assert!(found.silent.is_empty(), "the cluster says it");
        let silenced = found.clusters[1].silenced().unwrap();
        assert_eq!(silenced.message, "cluster `b` is on docker, which does not answer");
        assert_eq!(silenced.class, Class::Unfit);
    }

    #[tokio::test]
    async fn what_another_engine_has_of_the_name_is_not_the_cluster() {
        let (name, read) = state("a", docker(None)).await;
        let mut state = read.unwrap().unwrap();
        state.facts.identity = "one".to_owned();
        state.facts.place = "the engine at unix:///one".to_owned();
        let facts = |identity: &str| {
            let mut facts = state.facts.clone();
            facts.identity = identity.to_owned();
            facts.place = format!("the engine at unix:///{identity}");
            [(docker(None), facts)]
        };
        let known = BTreeMap::from([(name, Ok(Some(state.clone())))]);
        let mut found = merge(known, vec![(ground(docker(None)), Ok(vec![observed("a")]))]);
        let cluster = &mut found.clusters[0];
        tell_elsewhere(cluster, &facts("one"));
        assert!(cluster.silenced().is_none());
        tell_elsewhere(cluster, &facts("two"));
        let problem = cluster.silenced().unwrap();
        assert_eq!(problem.code, "engine.other_ground");
        assert_eq!(
            problem.message,
            "cluster `a` was made on the engine at unix:///one, and the engine at unix:///two is selected now"
        );
    }

    #[test]
    fn a_ground_that_is_there_and_fails_is_told() {
        let slow = Problem::failed("cli.ground_silent", "docker did not answer");
        let found = merge(BTreeMap::new(), vec![(ground(docker(None)), Err(slow.clone()))]);
        assert_eq!(found.silent, [slow]);
    }

    #[tokio::test]
    async fn two_of_one_name_are_told_apart_and_one_that_answers_twice_is_not_two() {
        let (linux, there) = (Settings::default(), || Ok(vec![observed("a")]));
        let known = BTreeMap::from([state("a", docker(Some("office"))).await]);
        let answers = vec![
            (ground(linux), there()),
            (ground(docker(None)), there()),
            (ground(docker(Some("office"))), there()),
        ];
        let found = merge(known, answers);
        assert_eq!(text(&found), ["a on docker (context `office`), known", "a on linux"]);
    }

    #[tokio::test]
    async fn what_is_recorded_and_gone_still_exists_and_what_was_never_recorded_does_not() {
        let unrecorded = ("b".parse().unwrap(), Ok(None));
        let known = BTreeMap::from([state("a", docker(None)).await, unrecorded]);
        let found = merge(known, vec![(ground(docker(None)), Ok(Vec::new()))]);
        assert_eq!(text(&found), ["a on docker, known"]);
    }
}
