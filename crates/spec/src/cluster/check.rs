//! Compares a tree with the shape of the cluster file and reports everything that does not fit.
//!
//! What is refused is replaced by a placeholder, so that the rules can be checked for the rest of the file in the same run.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::path::{Locations, field, item};
use super::shape::{Field, Format, Shape};
use super::tree::{Node, ScalarKind, Value as Tree};
use crate::name::nearest;
use crate::problem::Problem;

/// What came of comparing.
pub(super) struct Checked {
    /// The file as JSON, with placeholders for what was refused.
    pub(super) value: Value,
    pub(super) locations: Locations,
    pub(super) problems: Vec<Problem>,
    /// The paths of what was refused.
    pub(super) refused: Vec<String>,
}

pub(super) fn check(tree: &Node, shape: &Shape, file: &str) -> Checked {
    let locations = Locations::in_file(file);
    let mut check = Check { root: shape, locations, problems: Vec::new(), refused: Vec::new() };
    let value = check.value(tree, shape, "");
    let Check { locations, problems, refused, .. } = check;
    Checked { value, locations, problems, refused }
}

struct Check<'a> {
    root: &'a Shape,
    locations: Locations,
    problems: Vec<Problem>,
    refused: Vec<String>,
}

impl Check<'_> {
    fn report(&mut self, path: &str, at: (u32, u32), problem: Problem) {
        self.problems.push(problem.at(self.locations.place(at)));
        self.refused.push(path.to_owned());
    }

    fn value(&mut self, node: &Node, shape: &Shape, path: &str) -> Value {
        self.locations.insert(path, node.at);
        match (shape, &node.value) {
            (Shape::Fields(fields), Tree::Mapping(entries)) => {
                self.fields(node, fields, entries, path)
            }
            (Shape::Fields(_), _) if node.is_null() => self.value(&empty(node), shape, path),
            (Shape::Choice(choices), Tree::Mapping(entries)) => {
                self.choice(node, (shape, choices), entries, path)
            }
            (Shape::Map(of), Tree::Mapping(entries)) => self.map(of, entries, path),
            (Shape::List(of), Tree::List(items)) => {
                let items = items.iter().enumerate();
                items.map(|(index, node)| self.value(node, of, &item(path, index))).collect()
            }
            (Shape::Words(words), Tree::Scalar { text, .. }) if !node.is_null() => {
                self.word(node, words, text, path).unwrap_or_else(|| shape.placeholder())
            }
            (Shape::Integer { min, max }, Tree::Scalar { text, kind: ScalarKind::Number }) => {
                self.integer(node, *min..=*max, text, path).unwrap_or_else(|| shape.placeholder())
            }
            (Shape::Boolean, Tree::Scalar { text, kind: ScalarKind::Bool }) => {
                text.eq_ignore_ascii_case("true").into()
            }
            (Shape::Text(format), Tree::Scalar { text, kind })
                if *kind == ScalarKind::Text
                    || (*kind == ScalarKind::Number && format.is_amount()) =>
            {
                self.text(node, *format, text, path).unwrap_or_else(|| shape.placeholder())
            }
            _ => {
                self.wrong_type(node, shape, path);
                shape.placeholder()
            }
        }
    }

    /// The entries whose keys are text, each key once.
    fn entries<'n>(
        &mut self,
        entries: &'n [(Node, Node)],
        path: &str,
    ) -> Vec<(&'n str, &'n (Node, Node))> {
        let mut seen: Vec<(&str, &(Node, Node))> = Vec::new();
        for entry in entries {
            let Some(key) = entry.0.text() else {
                let message =
                    format!("`{path}` has a key that is not text, but {}", entry.0.description());
                let problem =
                    Problem::usage("spec.wrong_type", message).help("Write `key: value`.");
                self.report(path, entry.0.at, problem);
                continue;
            };
            if let Some((_, first)) = seen.iter().find(|(name, _)| *name == key) {
                let path = field(path, key);
                let message = format!("`{path}` is given twice, first in line {}", first.0.at.0);
                let problem =
                    Problem::usage("spec.duplicate_field", message).help("Remove one of the two.");
                self.report(&path, entry.0.at, problem);
                continue;
            }
            seen.push((key, entry));
        }
        seen
    }

    fn fields(
        &mut self,
        node: &Node,
        fields: &std::collections::BTreeMap<String, Field>,
        entries: &[(Node, Node)],
        path: &str,
    ) -> Value {
        let mut object = Map::new();
        for (key, (key_node, value)) in self.entries(entries, path) {
            let path = field(path, key);
            match fields.get(key) {
                None => self.unknown_field(key_node, key, fields.keys().map(String::as_str), &path),
                Some(_) if value.is_null() => self.locations.insert(&path, value.at),
                Some(known) => {
                    let before = self.refused.len();
                    let value = self.value(value, &known.shape, &path);
                    // An optional value that was refused itself is left out; one with refused parts stays.
                    let whole = self.refused[before..].contains(&path);
                    if !whole || known.required {
                        object.insert(key.to_owned(), value);
                    }
                }
            }
        }
        for (name, known) in fields.iter().filter(|(_, known)| known.required) {
            if object.contains_key(name) {
                continue;
            }
            object.insert(name.clone(), known.shape.placeholder());
            self.missing_field(node, name, &known.shape, path);
        }
        Value::Object(object)
    }

    fn choice(
        &mut self,
        node: &Node,
        (shape, choices): (&Shape, &std::collections::BTreeMap<String, Shape>),
        entries: &[(Node, Node)],
        path: &str,
    ) -> Value {
        let entries = self.entries(entries, path);
        if let [(key, (key_node, value))] = entries.as_slice() {
            let path = field(path, key);
            return match choices.get(*key) {
                Some(shape) => {
                    let value = self.value(value, shape, &path);
                    Value::Object(Map::from_iter([((*key).to_owned(), value)]))
                }
                None => {
                    self.unknown_field(key_node, key, choices.keys().map(String::as_str), &path);
                    shape.placeholder()
                }
            };
        }
        let names = listed(choices.keys().map(String::as_str));
        let message =
            format!("`{path}` must hold exactly one of {names}, but holds {}", entries.len());
        let example = choices.keys().next_back().map_or("", String::as_str);
        let help = match entries.len() {
            0 => format!("Write `{example}: {{}}` below it."),
            _ => "Keep only one of them.".to_owned(),
        };
        self.report(path, node.at, Problem::usage("spec.not_one_choice", message).help(help));
        shape.placeholder()
    }

    fn map(&mut self, of: &Shape, entries: &[(Node, Node)], path: &str) -> Value {
        let mut object = Map::new();
        for (key, (_, value)) in self.entries(entries, path) {
            let value = self.value(value, of, &field(path, key));
            object.insert(key.to_owned(), value);
        }
        Value::Object(object)
    }

    fn word(&mut self, node: &Node, words: &[String], text: &str, path: &str) -> Option<Value> {
        if words.iter().any(|word| word == text) {
            return Some(text.into());
        }
        let words = || words.iter().map(String::as_str);
        let message = format!("`{path}` is `{text}`, which is not one of {}", listed(words()));
        let likely = words().find(|word| word.eq_ignore_ascii_case(text));
        let help = match likely.or_else(|| nearest(text, words())) {
            Some(word) => format!("Write `{word}`."),
            None => format!("Write one of {}.", listed(words())),
        };
        self.report(path, node.at, Problem::usage("spec.unknown_value", message).help(help));
        None
    }

    fn integer(
        &mut self,
        node: &Node,
        range: RangeInclusive<u64>,
        text: &str,
        path: &str,
    ) -> Option<Value> {
        if let Some(number) = text.parse::<u64>().ok().filter(|number| range.contains(number)) {
            return Some(number.into());
        }
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let message = format!("`{path}` must be {wanted}, but is {text}");
        let problem = Problem::usage("spec.out_of_range", message).help(format!("Write {wanted}."));
        self.report(path, node.at, problem);
        None
    }

    fn text(&mut self, node: &Node, format: Format, text: &str, path: &str) -> Option<Value> {
        match format.check(text) {
            Ok(()) => Some(text.into()),
            Err((code, message, help)) => {
                let message = format!("`{path}`: {message}");
                self.report(path, node.at, Problem::usage(code, message).help(help));
                None
            }
        }
    }

    fn unknown_field<'n>(
        &mut self,
        node: &Node,
        key: &str,
        known: impl Iterator<Item = &'n str> + Clone,
        path: &str,
    ) {
        let likely = known.clone().find(|name| name.eq_ignore_ascii_case(key));
        let help = if let Some(name) = likely.or_else(|| nearest(key, known.clone())) {
            format!("Write `{name}`.")
        } else if let Some(place) = self.root.find(key, "") {
            format!("Move it to `{place}`.")
        } else if known.clone().next().is_none() {
            "Remove it: no settings exist there.".to_owned()
        } else if known.clone().nth(1).is_none() {
            format!("Use {}, or remove it.", listed(known))
        } else {
            format!("Use one of {}, or remove it.", listed(known))
        };
        let message = format!("unknown field `{path}`");
        self.report(path, node.at, Problem::usage("spec.unknown_field", message).help(help));
    }

    fn missing_field(&mut self, node: &Node, name: &str, shape: &Shape, path: &str) {
        let help = match shape {
            Shape::Words(words) if words.len() == 1 => format!("Add `{name}: {}`.", words[0]),
            Shape::Words(words) => {
                format!("Add `{name}:` with one of {}.", listed(words.iter().map(String::as_str)))
            }
            _ => format!("Add `{name}:`."),
        };
        let path = field(path, name);
        let message = format!("`{path}` is missing");
        self.report(&path, node.at, Problem::usage("spec.missing_field", message).help(help));
    }

    fn wrong_type(&mut self, node: &Node, shape: &Shape, path: &str) {
        let (wanted, help) = match shape {
            Shape::Fields(_) | Shape::Map(_) => {
                ("a mapping", "Write `key: value` lines below it.".to_owned())
            }
            Shape::Choice(choices) => {
                let given =
                    node.text().and_then(|text| nearest(text, choices.keys().map(String::as_str)));
                // In the order of letters, the usual ground and the usual stack are the last.
                let name = given.or_else(|| choices.keys().next_back().map(String::as_str));
                let name = name.unwrap_or_default();
                let value = match choices.get(name) {
                    Some(Shape::Text(_)) => "…",
                    _ => "{}",
                };
                ("a mapping", format!("Write `{{{name}: {value}}}`."))
            }
            Shape::List(_) => match node.text() {
                Some(text) => ("a list", format!("Put it in brackets: `[{text}]`.")),
                None => ("a list", "Start each of its items with `- `.".to_owned()),
            },
            Shape::Words(words) => {
                let words = words.iter().map(String::as_str);
                ("text", format!("Write one of {}.", listed(words)))
            }
            Shape::Integer { .. } => ("a whole number", "Write digits without quotes.".to_owned()),
            Shape::Boolean => {
                ("true or false", "Write `true` or `false` without quotes.".to_owned())
            }
            Shape::Text(_) => match node.text() {
                Some(text) if !node.is_null() => {
                    ("text", format!("Put it in quotes: `\"{text}\"`."))
                }
                Some(_) => ("text", "Write `\"\"` for empty text.".to_owned()),
                None => ("text", "Write one value there.".to_owned()),
            },
        };
        let place = if path.is_empty() { "the file".to_owned() } else { format!("`{path}`") };
        let message = format!("{place} must be {wanted}, but is {}", node.description());
        self.report(path, node.at, Problem::usage("spec.wrong_type", message).help(help));
    }
}

/// A mapping with nothing in it, where nothing was written.
fn empty(node: &Node) -> Node {
    Node { at: node.at, value: Tree::Mapping(Vec::new()) }
}

/// Words for a sentence: `a`, `b`, `c`.
pub(super) fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
