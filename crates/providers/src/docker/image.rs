//! Bringing the node image to the engine.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bivouac_provider::{ImageRequest, Progress};
use bivouac_spec::Problem;
use bollard::query_parameters::{
    ImportImageOptions, ListContainersOptions, ListImagesOptions, RemoveImageOptions,
};
use bytes::Bytes;
use camino::Utf8Path;
use futures::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::archive::Recipe;
use super::engine::{Engine, KnownAgent};
use super::facts::architecture;
use super::problem::{OrProblem as _, absent_is_success, failed, timed_out};
use super::{blocking, names};

/// How long an engine may take to unpack an image.
const PATIENCE: Duration = Duration::from_secs(1200);

/// How often the lock of the image is asked for.
const PROBE: Duration = Duration::from_millis(50);

/// Bytes that are sent at once.
const PIECE: usize = 512 * 1024;

/// Pieces that wait to be sent.
const QUEUE: usize = 4;

/// The name of the image that is made from these.
pub(super) async fn tag_of(engine: &Engine, request: &ImageRequest) -> Result<String, Problem> {
    Ok(names::image(&request.image.digest, &digest_of(engine, &request.agent).await?))
}

/// The digest of the agent. It is taken once for all nodes, unless the file changes.
async fn digest_of(engine: &Engine, agent: &Utf8Path) -> Result<String, Problem> {
    let message = || format!("the agent {agent} cannot be read");
    let changed = std::fs::metadata(agent).and_then(|it| it.modified());
    let changed = changed.or_problem("agent", message())?;
    let known = || engine.agent.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = known().as_ref().filter(|it| it.path == agent && it.changed == changed) {
        return Ok(known.digest.clone());
    }
    let path = agent.to_owned();
    let digest = blocking(move || agent_digest(&path)).await?;
    *known() = Some(KnownAgent { path: agent.to_owned(), changed, digest: digest.clone() });
    Ok(digest)
}

/// The digest of the agent: `sha256:HEX`.
pub(super) fn agent_digest(agent: &Utf8Path) -> Result<String, Problem> {
    let mut hash = Sha256::new();
    let read = fs_err::File::open(agent).and_then(|mut file| io::copy(&mut file, &mut hash));
    read.or_problem("agent", format_args!("the agent {agent} cannot be read"))?;
    Ok(format!("sha256:{}", hex::encode(hash.finalize())))
}

/// Loads the image, unless the engine has it.
pub(super) async fn ensure(
    engine: &Engine,
    request: &ImageRequest,
    on_progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<String, Problem> {
    let agent_digest = digest_of(engine, &request.agent).await?;
    let tag = names::image(&request.image.digest, &agent_digest);
    if exists(engine, &tag).await? {
        return Ok(tag);
    }
    // Several commands bring it once: the first loads, the others find it.
    let _lock = lock(request).await?;
    if exists(engine, &tag).await? {
        return Ok(tag);
    }
    let info = engine.info().await;
    let info = info.or_problem("image", "the container engine does not say what it runs on")?;
    let architecture = architecture(info.architecture.as_deref().unwrap_or_default()).to_owned();
    let recipe = Recipe { tag, agent_digest, request: request.clone(), architecture };
    load(engine, recipe.clone(), on_progress).await?;
    remove_old(engine, &recipe.tag).await;
    Ok(recipe.tag)
}

/// Keeps other commands from loading the image: a lock on one of its own files, which needs no file of its own. The kernel has no
/// lock with a deadline that can be given up, so it is asked for again and again.
async fn lock(request: &ImageRequest) -> Result<Option<File>, Problem> {
    let Some(layer) = request.image.layers.first() else { return Ok(None) };
    let message = format!("the layer {} cannot be read", layer.blob);
    let file = File::open(&layer.blob).or_problem("image", &message)?;
    let mut ticks = tokio::time::interval(PROBE);
    let locked = tokio::time::timeout(PATIENCE, async {
        loop {
            ticks.tick().await;
            match file.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    });
    match locked.await {
        Ok(locked) => locked.or_problem("image", &message)?,
        Err(_) => {
            let message = "another command has been loading the node image for 20 minutes";
            return Err(timed_out("lock", message).help("end it, then run the command again"));
        }
    }
    Ok(Some(file))
}

/// Whether the engine has the image.
pub(super) async fn exists(engine: &Engine, tag: &str) -> Result<bool, Problem> {
    let found = absent_is_success(engine.docker.inspect_image(tag).await);
    Ok(found.or_problem("image", format_args!("image {tag} cannot be looked for"))?.is_some())
}

async fn load(
    engine: &Engine,
    recipe: Recipe,
    on_progress: &(dyn Fn(Progress) + Send + Sync),
) -> Result<(), Problem> {
    let message = format!("image {} cannot be loaded", recipe.tag);
    let read = recipe.clone();
    let sizes = blocking(move || {
        let read = read.size().and_then(|total| Ok((total, read.diff_ids()?)));
        read.or_problem("image", "the node image cannot be read")
    });
    let (total, diff_ids) = sizes.await?;
    let (sender, receiver) = mpsc::channel(QUEUE);
    let sent = Arc::new(AtomicU64::new(0));
    let (tag, ids, counter) = (recipe.tag.clone(), diff_ids.clone(), Arc::clone(&sent));
    let writing = tokio::task::spawn_blocking(move || {
        let mut output = Pieces { sender, piece: Vec::with_capacity(PIECE), sent: counter };
        recipe.write(&ids, &mut output).and_then(|()| output.flush())
    });
    let body = stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|piece| (Ok::<Bytes, io::Error>(piece), receiver))
    });
    let docker = engine.docker.clone().with_timeout(PATIENCE);
    let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
    let mut answers = Box::pin(docker.import_image_stream(options, body, None));
    let report = || {
        on_progress(Progress { done: sent.load(Ordering::Relaxed).min(total), total });
    };
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let said = loop {
        tokio::select! {
            answer = answers.next() => match answer {
                Some(Ok(answer)) => {
                    if let Some(error) = answer.error_detail.and_then(|detail| detail.message) {
                        break Err(bollard::errors::Error::DockerStreamError { error });
                    }
                }
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
            _ = ticks.tick() => report(),
        }
    };
    drop(answers);
    // Ends at once when the engine does not listen any more.
    let written = writing.await.map_err(|error| failed("thread", &message).because(&error))?;
    match (said, written) {
        // What could not be read says more than how the engine took it.
        (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(failed("image", &message).because(&error));
        }
        (said, _) => said.or_problem("image", &message)?,
    }
    on_progress(Progress { done: total, total });
    check(engine, &tag, &diff_ids).await
}

