//! One program of the bundle: from the store, from upstream's release, from its Go module or from the Debian base.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::digest::Sha256;
use crate::download::{Downloader, extract};
use crate::error::{At, Error};
use crate::files::{read_json, write_json};
use crate::golang;
use crate::lock::{Download, Program};
use crate::store::{Context, Kind, Out, Store};

/// How a program that is not in the store is going to come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    Download(&'a Download),
    Build,
    Debian,
}

/// A file that a recipe made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Artifact {
    /// Bytes.
    pub(crate) size: u64,
    pub(crate) sha256: Sha256,
}

/// `manifest.json` of a program in the store.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ProgramManifest {
    pub(crate) name: String,
    pub(crate) version: String,
    /// For people: where it came from.
    pub(crate) origin: String,
    pub(crate) artifacts: BTreeMap<String, Artifact>,
}

/// A program in the store.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) folder: Utf8PathBuf,
    /// Bytes of all artifacts.
    pub(crate) size: u64,
    pub(crate) made_now: bool,
}

impl Made {
    pub(crate) fn artifact(&self, name: &str) -> Utf8PathBuf {
        self.folder.join("artifacts").join(name)
    }
}

/// Reads a program's manifest and hashes every artifact.
pub(crate) fn check(folder: &Utf8Path) -> Result<ProgramManifest, Error> {
    let manifest: ProgramManifest = read_json(&folder.join("manifest.json"))?;
    for (name, artifact) in &manifest.artifacts {
        let path = folder.join("artifacts").join(name);
        let damaged = |why: &str| Error::Damaged { what: path.clone(), why: why.to_owned() };
        let found = Sha256::of_file(&path).map_err(|_| damaged("it cannot be read"))?;
        if found != artifact.sha256 {
            return Err(damaged("its content has changed"));
        }
    }
    Ok(manifest)
}

/// Makes a program unless it is in the store.
pub(crate) fn ensure_program(
    store: &Store,
    bundle: &Bundle,
    program: &Program,
    request: &Request<'_>,
    context: &Context<'_>,
) -> Result<Made, Error> {
    let is_sound = |folder: &Utf8Path| check(folder).map(drop);
    let mut make = |out: &Out<'_>| {
        let artifacts = out.out.join("artifacts");
        fs::create_dir(&artifacts).at("create", &artifacts)?;
        let origin = make_artifacts(bundle, program, request, out, &artifacts, context)?;
        record(program, origin, out.out, &artifacts)
    };
    let key = bundle.program_key(program);
    let (folder, made_now) =
        store.ensure_piece(Kind::Program, &key, context, &is_sound, &mut make)?;
    let manifest: ProgramManifest = read_json(&folder.join("manifest.json"))?;
    let size = manifest.artifacts.values().map(|artifact| artifact.size).sum();
    Ok(Made { folder, size, made_now })
}

/// What making a program may need.
pub(crate) struct Request<'a> {
    pub(crate) origin: Origin<'a>,
    pub(crate) downloader: &'a Downloader,
    /// For what comes from the Debian base: its layer's blob.
    pub(crate) base: Option<Utf8PathBuf>,
    /// Whether a failed download may be replaced by a build.
    pub(crate) may_build: bool,
}

fn make_artifacts(
    bundle: &Bundle,
    program: &Program,
    request: &Request<'_>,
    out: &Out<'_>,
    artifacts: &Utf8Path,
    context: &Context<'_>,
) -> Result<String, Error> {
    let reporter = context.reporter();
    match request.origin {
        Origin::Download(download) => {
            let url = program.expand(&download.url);
            reporter.note(format!("downloading {url}"));
            match fetch(&url, download, request, out, artifacts, context) {
                Ok(()) => return Ok(format!("downloaded from {url}")),
                Err(error @ Error::Download { .. })
                    if request.may_build && !program.builds.is_empty() =>
                {
                    reporter.note(format!("{error}; it is built instead"));
                }
                Err(error) => return Err(error),
            }
            crate::build::check_tools(bundle, [program], false)?;
        }
        Origin::Debian => {
            let blob = request.base.as_ref().expect("the base is made before");
            extract(blob, &program.debian, artifacts)?;
            return Ok(format!("taken from Debian {}", bundle.lock().debian.suite));
        }
        Origin::Build => {}
    }
    let toolchain = golang::build_program(bundle, program, out, artifacts, context)?;
    Ok(format!("built by {toolchain}"))
}

fn fetch(
    url: &str,
    download: &Download,
    request: &Request<'_>,
    out: &Out<'_>,
    artifacts: &Utf8Path,
    context: &Context<'_>,
) -> Result<(), Error> {
    let file = request.downloader.fetch(
        url,
        &download.sha256,
        out.work,
        context.reporter(),
        context.cancel,
    )?;
    if let Some(artifact) = &download.file {
        let to = artifacts.join(artifact);
        return fs::rename(&file, &to).at("put in place", &to);
    }
    extract(&file, &download.members, artifacts)
}

fn record(
    program: &Program,
    origin: String,
    folder: &Utf8Path,
    artifacts: &Utf8Path,
) -> Result<(), Error> {
    let mut recorded = BTreeMap::new();
    for name in program.artifacts() {
        let path = artifacts.join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).at("change", &path)?;
        let size = fs::metadata(&path).at("examine", &path)?.len();
        let artifact = Artifact { size, sha256: Sha256::of_file(&path)? };
        recorded.insert(name.to_owned(), artifact);
    }
    let manifest = ProgramManifest {
        name: program.name.clone(),
        version: program.version.clone(),
        origin,
        artifacts: recorded,
    };
    write_json(&folder.join("manifest.json"), &manifest)
}
