//! `logs --archive`: all that a bug report needs of a cluster, in one file, with secrets removed.
//!
//! ```text
//! bivouac-NAME/README.txt          what is in it, and what could not be had
//!              cluster.json        the cluster as it was made
//!              survey.json         the ground: facts, and every need tried
//!              plan.json           what `up` would change now
//!              status.json         the nodes as they are
//!              events.jsonl        what the verbs did
//!              nodes/NODE/*.log    the end of each log
//! ```
//!
//! Keys, node configs and kubeconfigs are not in it. Whatever does not answer is missing, and said to be; the rest is there.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bivouac_plan::Plan;
use bivouac_provider::{LogRequest, Node, Reader};
use bivouac_spec::node::status::UnitKind;
use bivouac_spec::{ClusterName, NodeName, ObservedCluster, Problem};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use crate::redact::{redact, redact_options};
use crate::services::logged_units;
use crate::{
    ClusterState, ClusterStatus, Events, Ground, ImageChoice, NodeImages, PrepareRequest,
    StateDirectory, cluster_status, prepare, unknown_status,
};

/// How much of the end of each log is taken, in bytes.
const LOG_SIZE: usize = 5 << 20;

/// How long the ground may take to be looked at.
const GROUND: Duration = Duration::from_secs(30);

/// How long a node may take to hand over one log.
const LOG: Duration = Duration::from_secs(20);

/// From how many nodes logs are read at once: they are held in memory until they are written.
const AT_ONCE: usize = 4;

/// What an archive needs.
pub struct ArchiveRequest<'a> {
    /// Which cluster.
    pub cluster: &'a ClusterName,
    /// Where it runs.
    pub ground: &'a Ground,
    /// The grounds that there are, for the plan.
    pub grounds: &'a [Ground],
    /// What is known.
    pub state: &'a StateDirectory,
    /// What its nodes are made from, for the plan.
    pub images: &'a dyn NodeImages,
}

/// What an archive came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Archived {
    /// The cluster.
    pub cluster: ClusterName,
    /// How many logs are in it.
    pub logs: usize,
    /// What could not be had, and why.
    pub missing: Vec<String>,
}

/// Writes an archive, a tar compressed with gzip.
///
/// # Errors
/// When it cannot be written. What cannot be had is told by [`Archived::missing`], and in the archive.
pub async fn archive(
    request: &ArchiveRequest<'_>,
    writer: impl Write + Send,
) -> Result<Archived, Problem> {
    let mut archive = Writing::new(request.cluster, writer);
    let known = request.state.read(request.cluster);
    let known = archive.had("cluster.json", known).flatten();
    if let Some(known) = &known {
        archive.json("cluster.json", known)?;
    }
    survey(request, &mut archive).await?;
    if let Some(known) = &known {
        plan(request, known, &mut archive).await?;
    }
    let status = status(request, known.as_ref(), &mut archive).await;
    archive.json("status.json", &status)?;
    let events = Events::of(request.state, request.cluster).read();
    if let Some(events) = archive.had("events.jsonl", events) {
        let lines = events.iter().map(|entry| serde_json::to_string(entry).map(|line| line + "\n"));
        let lines: Result<String, _> = lines.collect();
        archive.text("events.jsonl", &lines.map_err(|error| unwritable(&error))?)?;
    }
    let logs = logs(request, known.as_ref(), &status, &mut archive).await?;
    let missing = archive.finish()?;
    Ok(Archived { cluster: request.cluster.clone(), logs, missing })
}

async fn survey<W: Write>(
    request: &ArchiveRequest<'_>,
    archive: &mut Writing<W>,
) -> Result<(), Problem> {
    let survey = within(GROUND, "the ground", request.ground.provider.survey()).await;
    match archive.had("survey.json", survey) {
        Some(survey) => archive.json("survey.json", &survey),
        None => Ok(()),
    }
}

