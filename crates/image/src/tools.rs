//! What building needs from the machine, checked before anything starts, so that all that is missing is told at once.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{At, Error};

/// Something that building needs, and the Debian or Ubuntu package that brings it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// As people call it.
    pub name: String,
    /// The package.
    pub package: String,
}

/// What a build is going to do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) go: bool,
    pub(crate) debian: bool,
    /// Debian packages.
    pub(crate) packages: Vec<String>,
}

/// Fails with everything that is missing, in one error.
pub(crate) fn check(needs: &Needs, go_version: &str) -> Result<(), Error> {
    let mut packages = needs.packages.clone();
    if needs.go {
        packages.push("golang-go".into());
    }
    if needs.debian {
        packages.extend(["mmdebstrap".into(), "debian-archive-keyring".into()]);
    }
    packages.sort_unstable();
    packages.dedup();
    let missing: Vec<Tool> = packages
        .into_iter()
        .filter(|package| !present(package))
        .map(|package| Tool { name: common_name(&package).to_owned(), package })
        .collect();
    if !missing.is_empty() {
        return Err(Error::MissingTools(missing));
    }
    if needs.go {
        check_go(go_version)?;
    }
    if needs.debian && !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    Ok(())
}

fn common_name(package: &str) -> &str {
    match package {
        "golang-go" => "go",
        "libseccomp-dev" => "libseccomp",
        "libc6-dev" => "the C library's headers",
        "debian-archive-keyring" => "the keys of Debian's archive",
        other => other,
    }
}

/// Looks for what the package brings, however it came here; unknown packages are asked of dpkg.
fn present(package: &str) -> bool {
    match package {
        "golang-go" => on_path("go"),
        "gcc" | "mmdebstrap" | "pkg-config" => on_path(package),
        "libc6-dev" => Path::new("/usr/include/stdlib.h").exists(),
        // Without pkg-config nobody can say, and then that is told too.
        "libseccomp-dev" => succeeds("pkg-config", &["--exists", "libseccomp"]),
        "debian-archive-keyring" => {
            Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").exists()
        }
        other => succeeds("dpkg", &["--status", other]),
    }
}

/// Go 1.21 and newer fetch the toolchain that a module names, unless they are told not to.
fn check_go(needed: &str) -> Result<(), Error> {
    let output =
        Command::new("go").args(["env", "GOVERSION", "GOTOOLCHAIN"]).output().at("run", "go")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let found = lines.next().unwrap_or_default().trim_start_matches("go").to_owned();
    let may_switch =
        lines.next().unwrap_or_default() != "local" && version(&found) >= version("1.21");
    if may_switch || version(&found) >= version(needed) {
        return Ok(());
    }
    Err(Error::GoTooOld { found, needed: needed.into() })
}

fn version(text: &str) -> Vec<u32> {
    text.split('.')
        .map(|part| {
            part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
        })
        .collect()
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.26.8") > version("1.9"));
        assert!(version("1.26rc1") < version("1.26.1"));
        assert!(version("1.26") <= version("1.26.0"));
    }

    #[test]
    fn everything_missing_is_told_at_once() {
        let packages = vec!["bivouac-none".into(), "bivouac-nothing".into()];
        let error = check(&Needs { packages, ..Needs::default() }, "1").unwrap_err();
        insta::assert_snapshot!(format!("{error}\n{}", error.help().unwrap()), @r"
        building the node image needs what is not on this machine: bivouac-none, bivouac-nothing
        run `apt-get install -y bivouac-none bivouac-nothing`
        ");
    }
}
