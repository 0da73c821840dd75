//! Names of places in a cluster file, such as `spec.nodes[1].labels["example.com/disk"]`, and where they are in the text.

use std::collections::BTreeMap;

use crate::problem::Location;

/// The path of a field of the mapping at `parent`. The root's path is empty.
pub(super) fn field(parent: &str, key: &str) -> String {
    let simple = key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    match (simple && !key.is_empty(), parent.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{parent}.{key}"),
        (false, _) => format!("{parent}[{key:?}]"),
    }
}

/// The path of an item of the list at `parent`.
pub(super) fn item(parent: &str, index: usize) -> String {
    format!("{parent}[{index}]")
}

/// Whether `path` is `ancestor` or lies below it.
pub(super) fn within(path: &str, ancestor: &str) -> bool {
    ancestor.is_empty()
        || path
            .strip_prefix(ancestor)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// Where the values of a cluster file were written. Empty for a cluster that was made without a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locations {
    pub(super) file: String,
    places: BTreeMap<String, (u32, u32)>,
}

impl Locations {
    pub(super) fn in_file(file: &str) -> Self {
        Self { file: file.to_owned(), places: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, path: &str, (line, column): (u32, u32)) {
        self.places.insert(path.to_owned(), (line, column));
    }

    pub(super) fn place(&self, (line, column): (u32, u32)) -> Location {
        Location { file: self.file.clone(), line, column }
    }

    /// Where the value at `path` (`spec.nodes[0].role`) was written, or else what it would be a part of.
    #[must_use]
    pub fn of(&self, path: &str) -> Option<Location> {
        let mut path = path;
        loop {
            if let Some(&place) = self.places.get(path) {
                return Some(self.place(place));
            }
            if path.is_empty() {
                return None;
            }
            path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_nest() {
        let labels = field(&item(&field("spec", "nodes"), 1), "labels");
        assert_eq!(labels, "spec.nodes[1].labels");
        assert_eq!(field(&labels, "a.b/c"), r#"spec.nodes[1].labels["a.b/c"]"#);
        assert!(within(&labels, "spec.nodes[1]") && within(&labels, "") && within("a", "a"));
        assert!(!within("spec.nodes[10]", "spec.nodes[1]") && !within("spec", "spec.nodes"));
    }

    #[test]
    fn an_absent_value_is_placed_at_its_parent() {
        let mut locations = Locations::in_file("a.yaml");
        locations.insert("spec.nodes[0]", (3, 5));
        let place = locations.of(r#"spec.nodes[0].labels["a.b/c"]"#).unwrap();
        assert_eq!((place.line, place.column), (3, 5));
        assert_eq!(locations.of("metadata.name"), None);
    }
}
