//! nftables, through the `nft` command.
//!
//! Why a command: a ruleset is a language, and only `nft` compiles all of it. The libraries either call the same
//! command or cover a part of the netlink messages. A ruleset is loaded as one transaction: all of it or nothing.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::error::Context;
use crate::{Cause, Error, Result};

/// How many lines of standard error an error keeps.
const LAST_LINES: usize = 5;

/// A table of the caller's network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Table {
    /// `ip`, `ip6`, `inet`, `bridge`, ...
    pub family: String,
    /// Its name.
    pub name: String,
}

/// Loads a ruleset (as text) as one transaction.
pub fn load(ruleset: &str) -> Result<()> {
    run("load", &["-f", "-"], ruleset).map(drop)
}

/// The tables that there are.
pub fn list_tables() -> Result<Vec<Table>> {
    let text = run("list", &["list", "tables"], "")?;
    let tables = text.lines().filter_map(|line| {
        let mut words = line.strip_prefix("table ")?.split_whitespace();
        Some(Table { family: words.next()?.to_owned(), name: words.next()?.to_owned() })
    });
    Ok(tables.collect())
}

/// A table as `nft` writes it; `None` if it is absent.
pub fn read_table(family: &str, name: &str) -> Result<Option<String>> {
    match run("list", &["list", "table", family, name], "") {
        Ok(text) => Ok(Some(text)),
        Err(error) => {
            // That it is absent is said in a sentence only, and it can go at any moment.
            let is_there = |table: &Table| table.family == family && table.name == name;
            if list_tables()?.iter().any(is_there) { Err(error) } else { Ok(None) }
        }
    }
}

/// Deletes a table with all that is in it. Absent is success.
pub fn destroy_table(family: &str, name: &str) -> Result<()> {
    // Declared first, so that there is one to delete; `destroy` is known only to newer versions.
    load(&format!("table {family} {name} {{}}\ndelete table {family} {name}\n"))
}

fn run(call: &'static str, arguments: &[&str], input: &str) -> Result<String> {
    let object = format!("nftables (`nft {}`)", arguments.join(" "));
    let mut child = Command::new("nft")
        .args(arguments)
        // What it prints is read here, so no translations.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .at(call, &object)?;
    // Reads all of its input before it writes anything. A broken pipe means that it ended: its status says why.
    let written = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().at(call, &object)?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = stderr.trim_end().lines().collect();
        let stderr = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        return Err(Error::new(call, object, Cause::Command { status: output.status, stderr }));
    }
    written.transpose().at(call, &object)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

    #[test]
    fn a_table_comes_and_goes_as_a_whole() {
        isolated(|| {
            if let Err(error) = list_tables() {
                println!("skipped: {error}: {}", error.cause());
                return;
            }
            load("table inet bivouac-test {\n chain c { type filter hook input priority 0; }\n}\n")
                .unwrap();
            let table = Table { family: "inet".into(), name: "bivouac-test".into() };
            assert_eq!(list_tables().unwrap(), [table]);
            let text = read_table("inet", "bivouac-test").unwrap().unwrap();
            assert!(text.contains("type filter hook input"), "{text}");
            assert_eq!(read_table("inet", "other").unwrap(), None);
            let error = load("table inet other { chain c { nonsense } }").unwrap_err();
            assert!(error.cause().to_string().contains("nonsense"), "{}", error.cause());
            assert_eq!(error.to_string(), "load nftables (`nft -f -`) failed");
            destroy_table("inet", "bivouac-test").unwrap();
            destroy_table("inet", "bivouac-test").unwrap();
            assert_eq!(list_tables().unwrap(), []);
        });
    }
}
