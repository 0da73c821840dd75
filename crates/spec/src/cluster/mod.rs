//! The cluster file: what a user asks for.
//!
//! ```text
//! text --tree--> values with places --check--> JSON --serde--> Cluster --rules--> Cluster that can be brought up
//!                                     ^                                   each step adds to the Problems,
//!                  shape: the JSON schema of the types                    which are reported all at once
//! ```
//!
//! Whether the cluster fits its ground (free networks, enough memory) is not decided here but in the crate plan.

mod addons;
mod check;
mod edit;
mod file;
mod incus;
mod network;
mod nodes;
mod path;
mod port;
mod provider;
mod registries;
mod rules;
mod shape;
mod stack;
mod tree;

pub use addons::Addons;
pub use file::{Cluster, Metadata, Spec};
pub use incus::{
    Guard, HealthGuard, Incus, IncusStorage, InstanceNetwork, InstanceProfile, MemoryGuard,
    StorageDriver,
};
pub use network::{Cni, IpFamily, LoadBalancer, Network};
pub use nodes::{NodeGroup, NodeSpec, Resources, Role, Taint, TaintEffect};
pub use path::Locations;
pub use port::{Port, Protocol};
pub use provider::{DockerProvider, LinuxProvider, Provider};
pub use registries::{Credentials, ImageCache, Mirror, Proxy, Registry, Source};
pub use rules::NODES_MAX;
pub use stack::{Bootstrap, Kubernetes, Stack};

use serde::Deserialize as _;

use crate::problem::{Location, Problem, Problems};

/// Reads a cluster file in YAML or JSON, with defaults filled in, and checks every rule.
///
/// `file_name` is what the user calls the file; problems carry it.
///
/// # Errors
/// Everything that is wrong, in the order of the file. Faulty YAML hides what comes after it, and a document of another kind or
/// version is not looked into.
pub fn parse(text: &str, file_name: &str) -> Result<Cluster, Problems> {
    // Editors on Windows begin a file with a byte order mark, which is no part of its first line.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let tree = tree::read(text, file_name)?;
    let shape = shape::root_shape();
    Problems::check(foreign(&tree, file_name))?;
    let check::Checked { mut value, locations, mut problems, refused } =
        check::check(&tree, &shape, file_name);
    add_nodes(&mut value);
    let cluster = serde_json::from_value::<Cluster>(value);
    match &cluster {
        Ok(cluster) => {
            // A rule that looks at a refused value would see its placeholder.
            let sound = rules::findings(cluster).into_iter().filter(|finding| {
                let mut refused = refused.iter();
                !refused.any(|path| finding.concerns(path))
            });
            problems.extend(sound.map(|finding| finding.into_problem(&locations)));
        }
        Err(error) if problems.is_empty() => {
            let message = format!("`{file_name}` is no cluster file: {error}");
            problems.push(Problem::usage("spec.invalid", message));
        }
        Err(_) => {}
    }
    problems.sort_by_key(|problem| problem.at.as_ref().map(|at| (at.line, at.column)));
    Problems::check(problems)?;
    cluster.map_err(|error| Problem::usage("spec.invalid", error.to_string()).into())
}

/// [`parse`] for the bytes of a file.
///
/// # Errors
/// Those of [`parse`], and bytes that are not UTF-8.
pub fn parse_bytes(bytes: &[u8], file_name: &str) -> Result<Cluster, Problems> {
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return parse(text, file_name),
        Err(error) => error,
    };
    let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = number(before.matches('\n').count() + 1);
    let column = number(before.rsplit('\n').next().unwrap_or_default().chars().count() + 1);
    let problem = Problem::usage("spec.not_utf8", format!("`{file_name}` is not UTF-8 text"))
        .help("Save the file as UTF-8.")
        .at(Location { file: file_name.to_owned(), line, column });
    Err(problem.into())
}

/// Checks every rule that types cannot express. [`parse`] has done so; this is for clusters that were made or changed in code.
#[must_use]
pub fn validate(cluster: &Cluster, locations: &Locations) -> Vec<Problem> {
    let findings = rules::findings(cluster).into_iter();
    findings.map(|finding| finding.into_problem(locations)).collect()
}

/// The JSON schema (draft 7, which all editors know) of the cluster file, with a line end.
#[must_use]
pub fn schema() -> String {
    format!("{:#}\n", shape::root_schema())
}

/// A cluster file with every field and what it means. Valid as it stands.
#[must_use]
pub const fn example() -> &'static str {
    include_str!("example.yaml")
}

