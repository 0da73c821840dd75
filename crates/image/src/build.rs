//! Building a node image from a bundle: what is in the store is used, the rest is made.
//!
//! ```text
//! base      mmdebstrap ----> packages  mmdebstrap ---.
//!                                                     }--> node: layers, OCI layout, root file system
//! programs  download or go build --------------------'
//! ```
//!
//! The base is made beside the programs; these are made one after the other, since `go build` uses all processors.

use std::collections::BTreeMap;
use std::time::Instant;

use camino::Utf8Path;

use crate::bundle::Bundle;
use crate::cancel::Cancel;
use crate::debian::{DebianLayer, ensure_base, ensure_packages};
use crate::download::Downloader;
use crate::error::Error;
use crate::event::{Event, OnEvent, Step};
use crate::layer::Layer;
use crate::lock::Program;
use crate::node::{NodeImage, assemble};
use crate::oci::host_architecture;
use crate::program::{Made, Origin, Request, ensure_program};
use crate::stack::Stack;
use crate::store::{Context, Kind, Out, Store};
use crate::tools::{self, Needs};
use crate::upper::Parts;
use crate::verify;

/// Bytes that a build needs when nothing is made yet: sources, compiled packages, layers, root file system.
const SPACE_COLD: u64 = 4_000_000_000;
/// Bytes that it needs when the programs are there.
const SPACE_WARM: u64 = 1_500_000_000;

/// Which ways to a program may be taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// Download where upstream answers quickly, build otherwise.
    #[default]
    Auto,
    /// Download; build only what upstream does not publish.
    Download,
    /// Build; never download.
    Build,
}

/// What to build, and how.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// What the image is for.
    pub stack: Stack,
    /// Which ways to a program may be taken.
    pub source: Source,
}

/// The image of this bundle: as it is when it is there and sounds whole, otherwise built. The look takes milliseconds.
///
/// # Errors
/// As [`build`].
pub fn ensure(
    store: &Store,
    bundle: &Bundle,
    options: &BuildOptions,
    on_event: OnEvent<'_>,
    cancel: &Cancel,
) -> Result<NodeImage, Error> {
    match find(store, bundle, options.stack) {
        Some(image) => Ok(image),
        None => build(store, bundle, options, on_event, cancel),
    }
}

/// The image of this bundle for a stack, when it is there and a quick look finds nothing wrong.
pub fn find(store: &Store, bundle: &Bundle, stack: Stack) -> Option<NodeImage> {
    let image = NodeImage::open(store, &bundle.image_key(stack).ok()?).ok()?;
    verify::check_quickly(&image).ok().map(|()| image)
}

/// Builds the image of this bundle. What is in the store is checked and reused, what is damaged is made again.
///
/// # Errors
/// Whatever keeps it from being made; finished pieces stay in the store.
pub fn build(
    store: &Store,
    bundle: &Bundle,
    options: &BuildOptions,
    on_event: OnEvent<'_>,
    cancel: &Cancel,
) -> Result<NodeImage, Error> {
    on_event(Event::Planned { steps: plan_steps(bundle, options.stack)? });
    let builder = Builder { store, bundle, options, on_event, downloader: Downloader::new() };
    // So that a failure on one side ends the work on the other.
    let inner = Cancel::new();
    let forwarded = inner.clone();
    let _guard = cancel.on_cancel(move || forwarded.cancel());
    let result = builder.run(&inner);
    cancel.check()?;
    result
}

/// The steps of a build, with weights from builds on two cores.
///
/// # Errors
/// [`Error::Lock`] when the lock says nothing of the stack.
pub fn plan_steps(bundle: &Bundle, stack: Stack) -> Result<Vec<Step>, Error> {
    let suite = &bundle.lock().debian.suite;
    let mut steps = vec![Step { id: "base".into(), name: format!("Debian {suite}"), weight: 35 }];
    if bundle.packages(stack)?.is_some() {
        let name = format!("Debian packages of {stack}");
        steps.push(Step { id: "packages".into(), name, weight: 45 });
    }
    for program in bundle.programs(stack)? {
        let id = format!("program/{}", program.name);
        let name = format!("{} {}", program.name, program.version);
        steps.push(Step { id, name, weight: weight(program) });
    }
    steps.push(Step { id: "node".into(), name: "node image".into(), weight: 10 });
    Ok(steps)
}