async fn plan<W: Write>(
    request: &ArchiveRequest<'_>,
    known: &ClusterState,
    archive: &mut Writing<W>,
) -> Result<(), Problem> {
    let cluster = &known.applied.cluster;
    let stack = bivouac_stacks::open(&cluster.spec.stack);
    let asked = PrepareRequest {
        cluster,
        provider: Arc::clone(&request.ground.provider),
        grounds: request.grounds,
        stack: stack.as_ref(),
        images: request.images,
        state: request.state,
        node_image: ImageChoice::Own,
        now: SystemTime::now(),
    };
    let prepared = async {
        // What stops it before anything is planned is a plan that refuses.
        Ok(prepare(&asked).await.map_or_else(
            |problems| Plan {
                cluster: cluster.name().clone(),
                actions: Vec::new(),
                refusals: problems.as_slice().to_vec(),
                notes: Vec::new(),
            },
            |prepared| prepared.plan,
        ))
    };
    let plan = within(GROUND, "the ground", prepared).await;
    match archive.had("plan.json", plan) {
        Some(plan) => archive.json("plan.json", &plan),
        None => Ok(()),
    }
}

async fn status<W: Write>(
    request: &ArchiveRequest<'_>,
    known: Option<&ClusterState>,
    archive: &mut Writing<W>,
) -> ClusterStatus {
    let (cluster, ground) = (request.cluster, request.ground);
    let observed = match within(GROUND, "the ground", ground.provider.observe()).await {
        Ok(observed) => observed,
        Err(problem) => {
            archive.miss("the nodes", &problem.message);
            return unknown_status(cluster, ground.settings.name(), problem);
        }
    };
    let nothing = || ObservedCluster {
        name: cluster.clone(),
        networks: Vec::new(),
        nodes: BTreeMap::new(),
        remains: Vec::new(),
    };
    let own = observed.into_iter().find(|observed| observed.name == *cluster);
    let own = own.unwrap_or_else(nothing);
    let provider = ground.provider.as_ref();
    let status = cluster_status(provider, ground.settings.name(), &own, known).await;
    for (name, node) in status.nodes.iter().filter(|(_, node)| node.status.is_none()) {
        archive.miss(&format!("what node {name} says of itself"), node.word().name());
    }
    status
}

/// Writes all logs, and says how many there are.
async fn logs<W: Write>(
    request: &ArchiveRequest<'_>,
    known: Option<&ClusterState>,
    status: &ClusterStatus,
    archive: &mut Writing<W>,
) -> Result<usize, Problem> {
    let rendered = known.and_then(|known| logged_units(request.state, known).ok());
    let rendered = rendered.unwrap_or_default();
    let nodes = status.nodes.iter().filter(|(_, node)| node.state.is_some());
    let nodes = nodes.map(|(name, node)| {
        let said = node.status.iter().flat_map(|status| &status.units);
        let said = said.filter(|unit| unit.kind != UnitKind::Condition);
        let mut units: BTreeSet<String> = said.map(|unit| unit.name.clone()).collect();
        units.extend(rendered.get(name).into_iter().flatten().cloned());
        // They become names of files.
        units.retain(|unit| !unit.contains('/') && !unit.starts_with('.'));
        logs_of_node(request, name, units)
    });
    let mut nodes = futures::stream::iter(nodes).buffered(AT_ONCE);
    let mut count = 0;
    while let Some(node) = nodes.next().await {
        for (name, text) in &node.logs {
            archive.text(&format!("nodes/{}/{name}.log", node.name), text)?;
        }
        count += node.logs.len();
        for (what, why) in &node.missing {
            archive.miss(what, why);
        }
    }
    Ok(count)
}

/// The logs of one node.
struct NodeLogs {
    name: NodeName,
    logs: Vec<(String, String)>,
    missing: Vec<(String, String)>,
}

