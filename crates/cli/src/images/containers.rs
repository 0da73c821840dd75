//! Container images that users load: files and folders, and those of the Docker engine on this machine.

use async_trait::async_trait;
use bivouac_engine::{Archive, ContainerImages, Reporter};
use bivouac_image::{Imported, Store, import_archive, import_docker_image};
use bivouac_providers::docker::EngineEnvironment;
use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};

use super::{archive, engine, problem_of, step_reporter};
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
        let (asked, docker, reporter) = (images.to_vec(), self.docker.clone(), reporter.clone());
        let unpack = move || unpack(&store, &asked, &docker, reporter);
        let unpacked = tokio::task::spawn_blocking(unpack).await;
        unpacked.map_err(|error| Problem::from_error("cli.load", &error))?
    }

    async fn open(&self, image: &str) -> Result<Archive, Problem> {
        let path = Utf8Path::new(image);
        let opened = if path.is_dir() {
            archive::of_folder(path)
        } else if path.exists() {
            archive::of_file(path).await
        } else {
            let host = engine::local(image, &self.docker)?;
            archive::of_engine(image, host.as_deref()).await
        };
        opened.map_err(|error| about(image, &error))
    }
}

fn unpack(
    store: &Store,
    asked: &[String],
    docker: &EngineEnvironment,
    reporter: Reporter,
) -> Result<Vec<String>, Problem> {
    let (folder, on_event) = (store.containers(), step_reporter(reporter));
    let mut names = Vec::new();
    for image in asked {
        let path = Utf8Path::new(image);
        let imported = if path.exists() {
            import_archive(&folder, path, &on_event)
        } else {
            let host = engine::local(image, docker)?;
            import_docker_image(&folder, image, host.as_deref(), &on_event)
        };
        let imported: Vec<Imported> = imported.map_err(|error| about(image, &error))?;
        names.extend(imported.into_iter().map(|image| image.name));
    }
    Ok(names)
}

/// The error as a problem that names the image.
fn about(image: &str, error: &bivouac_image::Error) -> Problem {
    let mut problem = problem_of(error);
    if !problem.message.contains(image) {
        let why = std::mem::replace(&mut problem.message, format!("cannot load {image}"));
        problem.causes.insert(0, why);
    }
    problem
}