/// Seconds from nothing, modules to be fetched included. What shares packages with an earlier program takes less than
/// it would alone.
fn weight(program: &Program) -> u32 {
    match program.name.as_str() {
        "kube" => 240,
        "containerd" => 25,
        "etcd" | "coredns" => 12,
        "runc" => 8,
        "local-path-provisioner" => 5,
        _ if program.builds.is_empty() => 1,
        _ => 3,
    }
}

struct Builder<'a> {
    store: &'a Store,
    bundle: &'a Bundle,
    options: &'a BuildOptions,
    on_event: OnEvent<'a>,
    downloader: Downloader,
}

impl Builder<'_> {
    fn run(&self, cancel: &Cancel) -> Result<NodeImage, Error> {
        let context = Context { step: "node", on_event: self.on_event, cancel };
        let _building = self.store.lock_building(&context)?;
        let stack = self.options.stack;
        let key = self.bundle.image_key(stack)?;
        let wanted = self.bundle.programs(stack)?;
        let present = self.store.piece(Kind::Image, &key).exists();
        if present && verify::check_image(self.store, &key).is_ok() {
            let image = NodeImage::open(self.store, &key)?;
            for step in plan_steps(self.bundle, stack)? {
                let size = if step.id == "node" { image.manifest.size } else { 0 };
                (self.on_event)(Event::Reused { step: step.id, size });
            }
            return Ok(image);
        }
        let origins = self.origins(wanted);
        self.preflight(wanted, &origins)?;
        let (base, mut programs) = self.base_and_programs(wanted, &origins, cancel)?;
        for program in wanted.iter().filter(|program| !program.debian.is_empty()) {
            let made = self.program(program, Origin::Debian, Some(&base.layer), cancel)?;
            programs.insert(program.name.clone(), made);
        }
        let packages = match self.bundle.packages(stack)? {
            Some(packages) => Some(self.debian("packages", cancel, |context| {
                ensure_packages(self.store, self.bundle, &base.layer, packages, context)
            })?),
            None => None,
        };
        self.node(&key, &Parts { stack, base, packages, programs }, cancel)
    }

    /// How each program comes that does not come from the base.
    fn origins<'p>(&self, wanted: &'p [Program]) -> BTreeMap<&'p str, Origin<'p>> {
        wanted
            .iter()
            .filter(|program| program.debian.is_empty())
            .map(|program| (program.name.as_str(), self.origin(program)))
            .collect()
    }

    fn origin<'b>(&self, program: &'b Program) -> Origin<'b> {
        let there = self.store.piece(Kind::Program, &self.bundle.program_key(program)).exists();
        match (program.download(host_architecture()), self.options.source) {
            (None, _) | (_, Source::Build) => Origin::Build,
            (Some(download), Source::Download) => Origin::Download(download),
            // Nothing needs to be asked for what is there; if it is damaged, building is always a way.
            (Some(_), Source::Auto) if there => Origin::Build,
            (Some(download), Source::Auto) => {
                if self.downloader.reachable(&program.expand(&download.url)) {
                    Origin::Download(download)
                } else {
                    Origin::Build
                }
            }
        }
    }

    /// Everything that would stop the build later, told now.
    fn preflight(
        &self,
        wanted: &[Program],
        origins: &BTreeMap<&str, Origin<'_>>,
    ) -> Result<(), Error> {
        let missing: Vec<&Program> = wanted
            .iter()
            .filter(|program| {
                let key = self.bundle.program_key(program);
                !self.store.piece(Kind::Program, &key).exists()
            })
            .collect();
        let packages = self.bundle.packages(self.options.stack)?;
        let debian = std::iter::once(self.bundle.base_key())
            .chain(packages.map(|packages| self.bundle.packages_key(packages)))
            .any(|key| !self.store.piece(Kind::Base, &key).exists());
        let built = missing
            .iter()
            .copied()
            .filter(|program| matches!(origins.get(program.name.as_str()), Some(Origin::Build)));
        check_tools(self.bundle, built, debian)?;
        let needed = if missing.len() > 3 { SPACE_COLD } else { SPACE_WARM };
        let free = self.store.free_space()?;
        if free < needed {
            return Err(Error::NoSpace { path: self.store.root().to_owned(), free, needed });
        }
        Ok(())
    }

    fn base_and_programs(
        &self,
        wanted: &[Program],
        origins: &BTreeMap<&str, Origin<'_>>,
        cancel: &Cancel,
    ) -> Result<(DebianLayer, BTreeMap<String, Made>), Error> {
        let (base, programs) = std::thread::scope(|scope| {
            let base = scope.spawn(|| self.base(cancel).inspect_err(|_| cancel.cancel()));
            let programs = self.programs(wanted, origins, cancel).inspect_err(|_| cancel.cancel());
            (base.join().expect("making the base does not panic"), programs)
        });
        match (base, programs) {
            (Ok(base), Ok(programs)) => Ok((base, programs)),
            // The one that failed, not the one that was then cancelled.
            (Err(Error::Cancelled), Err(error)) | (Err(error), _) | (Ok(_), Err(error)) => {
                Err(error)
            }
        }
    }

    fn base(&self, cancel: &Cancel) -> Result<DebianLayer, Error> {
        self.debian("base", cancel, |context| ensure_base(self.store, self.bundle, context))
    }

    fn debian(
        &self,
        id: &str,
        cancel: &Cancel,
        work: impl FnOnce(&Context<'_>) -> Result<DebianLayer, Error>,
    ) -> Result<DebianLayer, Error> {
        self.step(id, cancel, |context| {
            let made = work(context)?;
            let (now, size) = (made.made_now, made.layer.size);
            Ok((made, now, size))
        })
    }

    fn programs(
        &self,
        wanted: &[Program],
        origins: &BTreeMap<&str, Origin<'_>>,
        cancel: &Cancel,
    ) -> Result<BTreeMap<String, Made>, Error> {
        let mut programs = BTreeMap::new();
        for program in wanted {
            if let Some(origin) = origins.get(program.name.as_str()) {
                let made = self.program(program, *origin, None, cancel)?;
                programs.insert(program.name.clone(), made);
            }
        }
        Ok(programs)
    }

    fn program(
        &self,
        program: &Program,
        origin: Origin<'_>,
        base: Option<&Layer>,
        cancel: &Cancel,
    ) -> Result<Made, Error> {
        self.step(&format!("program/{}", program.name), cancel, |context| {
            let request = Request {
                origin,
                downloader: &self.downloader,
                base: base.map(|layer| self.store.blob(&layer.digest)),
                may_build: self.options.source == Source::Auto,
            };
            let made = ensure_program(self.store, self.bundle, program, &request, context)?;
            let (now, size) = (made.made_now, made.size);
            Ok((made, now, size))
        })
    }

    fn node(&self, key: &str, parts: &Parts, cancel: &Cancel) -> Result<NodeImage, Error> {
        self.step("node", cancel, |context| {
            let is_sound = |_: &Utf8Path| verify::check_image(self.store, key);
            let mut make = |out: &Out<'_>| assemble(self.store, self.bundle, parts, out, context);
            let (_, made) =
                self.store.ensure_piece(Kind::Image, key, context, &is_sound, &mut make)?;
            let image = NodeImage::open(self.store, key)?;
            let size = image.manifest.size;
            Ok((image, made, size))
        })
    }

    /// Tells the beginning and the end of a step. The work returns its result, whether it was made now, and bytes.
    fn step<T>(
        &self,
        id: &str,
        cancel: &Cancel,
        work: impl FnOnce(&Context<'_>) -> Result<(T, bool, u64), Error>,
    ) -> Result<T, Error> {
        let context = Context { step: id, on_event: self.on_event, cancel };
        let reporter = context.reporter();
        let since = Instant::now();
        reporter.started();
        match work(&context) {
            Ok((result, made, size)) => {
                if made {
                    reporter.finished(size, since);
                } else {
                    reporter.reused(size);
                }
                Ok(result)
            }
            Err(error) => {
                reporter.failed(&error);
                Err(error)
            }
        }
    }
}

/// Fails with all that is missing on this machine to build these programs, and the base where asked.
pub(crate) fn check_tools<'p>(
    bundle: &Bundle,
    programs: impl IntoIterator<Item = &'p Program>,
    debian: bool,
) -> Result<(), Error> {
    let mut needs = Needs { debian, ..Needs::default() };
    for build in programs.into_iter().flat_map(|program| &program.builds) {
        needs.go = true;
        needs.packages.extend(build.needs.iter().cloned());
    }
    tools::check(&needs, &bundle.lock().go.version)
}
