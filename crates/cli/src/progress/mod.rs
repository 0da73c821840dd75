//! Shows events on standard error: bars on a terminal, lines elsewhere, JSON lines on request. All three are consumers of the
//! same values and decide nothing.

mod bars;
mod lines;
pub mod sentence;

use std::io::{IsTerminal, Write};

use bivouac_engine::Reporter;

use crate::args::{Global, ProgressStyle};

/// A reporter that shows events in the wanted style.
pub fn reporter(global: &Global) -> Reporter {
    match global.progress {
        ProgressStyle::None => Reporter::silent(),
        ProgressStyle::Json => Reporter::new(|event| {
            let json = serde_json::to_string(&event).expect("an event has string keys only");
            write_line(&json);
        }),
        ProgressStyle::Auto if std::io::stderr().is_terminal() => bars::reporter(global.color),
        ProgressStyle::Auto | ProgressStyle::Lines => lines::reporter(global.color),
    }
}

/// A line on standard error. Nobody is left to tell when that fails.
pub fn write_line(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
