//! What the guides quote of the program is what the program says.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    // Asked at run time: checkouts that share a target folder may share this program too.
    let folder = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this");
    Path::new(&folder).parent().unwrap().to_owned()
}

/// All code below a folder, with the ends of lines that a string goes over taken out.
fn code(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all += &code(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let mut lines = text.split("\\\n");
            all += lines.next().unwrap();
            lines.for_each(|line| all += line.trim_start());
        }
    }
    all
}

/// Whether a code is made by the program: written out, or its last part by a provider, which puts its own name before it.
fn is_made(code: &str, crates: &str, providers: impl Fn(&str) -> String) -> bool {
    let is_short = || {
        let (provider, name) = code.strip_prefix("provider.")?.split_once('.')?;
        Some(providers(provider).contains(&format!("\"{name}\"")))
    };
    crates.contains(&format!("\"{code}\"")) || is_short().unwrap_or(false)
}

/// The codes in brackets of a page, each with what stands before it in its row.
fn codes(page: &str) -> Vec<(&str, &str)> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let codes = rows.filter_map(|row| {
        let cell = row.trim_start_matches('|').split(" |").next()?;
        let (said, code) = cell.rsplit_once('[')?;
        Some((said.trim(), code.trim_end_matches(']')))
    });
    codes.collect()
}

#[test]
fn errors_that_are_explained_are_errors_that_there_are() {
    let page = fs::read_to_string(root().join("docs/guides/troubleshooting.md")).unwrap();
    let crates = code(&root().join("crates"));
    let provider = |name: &str| {
        // Made by the engine that `docker` uses.
        let folder = if name == "compose" { "docker/compose" } else { name };
        code(&root().join("crates/providers/src").join(folder))
    };
    let codes = codes(&page);
    assert!(codes.len() >= 20, "the page explains {} errors", codes.len());
    for (said, code) in codes {
        assert!(is_made(code, &crates, provider), "nothing has the code {code}");
        let texts = said.trim_matches('`').split("`, `");
        for words in texts.flat_map(|text| text.split('…')) {
            assert!(crates.contains(words), "nothing says `{words}` before the code {code}");
        }
    }
}
