//! The binary under test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary: `$BIVOUAC`, or the one that cargo builds beside these tests.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("BIVOUAC") {
        Some(path) => {
            let path = PathBuf::from(path);
            assert!(path.is_file(), "$BIVOUAC is {}, and there is no such file", path.display());
            path
        }
        None => build(),
    })
}

/// Builds the binary in the profile of these tests. Costs nothing when it is built.
fn build() -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let folder = own.ancestors().nth(2).expect("cargo puts tests into a folder called `deps`");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", "bivouac-cli"]);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo can be run where cargo runs the tests");
    assert!(status.success(), "the binary cannot be built: set $BIVOUAC to one that is there");
    folder.join("bivouac")
}
