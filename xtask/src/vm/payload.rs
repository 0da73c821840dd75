//! What the guest gets to run: the binary, the tests, and in which order.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::guest::RESTART;
use super::{Options, PATIENCE};
use crate::root;

/// Tests that meet the kernel itself, before all that stands on them.
const UNITS: [Unit; 3] = [
    Unit { package: "bivouac-sys", which: "--lib", target: "bivouac_sys" },
    Unit { package: "bivouac-agent", which: "--test=supervisor", target: "supervisor" },
    Unit { package: "bivouac-providers", which: "--test=linux", target: "linux" },
];

/// What is tried of the unit of systemd.
const SERVICE: &str = include_str!("service.sh");

/// A program of tests: of which package, by which option of cargo, and how cargo names it.
struct Unit {
    package: &'static str,
    which: &'static str,
    target: &'static str,
}

/// `$BIVOUAC`, or the one that cargo builds for release.
pub(super) fn binary() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("BIVOUAC") {
        return fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()));
    }
    let arguments = ["build", "--release", "--locked", "--package", "bivouac-cli"];
    executable(&arguments, "bivouac")
}

/// Fills the folder that the guest sees.
pub(super) fn fill(folder: &Path, binary: &Path, options: &Options) -> Result<PathBuf, String> {
    let share = folder.join("share");
    fs::create_dir_all(&share).map_err(|error| format!("{}: {error}", share.display()))?;
    let mut steps = Vec::new();
    let own = std::env::current_exe().map_err(|error| format!("own program: {error}"))?;
    put(&own, &share.join("xtask"))?;
    put(binary, &share.join("bivouac"))?;
    if options.command.is_empty() {
        for Unit { package, which, target } in UNITS {
            let tests = executable(&["test", "--no-run", which, "--package", package], target)?;
            put(&tests, &share.join(target))?;
            // One at a time: their own deadlines are those of a machine that is not emulated.
            steps.push(format!("/share/{target}\t--test-threads=1"));
        }
        let arguments = ["test", "--no-run", "--test", "e2e", "--package", "bivouac-e2e"];
        put(&executable(&arguments, "e2e")?, &share.join("e2e"))?;
        fs::write(share.join("service.sh"), SERVICE)
            .map_err(|error| format!("service.sh: {error}"))?;
        let case = |case: &String| match case.as_str() {
            // It restarts the machine, which no end-to-end test may.
            super::SERVICE => ["before", "after"].map(service).join(&format!("\n{RESTART}\n")),
            case => format!("/share/e2e\t{case}"),
        };
        steps.extend(options.cases.iter().map(case));
    } else {
        steps.push(options.command.join("\t"));
    }
    let write = |name: &str, content: String| {
        fs::write(share.join(name), content).map_err(|error| format!("{name}: {error}"))
    };
    write("steps", steps.join("\n"))?;
    write("patience", PATIENCE.to_owned())?;
    for old in ["code", "progress"] {
        let _ = fs::remove_file(share.join(old));
    }
    Ok(share)
}

fn service(moment: &str) -> String {
    format!("/bin/sh\t/share/service.sh\t{moment}")
}

/// Copies beside and renames: what runs elsewhere stays as it is.
fn put(from: &Path, to: &Path) -> Result<(), String> {
    let new = to.with_extension("new");
    fs::copy(from, &new)
        .and_then(|_| fs::rename(&new, to))
        .map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

/// Has cargo build, and tells where the executable of this target is.
fn executable(arguments: &[&str], target: &str) -> Result<PathBuf, String> {
    let mut command = Command::new("cargo");
    command.args(arguments).args(["--quiet", "--message-format=json-render-diagnostics"]);
    let built = command.current_dir(root()).stderr(Stdio::inherit()).output();
    let built = built.map_err(|error| format!("cargo: {error}"))?;
    if !built.status.success() {
        return Err(format!("`cargo {}` failed", arguments.join(" ")));
    }
    let messages = String::from_utf8_lossy(&built.stdout).into_owned();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = messages.filter(|message| message["target"]["name"] == target);
    let path = found.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    path.ok_or_else(|| format!("cargo built no {target}"))
}
