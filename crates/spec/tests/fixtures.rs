//! Every valid cluster file is read, and every invalid one is refused with the problems of its snapshot.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its fixtures has failed")]

use std::fmt::Write as _;
use std::path::PathBuf;

use bivouac_spec::{Problems, cluster};

fn fixtures(kind: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(kind);
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn render(problems: &Problems) -> String {
    let mut text = String::new();
    for problem in problems.as_slice() {
        if let Some(at) = &problem.at {
            write!(text, "{}:{}:{}: ", at.file, at.line, at.column).unwrap();
        }
        writeln!(text, "{} [{}]", problem.message, problem.code).unwrap();
        if let Some(help) = &problem.help {
            writeln!(text, "    help: {help}").unwrap();
        }
    }
    text
}

#[test]
fn valid_files_are_read() {
    for (name, bytes) in fixtures("valid") {
        let cluster = cluster::parse_bytes(&bytes, &format!("{name}.yaml"))
            .unwrap_or_else(|problems| panic!("{name}:\n{}", render(&problems)));
        let mut nodes = cluster.nodes();
        nodes.retain(|node| node.role != cluster::Role::Balancer);
        let count: u32 = cluster.spec.nodes.iter().map(|group| group.count).sum();
        assert_eq!(nodes.len(), count as usize, "{name}");
        insta::assert_json_snapshot!(format!("valid_{name}"), cluster);
    }
}

#[test]
fn invalid_files_are_refused() {
    for (name, bytes) in fixtures("invalid") {
        let problems = cluster::parse_bytes(&bytes, &format!("{name}.yaml"))
            .expect_err(&format!("{name} is refused"));
        for problem in problems.as_slice() {
            assert!(problem.at.is_some(), "{name}: {problem} has no place");
            assert_eq!(problem.class.exit_code(), 2, "{name}");
        }
        insta::assert_snapshot!(format!("invalid_{name}"), render(&problems));
    }
}

/// A rule without a fixture is a rule that nobody has seen.
#[test]
fn every_code_has_a_fixture() {
    let seen: std::collections::BTreeSet<String> = fixtures("invalid")
        .into_iter()
        .filter_map(|(name, bytes)| cluster::parse_bytes(&bytes, &name).err())
        .flat_map(|problems| problems.as_slice().to_vec())
        .map(|problem| problem.code)
        .collect();
    let sources = [
        "mod",
        "check",
        "shape",
        "tree",
        "rules/mod",
        "rules/nodes",
        "rules/labels",
        "rules/network",
        "rules/ports",
        "rules/incus",
        "rules/stack",
    ];
    for source in sources {
        let path = format!("{}/src/cluster/{source}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        for literal in text.split('"').filter(|literal| literal.starts_with("spec.")) {
            // Paths of the file look like codes too; codes have one dot and underscores or one word that is no field.
            let fields = [
                "nodes",
                "network",
                "ports",
                "provider",
                "stack",
                "stack.kubernetes",
                "stack.incus",
            ];
            let field = literal.strip_prefix("spec.").is_some_and(|field| fields.contains(&field))
                || literal.matches('.').count() > 2;
            // These have tests of their own: an alias bomb, bytes, and what cannot happen.
            let own = ["spec.too_large", "spec.not_utf8", "spec.invalid"].contains(&literal);
            let code = !literal.contains(['`', ' ', ')']);
            assert!(field || own || !code || seen.contains(literal), "{literal} has no fixture");
        }
    }
}
