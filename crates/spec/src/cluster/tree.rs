//! YAML (and so JSON) as a tree in which every value knows its place. Nothing is lost on the way: duplicate keys stay, and
//! scalars keep the text that was written.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use crate::problem::{Location, Problem};

/// The most values that a file may have once its anchors are expanded: a file of a few lines can expand to billions.
const VALUES_MAX: usize = 100_000;

/// A value and where it starts: line and column, from 1.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: (u32, u32),
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Scalar { text: String, kind: ScalarKind },
    List(Vec<Node>),
    Mapping(Vec<(Node, Node)>),
}

/// What a scalar is in the core schema of YAML 1.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalarKind {
    Null,
    Bool,
    Number,
    Text,
}

impl Node {
    /// The kind of value in words, for messages: `a list`.
    pub(super) const fn description(&self) -> &'static str {
        match &self.value {
            Value::List(_) => "a list",
            Value::Mapping(_) => "a mapping",
            Value::Scalar { kind, .. } => match kind {
                ScalarKind::Null => "empty",
                ScalarKind::Bool => "true or false",
                ScalarKind::Number => "a number",
                ScalarKind::Text => "text",
            },
        }
    }

    pub(super) const fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar { kind: ScalarKind::Null, .. })
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(items) => items.iter().map(Self::size).sum(),
            Value::Mapping(entries) => entries.iter().map(|(k, v)| k.size() + v.size()).sum(),
        }
    }
}

/// Reads the one document of `text`.
pub(super) fn read(text: &str, file: &str) -> Result<Node, Problem> {
    let events = Box::new(Parser::new_from_str(text));
    let mut builder = Builder { events, file, text, anchors: HashMap::new(), values: 0 };
    let (mut document, mut ended) = (None, false);
    while !ended {
        let (event, span) = builder.next()?;
        match event {
            Event::StreamEnd => ended = true,
            Event::DocumentStart(..) if document.is_some() => {
                let message = "the file holds more than one document";
                return Err(builder
                    .problem("spec.several_documents", message, &span)
                    .help("Write each cluster to a file of its own."));
            }
            Event::DocumentStart(..) => document = Some(builder.node()?),
            _ => {}
        }
    }
    document.filter(|node| !node.is_null()).ok_or_else(|| {
        let location = Location { file: file.to_owned(), line: 1, column: 1 };
        Problem::usage("spec.empty", format!("`{file}` is empty"))
            .help("Write a commented cluster file with `bivouac init`.")
            .at(location)
    })
}

