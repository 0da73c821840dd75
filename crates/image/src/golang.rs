//! Builds artifacts from the Go modules of the bundle.
//!
//! Go's own caches are used, so that what was compiled once is not compiled again.

use std::fs;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use crate::bundle::Bundle;
use crate::command::{Run, run};
use crate::error::{At, Error};
use crate::event::Unit;
use crate::lock::{Build, Go, Program};
use crate::store::{Context, Out};

/// Builds all artifacts of a program into `artifacts`; returns the toolchain's version.
pub(crate) fn build_program(
    bundle: &Bundle,
    program: &Program,
    out: &Out<'_>,
    artifacts: &Utf8Path,
    context: &Context<'_>,
) -> Result<String, Error> {
    let module = program.module.as_deref().expect("a program with builds has a module");
    let source = out.work.join("source");
    bundle.write_module(module, &source)?;
    let go = &bundle.lock().go;
    for (number, build) in program.builds.iter().enumerate() {
        let job = Job { go, build, program, source: &source, out, context };
        let total = job.count_packages()?;
        let log = out.out.join(format!("build-{number}.log"));
        job.compile(artifacts, &log, total)?;
    }
    let mut command = Command::new("go");
    command.args(["env", "GOVERSION"]);
    let start = Run { command: &mut command, log: None, lock: None, cancel: context.cancel };
    Ok(run(start, &mut |_| ())?.trim().to_owned())
}

struct Job<'a> {
    go: &'a Go,
    build: &'a Build,
    program: &'a Program,
    source: &'a Utf8Path,
    out: &'a Out<'a>,
    context: &'a Context<'a>,
}

impl Job<'_> {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new("go");
        command.current_dir(self.source).arg(verb).envs(&self.go.env).envs(&self.build.env);
        command.args(&self.go.flags);
        let tags: Vec<&str> =
            self.go.tags.iter().chain(&self.build.tags).map(String::as_str).collect();
        if !tags.is_empty() {
            command.arg(format!("-tags={}", tags.join(",")));
        }
        command
    }

    fn run(
        &self,
        command: &mut Command,
        log: Option<&Utf8Path>,
        on_line: &mut dyn FnMut(&str),
    ) -> Result<String, Error> {
        let (lock, cancel) = (Some(self.out.lock), self.context.cancel);
        run(Run { command, log, lock, cancel }, on_line)
    }

    /// Modules are fetched here, before anything is compiled.
    fn count_packages(&self) -> Result<u64, Error> {
        let mut command = self.command("list");
        command.args(["-deps", "-f", "{{.ImportPath}}"]).args(self.build.packages.values());
        let mut fetching = false;
        let listed = self.run(&mut command, None, &mut |line| {
            if line.starts_with("go: downloading") && !fetching {
                fetching = true;
                self.context.reporter().note("fetching Go modules");
            }
        })?;
        Ok(listed.lines().count() as u64)
    }

    fn compile(&self, artifacts: &Utf8Path, log: &Utf8Path, total: u64) -> Result<(), Error> {
        let binaries = self.out.work.join("binaries");
        fs::create_dir_all(&binaries).at("create", &binaries)?;
        let mut command = self.command("build");
        let mut ldflags: Vec<String> =
            self.go.ldflags.iter().chain(&self.build.ldflags).cloned().collect();
        for (variable, value) in &self.build.stamps {
            ldflags.push(format!("-X={variable}={}", self.program.expand(value)));
        }
        command.arg("-v").arg(format!("-ldflags={}", ldflags.join(" ")));
        // A folder with a final slash takes any number of packages; they are named by their paths.
        let target = match self.build.packages.keys().next() {
            Some(artifact) if self.build.packages.len() == 1 => binaries.join(artifact).to_string(),
            _ => format!("{binaries}/"),
        };
        command.arg("-o").arg(target).args(self.build.packages.values());
        let reporter = self.context.reporter();
        let mut done = 0;
        reporter.progress(0, Some(total), Unit::Packages);
        self.run(&mut command, Some(log), &mut |line| {
            if !line.starts_with('#') && !line.starts_with("go: ") {
                done = total.min(done + 1);
                reporter.progress(done, Some(total), Unit::Packages);
            }
        })?;
        for (artifact, package) in &self.build.packages {
            let from = self.binary(&binaries, artifact, package);
            let to = artifacts.join(artifact);
            fs::rename(&from, &to).at("put in place", &to)?;
        }
        Ok(())
    }

    fn binary(&self, binaries: &Utf8Path, artifact: &str, package: &str) -> Utf8PathBuf {
        if self.build.packages.len() == 1 {
            return binaries.join(artifact);
        }
        binaries.join(package.rsplit('/').next().unwrap_or(package))
    }
}
