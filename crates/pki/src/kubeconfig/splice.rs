//! Changing a few lines of a YAML text in block style, leaving all others byte for byte.
//!
//! This knows only what kubeconfigs look like: keys at the left margin, lists of entries below them. It may be wrong
//! about anything else, so the caller reads the result and compares.

use std::ops::Range;

/// A change.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// Drop one item of a list.
    Drop { section: &'static str, index: usize, of: usize },
    /// Add an item, written as a list of one at the left margin, at the end of a list.
    Append { section: &'static str, item: String },
    /// Set a key to a string.
    Set { key: &'static str, value: String },
}

/// The text with all changes; `None` if it does not look as expected.
pub(super) fn apply(text: &str, edits: &[Edit]) -> Option<String> {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    if let Some(last) = lines.last_mut()
        && !last.ends_with('\n')
    {
        last.push('\n');
    }
    for edit in edits {
        match edit {
            Edit::Drop { section, index, of } => drop_item(&mut lines, section, *index, *of)?,
            Edit::Append { section, item } => append_item(&mut lines, section, item)?,
            Edit::Set { key, value } => {
                let line = format!("{key}: {}\n", scalar(value));
                match find_key(&lines, key) {
                    Some(at) => lines[at] = line,
                    None => lines.push(line),
                }
            }
        }
    }
    Some(lines.concat())
}

fn drop_item(lines: &mut Vec<String>, section: &str, index: usize, of: usize) -> Option<()> {
    let at = find_key(lines, section)?;
    let items = items(lines, at);
    if items.len() != of {
        return None;
    }
    lines.drain(items.get(index)?.clone());
    if of == 1 {
        lines[at] = format!("{section}: []\n");
    }
    Some(())
}

fn append_item(lines: &mut Vec<String>, section: &str, item: &str) -> Option<()> {
    let Some(at) = find_key(lines, section) else {
        lines.push(format!("{section}:\n{item}"));
        return Some(());
    };
    let items = items(lines, at);
    let Some(last) = items.last() else {
        // Nothing, `null` or `[]`.
        lines[at] = format!("{section}:\n");
        lines.insert(at + 1, item.to_owned());
        return Some(());
    };
    let indent = " ".repeat(indent(&lines[last.start]));
    let item = item.lines().map(|line| format!("{indent}{line}\n")).collect();
    lines.insert(last.end, item);
    Some(())
}

/// The line of a key at the left margin.
fn find_key(lines: &[String], key: &str) -> Option<usize> {
    lines.iter().position(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')))
}

/// The lines of each item of the list below a key. Blank lines and comments after an item belong to what follows.
fn items(lines: &[String], key: usize) -> Vec<Range<usize>> {
    let below = &lines[key + 1..];
    let length = below.iter().position(|line| is_new_key(line)).unwrap_or(below.len());
    let below = &below[..length];
    let Some(first) = below.iter().find(|line| !is_void(line)) else { return Vec::new() };
    let indent_of_list = indent(first);
    let starts: Vec<usize> = (0..length)
        .filter(|at| {
            indent(&below[*at]) == indent_of_list && below[*at].trim_start().starts_with('-')
        })
        .collect();
    let ends = starts.iter().skip(1).copied().chain([length]);
    let items = starts.iter().zip(ends).map(|(start, end)| {
        let voids = below[*start..end].iter().rev().take_while(|line| is_void(line)).count();
        key + 1 + start..key + 1 + end - voids
    });
    items.collect()
}

fn is_new_key(line: &str) -> bool {
    let starts_item = line.starts_with('-') && !line.starts_with("---");
    !(is_void(line) || starts_item || line.starts_with(' '))
}

fn is_void(line: &str) -> bool {
    let text = line.trim();
    text.is_empty() || text.starts_with('#')
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// A string, quoted unless every reader of YAML, old ones too, takes it for a string.
fn scalar(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.@/".contains(c));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    if plain && !word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