/// The nodes of a cluster that names none depend on its stack, which no type can say.
fn add_nodes(value: &mut serde_json::Value) {
    let Some(spec) = value.get_mut("spec") else { return };
    let stack = spec.get("stack").and_then(|stack| Stack::deserialize(stack).ok());
    if let Some(stack) = stack
        && spec.get("nodes").is_none()
    {
        let single = NodeGroup::new(stack.roles()[0], 1);
        spec["nodes"] = serde_json::json!([single]);
    }
}

/// Why the document is not a cluster of this version.
fn foreign(tree: &tree::Node, file: &str) -> Vec<Problem> {
    let tree::Value::Mapping(entries) = &tree.value else { return Vec::new() };
    let expected = [
        ("apiVersion", "spec.api_version", "bivouac.dev/v1alpha1"),
        ("kind", "spec.kind", "Cluster"),
    ];
    let mut problems = Vec::new();
    for (field, code, supported) in expected {
        let value = entries.iter().find(|(key, _)| key.text() == Some(field)).map(|(_, v)| v);
        let Some((text, node)) = value.and_then(|node| Some((node.text()?, node))) else {
            continue;
        };
        if text == supported || node.is_null() {
            continue;
        }
        let message = format!("`{field}` is `{text}`, but only `{supported}` is supported");
        let (line, column) = node.at;
        let problem = Problem::usage(code, message)
            .help(format!("Write `{field}: {supported}`."))
            .at(Location { file: file.to_owned(), line, column });
        problems.push(problem);
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn the_example_is_valid_and_says_what_the_defaults_are() {
        let cluster = parse(example(), "example.yaml").unwrap();
        assert_eq!(cluster.spec.nodes.len(), 2);
    }

    #[test]
    fn json_and_a_byte_order_mark_are_read() {
        let json = "{\n\t\"apiVersion\": \"bivouac.dev/v1alpha1\", \"kind\": \"Cluster\"}";
        let cluster = parse(json, "a.json").unwrap();
        assert_eq!(cluster, Cluster::named("default".parse().unwrap()));
        assert_eq!(parse(&format!("\u{feff}{json}"), "a.json").unwrap(), cluster);
    }

    #[test]
    fn what_serde_writes_is_read_again() {
        let cluster = parse(example(), "example.yaml").unwrap();
        let json = serde_json::to_string(&cluster).unwrap();
        assert_eq!(parse(&json, "example.json").unwrap(), cluster);
    }

    #[test]
    fn bytes_that_are_not_utf8_are_placed() {
        let problems = parse_bytes(b"kind: Cluster\nname: \xff", "a.yaml").unwrap_err();
        let at = problems.as_slice()[0].at.as_ref().unwrap();
        assert_eq!((at.line, at.column), (2, 7));
    }

    /// The names of all fields below a schema, but for those of stack incus.
    fn fields(whole: &Value, part: &Value, names: &mut BTreeSet<String>) {
        if let Some(path) = part["$ref"].as_str() {
            return fields(whole, whole.pointer(path.trim_start_matches('#')).unwrap(), names);
        }
        for (name, field) in part["properties"].as_object().into_iter().flatten() {
            if name != "incus" {
                names.insert(name.clone());
                fields(whole, field, names);
            }
        }
        let choices =
            ["oneOf", "anyOf", "allOf"].into_iter().filter_map(|key| part[key].as_array());
        for choice in choices.flatten().chain(part.get("items")) {
            fields(whole, choice, names);
        }
    }

    #[test]
    fn the_example_has_every_field() {
        let whole: Value = serde_json::from_str(&schema()).unwrap();
        let mut names = BTreeSet::new();
        fields(&whole, &whole, &mut names);
        assert!(names.len() > 30 && names.contains("disk"), "{names:?}");
        names.retain(|name| !example().contains(&format!("{name}:")));
        assert_eq!(names, BTreeSet::new());
    }

    #[test]
    fn clusters_without_a_file_are_checked_too() {
        let mut cluster = Cluster::named("default".parse().unwrap());
        assert_eq!(validate(&cluster, &Locations::default()), []);
        cluster.spec.nodes.clear();
        assert_eq!(validate(&cluster, &Locations::default())[0].code, "spec.no_control_plane");
    }

    #[test]
    fn schema_is_the_committed_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/cluster.schema.json");
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == schema(),
            "docs/reference/cluster.schema.json is out of date: run `cargo xtask generate`"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_read_but_never_panics(text in "[a-z:{}\\[\\],&*<>!\"'#|\\- \n\t0-9]{0,60}") {
            let head = "apiVersion: bivouac.dev/v1alpha1\nkind: Cluster\n";
            for text in [text.clone(), format!("{head}{text}"), format!("{head}spec:\n  {text}")] {
                if let Err(problems) = parse(&text, "any") {
                    assert!(!problems.as_slice().is_empty());
                }
            }
        }
    }
}
