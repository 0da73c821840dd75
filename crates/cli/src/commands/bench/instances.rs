//! What is asked of a cluster of Incus: an instance on each member, and that each reaches the next one by its name.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bivouac_provider::{ExecRequest, Node, Stdio};
use bivouac_spec::{ClusterName, NodeName, Problem};
use futures::future::try_join_all;
use tokio::io::AsyncReadExt as _;

use super::figures::Answers;
use crate::args::Global;
use crate::selection;

const PATIENCE: Duration = Duration::from_secs(120);

/// Asks until the other answers. Each try costs a process of the instance's own, and none of a client.
const REACH: &str = r#"until ping -c 1 -W 1 "$1" > /dev/null 2>&1; do sleep 0.05; done"#;

/// Launches the instances at once, and says when all of them ran a command, and when all reached each other.
///
/// # Errors
/// When an instance cannot be launched, or nothing answers in time.
pub async fn ask(
    global: &Global,
    cluster: &ClusterName,
    started: Instant,
) -> Result<Answers, Problem> {
    let existing = selection::choose(global, Some(cluster)).await?;
    let nodes = existing.known()?.applied.cluster.nodes();
    let members: Vec<NodeName> = nodes.into_iter().map(|node| node.name).collect();
    let first = members.first().ok_or_else(|| failed("the cluster has no member"))?;
    let client = Client(existing.node(first).await?);
    let asking = async {
        try_join_all(members.iter().map(|member| client.launch(member))).await?;
        let instances = started.elapsed().as_secs_f64();
        let next = members.iter().cycle().skip(1);
        let reaching = members.iter().zip(next).map(|(from, to)| client.reaches(from, to));
        try_join_all(reaching).await?;
        let names = started.elapsed().as_secs_f64();
        Ok(Answers { instances: Some(instances), names: Some(names), ..Answers::default() })
    };
    tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| {
        Err(failed(&format!("they did not answer within {} s", PATIENCE.as_secs())))
    })
}

/// The client in a member.
struct Client(Arc<dyn Node>);

impl Client {
    /// Ends when the instance has run a command.
    async fn launch(&self, member: &NodeName) -> Result<(), Problem> {
        let name = instance(member);
        self.run(&["launch", "debian", &name, "--target", member.as_str(), "--quiet"]).await?;
        self.run(&["exec", &name, "--", "true"]).await
    }

    async fn reaches(&self, from: &NodeName, to: &NodeName) -> Result<(), Problem> {
        let (from, to) = (instance(from), instance(to));
        self.run(&["exec", &from, "--", "sh", "-c", REACH, "reach", &to]).await
    }

    async fn run(&self, arguments: &[&str]) -> Result<(), Problem> {
        let command = std::iter::once("/usr/bin/incus").chain(arguments.iter().copied());
        let request = ExecRequest { stdio: Stdio::NoInput, ..ExecRequest::piped(command) };
        let mut process = self.0.exec(&request).await?;
        let (mut said, mut errors) = (String::new(), String::new());
        let (stdout, stderr) = (process.stdout.take(), process.stderr.take());
        // What cannot be read is of no use in a message.
        let output = async { read(stdout, &mut said).await };
        let errors_read = async { read(stderr, &mut errors).await };
        let ((), (), code) = futures::join!(output, errors_read, process.exit);
        match code? {
            0 => Ok(()),
            code => Err(failed(&format!(
                "`incus {}` ended with {code}: {}",
                arguments.join(" "),
                errors.trim()
            ))),
        }
    }
}

async fn read(stream: Option<bivouac_provider::Reader>, text: &mut String) {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        let _ = stream.read_to_end(&mut bytes).await;
    }
    text.push_str(&String::from_utf8_lossy(&bytes));
}

/// Each member's own.
fn instance(member: &NodeName) -> String {
    format!("bench-{member}")
}

fn failed(why: &str) -> Problem {
    Problem::failed("cli.bench", format!("the instances: {why}"))
}
