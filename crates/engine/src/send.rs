//! Images on their way into nodes, through each node's own agent.

use std::sync::Arc;

use bivouac_provider::{ExecRequest, Node, Process, Stdio, Writer};
use bivouac_spec::node::paths;
use bivouac_spec::{Class, Problem, Problems};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::transfer::Transfer;
use crate::{Archive, Reporter};

/// Bytes that are read and sent at once.
const CHUNK: usize = 256 * 1024;

/// What an agent says of an image that it made known to its node.
#[derive(Debug, Deserialize)]
struct Registered {
    name: String,
}

/// Has every node make known the images of this name in the folder that nodes of this host share.
pub(crate) async fn register(nodes: &[Arc<dyn Node>], images: &[String]) -> Result<(), Problems> {
    let what = images.join(", ");
    let command = [paths::AGENT, "agent", "images", "--directory", paths::SHARED_IMAGES];
    let mut request = ExecRequest::piped(command);
    request.command.extend(images.iter().cloned());
    request.stdio = Stdio::NoInput;
    let registered = nodes.iter().map(|node| async {
        let process = node.exec(&request).await?;
        answer(node.as_ref(), process, &what).await
    });
    all_of(futures::future::join_all(registered).await).map(drop)
}

/// Sends an archive to all nodes at once, reading it once; returns the full names of its images.
pub(crate) async fn send(
    nodes: &[Arc<dyn Node>],
    image: &str,
    archive: Archive,
    reporter: &Reporter,
) -> Result<Vec<String>, Problems> {
    let request = ExecRequest::piped([paths::AGENT, "agent", "load", "-"]);
    let started = nodes.iter().map(|node| node.exec(&request));
    let mut processes = futures::future::try_join_all(started).await?;
    let inputs = processes.iter_mut().map(|process| process.stdin.take()).collect();
    let count = nodes.len();
    let to = if count == 1 { "1 node".to_owned() } else { format!("{count} nodes") };
    let transfer = Transfer::new(format!("{image} to {to}"), reporter);
    let answers = nodes.iter().zip(processes);
    let answers = answers.map(|(node, process)| answer(node.as_ref(), process, image));
    // The processes end with the answers: what a source that broke has sent so far is loaded nowhere.
    let sent = tokio::try_join!(broadcast(archive, inputs, &transfer), async {
        Ok(futures::future::join_all(answers).await)
    });
    let outcome = sent
        .map_err(|error| {
            let message = format!("{image} cannot be read to its end");
            Problem::failed("engine.load_source", message).because(&error).into()
        })
        .and_then(|((), answers)| all_of(answers));
    transfer.ended(outcome.is_ok());
    Ok(outcome?.into_iter().next().unwrap_or_default())
}

/// Copies the archive to all inputs in step.
async fn broadcast(
    mut archive: Archive,
    mut inputs: Vec<Option<Writer>>,
    transfer: &Transfer,
) -> std::io::Result<()> {
    let (mut buffer, mut done) = (vec![0; CHUNK], 0);
    loop {
        let read = archive.content.read(&mut buffer).await?;
        let chunk = &buffer[..read];
        let written = inputs.iter_mut().map(|slot| async {
            let Some(input) = slot else { return };
            let written = match read {
                0 => input.shutdown().await,
                _ => input.write_all(chunk).await,
            };
            // A node that takes no more says why in its answer.
            if written.is_err() {
                *slot = None;
            }
        });
        futures::future::join_all(written).await;
        done += read as u64;
        transfer.reached(done, archive.size.unwrap_or(0));
        if read == 0 || inputs.iter().all(Option::is_none) {
            return Ok(());
        }
    }
}

/// Waits for an agent's command to end; returns the names of the images that it made known.
async fn answer(node: &dyn Node, process: Process, what: &str) -> Result<Vec<String>, Problem> {
    let Process { stdin, stdout, stderr, exit } = process;
    // Whoever still holds it would keep a command waiting that reads its input.
    drop(stdin);
    let (mut said, mut complained) = (String::new(), String::new());
    let reading = async {
        if let Some(mut stdout) = stdout {
            // What cannot be read is no list of images, which is told below.
            let _ = stdout.read_to_string(&mut said).await;
        }
    };
    let complaining = async {
        if let Some(mut stderr) = stderr {
            let _ = stderr.read_to_string(&mut complained).await;
        }
    };
    let ((), (), code) = tokio::join!(reading, complaining, exit);
    let refused = |why: String| {
        let mut problem = Problem::failed(
            "engine.load_refused",
            format!("node `{}` did not take {what} ({why})", node.name()),
        );
        let mut help = format!("run `bivouac logs {} containerd` to see why", node.name());
        // The agent says it as any bivouac does to a person; its next step is better than ours.
        for line in complained.lines().map(str::trim) {
            match line.split_once(": ") {
                Some(("hint", hint)) => hint.clone_into(&mut help),
                Some(("error" | "because", why)) => problem.causes.push(why.to_owned()),
                _ => problem.causes.push(line.to_owned()),
            }
        }
        problem.help(help)
    };
    match code? {
        0 => {}
        code => return Err(refused(format!("exit code {code}"))),
    }
    let registered: Vec<Registered> =
        serde_json::from_str(&said).map_err(|error| refused(error.to_string()))?;
    Ok(registered.into_iter().map(|image| image.name).collect())
}

/// What all nodes answered, or everything that any of them complained of.
fn all_of(answers: Vec<Result<Vec<String>, Problem>>) -> Result<Vec<Vec<String>>, Problems> {
    let (mut taken, mut problems) = (Vec::new(), Vec::<Problem>::new());
    for answer in answers {
        match answer {
            Ok(images) => taken.push(images),
            Err(problem) => problems.push(problem),
        }
    }
    if !taken.is_empty()
        && let Some(first) = problems.first_mut()
    {
        first.class = Class::Partial;
    }
    Problems::check(problems)?;
    Ok(taken)
}
