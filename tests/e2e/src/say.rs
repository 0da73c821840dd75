//! A word to whoever watches or reads the run.

use std::io::Write;

/// Writes a line to standard error.
pub fn say(line: &str) {
    // Nobody is left to tell when it cannot be written.
    let _ = writeln!(std::io::stderr(), "{line}");
}
