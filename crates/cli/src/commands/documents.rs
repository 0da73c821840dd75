//! `bivouac init`, `schema`, `completion` and `version`: documents that need no cluster.

use std::io::Write as _;
use std::process::ExitCode;

use bivouac_spec::{Problem, Problems, cluster};
use clap_complete::env::Shells;
use serde::Serialize;

use crate::args::{self, Completion, Init};
use crate::output;

pub fn init(init: &Init) -> Result<ExitCode, Problems> {
    if init.file == "-" {
        output::raw(cluster::example().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if init.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written =
        options.open(&init.file).and_then(|mut file| file.write_all(cluster::example().as_bytes()));
    written.map_err(|error| {
        let problem =
            Problem::failed("cli.init", format!("cannot write {}", init.file)).because(&error);
        match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                problem.help("name another file, or replace it with `--force`")
            }
            _ => problem,
        }
    })?;
    output::raw(
        format!("wrote {0}; change it and run `bivouac up -f {0}`\n", init.file).as_bytes(),
    )?;
    Ok(ExitCode::SUCCESS)
}

pub fn schema() -> Result<ExitCode, Problems> {
    output::raw(cluster::schema().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// A script that asks bivouac itself for what fits, see [`crate::complete`].
pub fn completion(completion: &Completion) -> Result<ExitCode, Problems> {
    let (shells, name) = (Shells::builtins(), completion.shell.to_string());
    let shell = shells.completer(&name).expect("every shell that can be named has a script");
    let mut script = Vec::new();
    shell
        .write_registration("COMPLETE", "bivouac", "bivouac", "bivouac", &mut script)
        .map_err(|error| Problem::from_error("cli.completion", &error))?;
    output::raw(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The command line as a document: the long help of every command, hidden ones left out.
pub fn reference() -> Result<ExitCode, Problems> {
    let mut text =
        "# The command line\n\nMade from the program by `cargo xtask generate`.\n".to_owned();
    describe(&mut text, &mut args::command(), "");
    output::raw(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn describe(text: &mut String, command: &mut clap::Command, parents: &str) {
    let name = format!("{parents} {}", command.get_name()).trim_start().to_owned();
    let help = command.clone().bin_name(&name).term_width(100).render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    text.push_str(&format!("\n## {name}\n\n```\n{}\n```\n", help.join("\n").trim_end()));
    for child in command
        .get_subcommands_mut()
        .filter(|child| !child.is_hide_set() && child.get_name() != "help")
    {
        describe(text, child, &name);
    }
}

#[derive(Serialize)]
struct Versions {
    bivouac: &'static str,
    programs: std::collections::BTreeMap<String, String>,
}

pub fn version(version: &args::Version) -> Result<ExitCode, Problems> {
    let programs = crate::images::bundled_versions()?;
    let versions = Versions { bivouac: env!("CARGO_PKG_VERSION"), programs };
    output::write(version.output, &versions, || {
        let mut rows = vec![vec!["bivouac".to_owned(), versions.bivouac.to_owned()]];
        rows.extend(
            versions.programs.iter().map(|(name, version)| vec![name.clone(), version.clone()]),
        );
        output::table(&rows)
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_that_can_be_named_has_a_script() {
        for shell in clap_complete::Shell::value_variants() {
            assert!(Shells::builtins().completer(&shell.to_string()).is_some(), "{shell}");
        }
    }
}