async fn logs_of_node(
    request: &ArchiveRequest<'_>,
    name: &NodeName,
    units: BTreeSet<String>,
) -> NodeLogs {
    let mut all = NodeLogs { name: name.clone(), logs: Vec::new(), missing: Vec::new() };
    let opened = request.ground.provider.open_node(request.cluster, name);
    let node = match within(LOG, "the node", opened).await {
        Ok(node) => node,
        Err(problem) => {
            all.missing.push((format!("the logs of node {name}"), problem.message));
            return all;
        }
    };
    for unit in std::iter::once(None).chain(units.into_iter().map(Some)) {
        let called = unit.clone().unwrap_or_else(|| "agent".to_owned());
        match within(LOG, "the node", log(node.as_ref(), unit)).await {
            Ok(text) => all.logs.push((called, text)),
            // What was never started has written nothing.
            Err(problem) if problem.code.ends_with(".no_log") => {}
            Err(problem) => {
                let what = format!("the log of {called} of node {name}");
                let silent = problem.code == SILENT;
                all.missing.push((what, problem.message));
                if silent {
                    // It would not hand over the next either.
                    break;
                }
            }
        }
    }
    all
}

async fn log(node: &dyn Node, service: Option<String>) -> Result<String, Problem> {
    let request = LogRequest { service, tail: None, follow: false };
    let log = node.logs(&request).await?;
    let end = end_of(log, LOG_SIZE).await;
    let end = end.map_err(|error| Problem::from_error("archive.log", &error))?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// The last whole lines of a stream, as many as fit into `size` bytes.
async fn end_of(mut stream: Reader, size: usize) -> io::Result<Vec<u8>> {
    let (mut kept, mut piece) = (Vec::new(), vec![0; 64 << 10]);
    let mut is_cut = false;
    loop {
        let length = stream.read(&mut piece).await?;
        kept.extend_from_slice(&piece[..length]);
        if kept.len() > size && (length == 0 || kept.len() > 2 * size) {
            kept.drain(..kept.len() - size);
            is_cut = true;
        }
        if length == 0 {
            break;
        }
    }
    if is_cut {
        let start = kept.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        kept.drain(..start);
    }
    Ok(kept)
}

/// The code of what does not answer.
const SILENT: &str = "archive.silent";

async fn within<T>(
    patience: Duration,
    what: &str,
    work: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| {
        let message = format!("{what} did not answer within {} s", patience.as_secs());
        Err(Problem::failed(SILENT, message))
    })
}

fn unwritable(error: &dyn std::error::Error) -> Problem {
    Problem::failed("archive.unwritable", "the archive cannot be written").because(error)
}

/// An archive that is being written. All text passes through it, and loses its secrets here.
struct Writing<W: Write> {
    tar: tar::Builder<GzEncoder<W>>,
    cluster: ClusterName,
    made: Timestamp,
    missing: Vec<String>,
}

impl<W: Write> Writing<W> {
    fn new(cluster: &ClusterName, writer: W) -> Self {
        let tar = tar::Builder::new(GzEncoder::new(writer, Compression::default()));
        let (cluster, made) = (cluster.clone(), Timestamp::now());
        Self { tar, cluster, made, missing: Vec::new() }
    }

