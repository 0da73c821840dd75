//! Data for standard output: text for people, JSON and YAML for programs.

use std::io::Write;

use bivouac_spec::Problem;
use serde::Serialize;

use crate::args::Format;

/// Writes `value` in the wanted format; `text` makes the form for people.
///
/// # Errors
/// When standard output cannot be written. A reader that went away (`| head`) is no error.
pub fn write<T: Serialize>(
    format: Format,
    value: &T,
    text: impl FnOnce() -> String,
) -> Result<(), Problem> {
    let encoding = |error: &dyn std::error::Error| Problem::from_error("cli.encode", error);
    let document = match format {
        Format::Text => text(),
        Format::Json => {
            serde_json::to_string_pretty(value).map_err(|error| encoding(&error))? + "\n"
        }
        Format::Yaml => {
            // By way of JSON, so that both documents have the same shape.
            let value = serde_json::to_value(value).map_err(|error| encoding(&error))?;
            yaml_serde::to_string(&value).map_err(|error| encoding(&error))?
        }
    };
    raw(document.as_bytes())
}

/// Writes bytes to standard output.
///
/// # Errors
/// When they cannot be written. A reader that went away is no error.
pub fn raw(bytes: &[u8]) -> Result<(), Problem> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Problem::from_error("cli.output", &error))
        }
        _ => Ok(()),
    }
}

/// A table with two spaces between columns. The first row is the head.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// A number of bytes for people: `1.2 GB`.
pub fn bytes(bytes: u64) -> String {
    indicatif::DecimalBytes(bytes).to_string()
}
