//! Our entries in a file that belongs to a user.
//!
//! What the file is to say is worked out on its tree. The text is then changed only where it must be ([`splice`]) and
//! read again; if it does not say exactly what was worked out (a file in flow style, or one with aliases across
//! entries), the tree is written as JSON, which is YAML in which every string is quoted.

use serde_json::{Map, Value, json};

use super::document::{Kubeconfig, NamedExtension, Previous, to_yaml};
use super::splice::{self, Edit};
use crate::error::{Error, Result};

/// The lists of a kubeconfig whose entries have names.
pub(super) const SECTIONS: [&str; 3] = ["clusters", "contexts", "users"];
const CURRENT: &str = "current-context";
const EXTENSION: &str = "bivouac.dev/previous-context";

/// Puts `ours` (made by [`Kubeconfig::named`]) into a user's file, in place of entries of the same name. All else stays:
/// other entries, unknown fields, order, and comments. The current context becomes ours only if `set_current`; the
/// one before is then remembered in our context, for [`remove`]. If nothing changes, the text comes back as it was.
pub fn merge(existing: Option<&str>, ours: &Kubeconfig, set_current: bool) -> Result<String> {
    let text = existing.unwrap_or_default();
    let before = parse(text)?;
    let name = ours.context();
    let mut previous = match current(&before) {
        Some(current) if set_current && current != name => {
            let mut contexts = remembered(&before, current);
            contexts.insert(0, current.to_owned());
            contexts
        }
        _ => remembered(&before, name),
    };
    previous.retain(|context| context != name);
    let mut ours = ours.clone();
    if !previous.is_empty() {
        let extension = Previous { contexts: previous };
        ours.contexts[0].context.extensions =
            vec![NamedExtension { extension, name: EXTENSION.to_owned() }];
    }
    if before.is_empty() {
        if !set_current {
            ours.current_context = String::new();
        }
        let separator = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        return Ok(format!("{text}{separator}{}", to_yaml(&ours)));
    }
    let entries = [
        (to_value(&ours.clusters[0]), to_yaml(&ours.clusters)),
        (to_value(&ours.contexts[0]), to_yaml(&ours.contexts)),
        (to_value(&ours.users[0]), to_yaml(&ours.users)),
    ];
    let mut wanted = before.clone();
    let mut edits = Vec::new();
    for (section, (entry, text)) in SECTIONS.into_iter().zip(entries) {
        let items = items_mut(&mut wanted, section)?;
        if items.contains(&entry) {
            continue;
        }
        edits.extend(drop_named(items, section, name));
        items.push(entry);
        edits.push(Edit::Append { section, item: text });
    }
    if set_current && current(&before) != Some(name) {
        edits.push(set_current_context(&mut wanted, name));
    }
    Ok(apply(text, &edits, wanted))
}

/// Takes the entries of this name out of a user's file. The current context is changed only if it was ours: back to the
/// one before, if that is known and still there. A file without such entries comes back as it was.
pub fn remove(existing: &str, name: &str) -> Result<String> {
    let before = parse(existing)?;
    let mut wanted = before.clone();
    let mut edits = Vec::new();
    for section in SECTIONS {
        if wanted.contains_key(section) {
            edits.extend(drop_named(items_mut(&mut wanted, section)?, section, name));
        }
    }
    if current(&before) == Some(name) {
        let mut previous = remembered(&before, name).into_iter();
        let previous = previous.find(|context| has_context(&wanted, context));
        edits.push(set_current_context(&mut wanted, &previous.unwrap_or_default()));
    }
    Ok(apply(existing, &edits, wanted))
}

/// True if a file says nothing any more: no cluster, user or context. Who made the file may delete it.
pub fn is_empty(text: &str) -> Result<bool> {
    let tree = parse(text)?;
    Ok(SECTIONS
        .iter()
        .all(|section| tree.get(*section).is_none_or(|list| list == &json!([]) || list.is_null())))
}

fn apply(text: &str, edits: &[Edit], wanted: Map<String, Value>) -> String {
    if edits.is_empty() {
        return text.to_owned();
    }
    let spliced = splice::apply(text, edits);
    match spliced.filter(|spliced| parse(spliced).is_ok_and(|tree| tree == wanted)) {
        Some(spliced) => spliced,
        None => format!("{:#}\n", Value::Object(wanted)),
    }
}

fn parse(text: &str) -> Result<Map<String, Value>> {
    // Through a value of YAML, which refuses keys that appear twice.
    let tree: yaml_serde::Value = yaml_serde::from_str(text).map_err(Error::KubeconfigSyntax)?;
    match serde_json::to_value(tree) {
        Ok(Value::Null) => Ok(Map::new()),
        Ok(Value::Object(tree)) => Ok(tree),
        Ok(_) => Err(Error::KubeconfigForm("it is no mapping".to_owned())),
        Err(error) => Err(Error::KubeconfigForm(error.to_string())),
    }
}

fn to_value(entry: &impl serde::Serialize) -> Value {
    serde_json::to_value(entry).expect("entries have string keys")
}

/// The list of a section; made if it is absent or null.
fn items_mut<'a>(tree: &'a mut Map<String, Value>, section: &str) -> Result<&'a mut Vec<Value>> {
    let list = tree.entry(section).or_insert(Value::Null);
    if list.is_null() {
        *list = json!([]);
    }
    list.as_array_mut().ok_or_else(|| Error::KubeconfigForm(format!("`{section}` is no list")))
}

fn is_named(entry: &Value, name: &str) -> bool {
    entry.get("name").and_then(Value::as_str) == Some(name)
}

/// Drops the entries of this name; returns their places in the text, the last first so that each stays right.
fn drop_named(items: &mut Vec<Value>, section: &'static str, name: &str) -> Vec<Edit> {
    let of = items.len();
    let places = (0..of).rev().filter(|index| is_named(&items[*index], name));
    let edits =
        places.enumerate().map(|(gone, index)| Edit::Drop { section, index, of: of - gone });
    let edits = edits.collect();
    items.retain(|entry| !is_named(entry, name));
    edits
}

fn set_current_context(tree: &mut Map<String, Value>, name: &str) -> Edit {
    tree.insert(CURRENT.to_owned(), json!(name));
    Edit::Set { key: CURRENT, value: name.to_owned() }
}

fn current(tree: &Map<String, Value>) -> Option<&str> {
    tree.get(CURRENT)?.as_str().filter(|name| !name.is_empty())
}

fn contexts(tree: &Map<String, Value>) -> impl Iterator<Item = &Value> {
    tree.get("contexts").and_then(Value::as_array).into_iter().flatten()
}

fn has_context(tree: &Map<String, Value>, name: &str) -> bool {
    contexts(tree).any(|entry| is_named(entry, name))
}

/// The contexts that were current before the one of this name became it, the last first.
fn remembered(tree: &Map<String, Value>, name: &str) -> Vec<String> {
    let ours = contexts(tree).find(|entry| is_named(entry, name));
    let extensions = ours.and_then(|entry| entry.get("context")?.get("extensions")?.as_array());
    let previous = extensions.into_iter().flatten().find(|entry| is_named(entry, EXTENSION));
    let contexts = previous.and_then(|entry| entry.get("extension")?.get("contexts")?.as_array());
    contexts.into_iter().flatten().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
