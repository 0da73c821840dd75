//! Development chores: `cargo xtask ci` is what CI runs before the tests that need a machine of their own; `cargo xtask generate`
//! writes the documents that are made from code; `cargo xtask vm` runs end-to-end tests in a guest.

mod vm;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND
  ci         formatting, lints, documentation, generated documents, unit and integration tests
  generate   write docs/reference/cluster.schema.json and docs/reference/cli.md
";

/// Documents made by a command of bivouac itself: its arguments, and where the output goes.
const GENERATED: [(&[&str], &str); 2] = [
    (&["schema"], "docs/reference/cluster.schema.json"),
    (&["reference"], "docs/reference/cli.md"),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let outcome = match arguments.next().as_deref() {
        Some("ci") => ci(),
        Some("generate") => generate(),
        Some("vm") => vm::run(arguments),
        // In the guest, by its service.
        Some("guest") => vm::serve(),
        _ => Err(format!("{USAGE}{}", vm::USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    run("cargo", &["fmt", "--all", "--check"])?;
    run("cargo", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"])?;
    document()?;
    for (arguments, path) in GENERATED {
        let committed = std::fs::read_to_string(root().join(path))
            .map_err(|error| format!("{path}: {error}"))?;
        if made(arguments)? != committed {
            return Err(format!(
                "{path} is not what the code says: run `cargo xtask generate` and commit it"
            ));
        }
    }
    run("cargo", &["test", "--workspace", "--lib", "--bins", "--tests", "--exclude", "bivouac-e2e"])
}

fn document() -> Result<(), String> {
    let arguments = ["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root()).env("RUSTDOCFLAGS", "-D warnings");
    check("cargo doc", command.status())
}

fn generate() -> Result<(), String> {
    for (arguments, path) in GENERATED {
        std::fs::write(root().join(path), made(arguments)?)
            .map_err(|error| format!("{path}: {error}"))?;
    }
    Ok(())
}

/// What bivouac prints for these arguments.
fn made(arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new("cargo");
    command
        .args(["run", "--quiet", "--package", "bivouac-cli", "--"])
        .args(arguments)
        .current_dir(root());
    let output = command.output().map_err(|error| format!("cargo run: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "bivouac {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    String::from_utf8(output.stdout).map_err(|error| error.to_string())
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    check(&format!("{program} {}", arguments.join(" ")), command.status())
}

fn check(what: &str, status: std::io::Result<std::process::ExitStatus>) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{what}` ended with {status}")),
        Err(error) => Err(format!("`{what}` could not be run: {error}")),
    }
}

fn root() -> PathBuf {
    // Asked at run time: checkouts that share a target folder may share this program too.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this");
    Path::new(&folder).parent().expect("xtask lies in the workspace").to_owned()
}