    fn json<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), Problem> {
        let mut document = serde_json::to_value(value).map_err(|error| unwritable(&error))?;
        redact_options(&mut document);
        let text = serde_json::to_string_pretty(&document).map_err(|error| unwritable(&error))?;
        self.text(name, &(text + "\n"))
    }

    fn text(&mut self, name: &str, text: &str) -> Result<(), Problem> {
        let text = redact(text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(self.made.as_second()).unwrap_or_default());
        let path = format!("bivouac-{}/{name}", self.cluster);
        let written = self.tar.append_data(&mut header, path, text.as_bytes());
        written.map_err(|error| unwritable(&error))
    }

    /// What was asked for, or a word of its absence.
    fn had<T>(&mut self, what: &str, outcome: Result<T, Problem>) -> Option<T> {
        outcome.map_err(|problem| self.miss(what, &problem.message)).ok()
    }

    fn miss(&mut self, what: &str, why: &str) {
        self.missing.push(redact(&format!("{what}: {why}")));
    }

    fn finish(mut self) -> Result<Vec<String>, Problem> {
        let readme = self.readme();
        self.text("README.txt", &readme)?;
        let gzip = self.tar.into_inner().map_err(|error| unwritable(&error))?;
        let mut writer = gzip.finish().map_err(|error| unwritable(&error))?;
        writer.flush().map_err(|error| unwritable(&error))?;
        Ok(self.missing)
    }

    fn readme(&self) -> String {
        let Self { cluster, made, missing, .. } = self;
        let version = env!("CARGO_PKG_VERSION");
        let missing = match &missing[..] {
            [] => "Nothing is missing.\n".to_owned(),
            missing => format!("Missing:\n  {}\n", missing.join("\n  ")),
        };
        format!(
            "Cluster {cluster}, by bivouac {version}, {made:.0}\n\n\
             cluster.json   the cluster as it was made\n\
             survey.json    the ground: facts, and every need tried\n\
             plan.json      what `bivouac up {cluster}` would change\n\
             status.json    the nodes as they are\n\
             events.jsonl   what was done to the cluster\n\
             nodes/         the end of each log, up to {} MiB\n\n\
             {missing}\n\
             Keys, node configs and kubeconfigs are not in it. What looks like a secret in the rest was replaced by\n\
             [removed]: private keys, tokens, passwords, and all values of options for Incus. Programs may write secrets that look like nothing: read it\n\
             before you publish it. It names hosts, addresses and container images.\n",
            LOG_SIZE >> 20
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end(text: &str, size: usize) -> String {
        let stream = Box::new(io::Cursor::new(text.as_bytes().to_vec()));
        String::from_utf8(end_of(stream, size).await.unwrap()).unwrap()
    }

    #[test]
    fn options_for_incus_are_there_without_their_values() {
        let text = "apiVersion: bivouac.dev/v1alpha1\nkind: Cluster\nmetadata: {name: demo}\nspec:\n  stack:\n    incus:\n      \
                    config: {oidc.client.id: hunter1}\n      profiles:\n        - {name: one, config: {user.word: hunter2}}\n";
        let cluster = bivouac_spec::cluster::parse(text, "demo.yaml").unwrap();
        let mut archive = Writing::new(cluster.name(), Vec::new());
        let plain = serde_json::json!({"applied": {"cluster": cluster}});
        assert!(plain.to_string().contains("hunter1") && plain.to_string().contains("hunter2"));
        archive.json("cluster.json", &plain).unwrap();
        let bytes = archive.tar.into_inner().unwrap().finish().unwrap();
        let mut read = tar::Archive::new(flate2::read::GzDecoder::new(&bytes[..]));
        let mut text = String::new();
        let mut entry = read.entries().unwrap().next().unwrap().unwrap();
        io::Read::read_to_string(&mut entry, &mut text).unwrap();
        for left in ["\"oidc.client.id\": \"[removed]\"", "\"user.word\": \"[removed]\"", "\"one\""]
        {
            assert!(text.contains(left), "{text}");
        }
        assert!(!text.contains("hunter"), "{text}");
    }

    #[tokio::test]
    async fn the_end_of_a_log_is_whole_lines() {
        assert_eq!(end("one\ntwo\n", 100).await, "one\ntwo\n");
        assert_eq!(end("one\ntwo\n", 8).await, "one\ntwo\n");
        assert_eq!(end("one\ntwo\nthree\n", 9).await, "three\n");
        assert_eq!(end("", 8).await, "");
        let many: String = (0..50_000).map(|number| format!("line {number}\n")).collect();
        let kept = end(&many, 1000).await;
        assert!(kept.ends_with("line 49999\n") && kept.starts_with("line ") && kept.len() <= 1000);
    }
}