struct Builder<'a> {
    events: Box<dyn Iterator<Item = Result<(Event<'a>, Span), ScanError>> + 'a>,
    file: &'a str,
    text: &'a str,
    anchors: HashMap<usize, Node>,
    values: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let mark = *error.marker();
        let tab = self.text.chars().nth(mark.index()) == Some('\t') || error.info().contains("tab");
        let message = format!("`{}` is not valid YAML: {}", self.file, error.info());
        let help = if tab {
            "Indent with spaces: YAML does not accept tabs there."
        } else if error.info().contains("anchor") {
            "Write the anchor (`&name`) before the aliases (`*name`) that refer to it."
        } else {
            "Compare the indentation, colons and brackets around that line with `bivouac init`."
        };
        self.problem("spec.syntax", message, &Span::empty(mark)).help(help)
    }

    fn problem(&self, code: &str, message: impl Into<String>, span: &Span) -> Problem {
        let (line, column) = place(span);
        Problem::usage(code, message).at(Location { file: self.file.to_owned(), line, column })
    }

    fn node(&mut self) -> Result<Node, Problem> {
        let (event, span) = self.next()?;
        self.node_from(event, &span)
    }

    fn node_from(&mut self, event: Event<'a>, span: &Span) -> Result<Node, Problem> {
        self.count(1, span)?;
        let at = place(span);
        let (value, anchor) = match event {
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    let message = "an anchor refers to a value that it is a part of";
                    return Err(self.problem("spec.syntax", message, span));
                };
                self.count(node.size(), span)?;
                return Ok(Node { at, ..node });
            }
            Event::Scalar(text, style, anchor, tag) => {
                let tagged_text = tag
                    .as_ref()
                    .is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix() == "str");
                let plain = style == ScalarStyle::Plain && !tagged_text;
                let kind = if plain { kind_of(&text) } else { ScalarKind::Text };
                (Value::Scalar { text: text.into_owned(), kind }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list()?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping()?, anchor),
            _ => return Err(self.problem("spec.syntax", "a value is missing here", span)),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Value, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, span) => items.push(self.node_from(event, &span)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Value, Problem> {
        let (mut entries, mut merged) = (Vec::new(), Vec::new());
        loop {
            match self.next()? {
                (Event::MappingEnd, _) => break,
                (event, span) => {
                    let key = self.node_from(event, &span)?;
                    let value = self.node()?;
                    let merge = key.text() == Some("<<");
                    if merge { merged.push(value) } else { entries.push((key, value)) }
                }
            }
        }
        merged.into_iter().for_each(|value| merge(&mut entries, value));
        Ok(Value::Mapping(entries))
    }

    fn count(&mut self, values: usize, span: &Span) -> Result<(), Problem> {
        self.values += values;
        if self.values <= VALUES_MAX {
            return Ok(());
        }
        let message = format!("`{}` has more than {VALUES_MAX} values", self.file);
        Err(self
            .problem("spec.too_large", message, span)
            .help("Write out what the anchors (`&`) and aliases (`*`) stand for."))
    }
}

/// `<<: *defaults` of YAML 1.1, which many know: takes over what is not given itself.
fn merge(entries: &mut Vec<(Node, Node)>, value: Node) {
    match value.value {
        Value::Mapping(others) => {
            for (key, value) in others {
                if !entries.iter().any(|(own, _)| own.text() == key.text()) {
                    entries.push((key, value));
                }
            }
        }
        Value::List(items) => items.into_iter().for_each(|item| merge(entries, item)),
        Value::Scalar { .. } => {}
    }
}

fn place(span: &Span) -> (u32, u32) {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (number(span.start.line().max(1)), number(span.start.col() + 1))
}

fn kind_of(text: &str) -> ScalarKind {
    let number = || {
        let start = text.trim_start_matches(['+', '-', '.']);
        start.starts_with(|c: char| c.is_ascii_digit()) && text.parse::<f64>().is_ok()
    };
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarKind::Bool,
        _ if number() => ScalarKind::Number,
        _ => ScalarKind::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_merge_and_bombs_are_refused() {
        let tree = read("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}\n", "f").unwrap();
        let Value::Mapping(entries) = tree.value else { panic!() };
        let Value::Mapping(merged) = &entries[1].1.value else { panic!() };
        let text: Vec<_> = merged.iter().map(|(k, v)| (k.text(), v.text())).collect();
        assert_eq!(text, [(Some("c"), Some("3")), (Some("b"), Some("1"))]);

        let mut bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n".to_owned();
        for level in 1..10 {
            let before = format!("*a{}", level - 1);
            let items = [before.as_str(); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{items}]\n");
        }
        assert_eq!(read(&bomb, "f").unwrap_err().code, "spec.too_large");
        assert_eq!(read("a: &x [*x]\n", "f").unwrap_err().code, "spec.syntax");
    }

    #[test]
    fn scalars_have_the_kinds_of_yaml_1_2() {
        assert_eq!(kind_of("1.5"), ScalarKind::Number);
        assert_eq!(kind_of("-3"), ScalarKind::Number);
        for text in ["yes", "inf", "1.36.3", "10.0.0.0/8", "a", "-"] {
            assert_eq!(kind_of(text), ScalarKind::Text, "{text}");
        }
    }
}
