//! Container images that users load: files and folders, and those of the engine that the `docker` command would use.

use async_trait::async_trait;
use bivouac_engine::{Archive, ContainerImages, Reporter};
use bivouac_image::{Imported, Store, import_archive, import_stream, normalize};
use bivouac_provider::Reader;
use bivouac_providers::docker::{EngineEnvironment, save_image};
use bivouac_spec::{Class, Problem};
use camino::{Utf8Path, Utf8PathBuf};
use tokio_util::io::SyncIoBridge;

use super::{archive, problem_of, step_reporter};
use crate::args::Global;

/// The container images that a user can name.
pub struct Containers {
    store: Utf8PathBuf,
    /// What says which engine is meant.
    docker: EngineEnvironment,
}

impl Containers {
    /// Those that the options lead to.
    pub fn open(global: &Global) -> Self {
        Self { store: global.store.clone(), docker: global.docker.clone() }
    }
}

#[async_trait]
impl ContainerImages for Containers {
    async fn unpack(&self, images: &[String], reporter: &Reporter) -> Result<Vec<String>, Problem> {
        let store = Store::open(&self.store).map_err(|error| problem_of(&error))?;
        let mut names = Vec::new();
        for image in images {
            let source = match Utf8Path::new(image).exists() {
                true => Source::File,
                false => Source::Engine(self.of_engine(image).await?),
            };
            let (folder, image, reporter) = (store.containers(), image.clone(), reporter.clone());
            let unpack = move || unpack(&folder, &image, source, reporter);
            let unpacked = tokio::task::spawn_blocking(unpack).await;
            names.extend(unpacked.map_err(|error| Problem::from_error("cli.load", &error))??);
        }
        Ok(names)
    }

    async fn open(&self, image: &str) -> Result<Archive, Problem> {
        let path = Utf8Path::new(image);
        let opened = if path.is_dir() {
            archive::of_folder(path)
        } else if path.exists() {
            archive::of_file(path).await
        } else {
            return Ok(Archive { content: self.of_engine(image).await?, size: None });
        };
        opened.map_err(|error| about(image, problem_of(&error)))
    }
}

impl Containers {
    /// An image that the engine has, as an archive.
    async fn of_engine(&self, image: &str) -> Result<Reader, Problem> {
        // Before it becomes part of a request.
        normalize(image).map_err(|error| about(image, problem_of(&error)))?;
        save_image(&self.docker, image).await.map_err(|problem| {
            let mut problem = about(image, problem);
            // The ground of the cluster is another matter.
            if problem.class == Class::Unfit {
                problem.class = Class::Failed;
                let or = "or load an archive: `bivouac load FILE.tar`";
                problem.help = problem.help.map(|help| format!("{help}; {or}"));
            }
            problem
        })
    }
}

/// Where an image is read from.
enum Source {
    /// From the file or the folder of its name.
    File,
    /// From an engine.
    Engine(Reader),
}

fn unpack(
    folder: &Utf8Path,
    image: &str,
    source: Source,
    reporter: Reporter,
) -> Result<Vec<String>, Problem> {
    let on_event = step_reporter(reporter);
    let imported = match source {
        Source::File => import_archive(folder, image.into(), &on_event),
        Source::Engine(archive) => {
            import_stream(folder, image, SyncIoBridge::new(archive), &on_event)
        }
    };
    let imported: Vec<Imported> = imported.map_err(|error| about(image, problem_of(&error)))?;
    Ok(imported.into_iter().map(|image| image.name).collect())
}

/// The problem, which names the image.
fn about(image: &str, mut problem: Problem) -> Problem {
    if !problem.message.contains(image) {
        let why = std::mem::replace(&mut problem.message, format!("cannot load {image}"));
        problem.causes.insert(0, why);
    }
    problem
}