/// The image must be the one that was sent: engines have different names for the same image, but the digests of layers are theirs
/// and ours.
async fn check(engine: &Engine, tag: &str, diff_ids: &[String]) -> Result<(), Problem> {
    let message = format!("image {tag} cannot be loaded");
    let found = engine.docker.inspect_image(tag).await.or_problem("image", &message)?;
    if found.root_fs.and_then(|root| root.layers).as_deref() == Some(diff_ids) {
        return Ok(());
    }
    let mut problem = failed("image", message);
    problem.causes.push("the engine has other layers than were sent".to_owned());
    // Or the next command would take it for the right one.
    let removed = engine.docker.remove_image(tag, None::<RemoveImageOptions>, None).await;
    Err(problem.help(match removed {
        Ok(_) => "run the command again".to_owned(),
        Err(_) => format!("remove it with `docker image rm {tag}`, then run the command again"),
    }))
}

/// Removes images of ours from which nothing is made any more. What cannot be removed now is left for the next time. The label alone
/// does not make an image ours: whatever is built from one of ours inherits it.
async fn remove_old(engine: &Engine, current: &str) {
    let images = ListImagesOptions {
        filters: Some(names::filter([(names::IMAGE, "")])),
        ..ListImagesOptions::default()
    };
    let containers = ListContainersOptions { all: true, ..ListContainersOptions::default() };
    let (images, containers) = futures::join!(
        engine.docker.list_images(Some(images)),
        engine.docker.list_containers(Some(containers)),
    );
    let (Ok(images), Ok(containers)) = (images, containers) else { return };
    let used: BTreeSet<String> =
        containers.into_iter().filter_map(|container| container.image_id).collect();
    for image in images {
        let tags = &image.repo_tags;
        let is_old = names::are_ours(tags) && !tags.iter().any(|tag| tag == current);
        if !is_old || used.contains(&image.id) {
            continue;
        }
        // By name: what gets another name from somebody at this moment stays.
        for tag in tags {
            let _ = engine.docker.remove_image(tag, None::<RemoveImageOptions>, None).await;
        }
    }
}

/// Hands bytes over to whoever sends them.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
    sent: Arc<AtomicU64>,
}

impl Write for Pieces {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.piece.extend_from_slice(buffer);
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        let length = piece.len() as u64;
        let sent = self.sender.blocking_send(piece.into());
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        self.sent.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }
}
