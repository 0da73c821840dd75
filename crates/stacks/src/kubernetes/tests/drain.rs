//! What is done to have pods leave a node, with a kubectl that answers what is said here.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::*;

/// Writes down what it is asked, and answers.
const KUBECTL: &str = r#"#!/bin/sh
shift
echo "$*" >> "$ASKED"
case "$*" in
  "get node"*unschedulable*) printf %s "$NODE" ;;
  "get node"*) printf True ;;
  drain*) [ "$DRAINS" = yes ] || { echo 'error: timeout reached: 3s' >&2; exit 1; } ;;
  "get poddisruptionbudgets"*) printf '%s\n' 'default|all|1|1|app=web,' 'far|away|2|2|app in (x,y),' ;;
  "get pods --namespace=default --selector=app=web --field-selector=spec.nodeName=worker-0,"*) printf 'web-1 web-2 ' ;;
esac
"#;

/// What was asked, and what is told when it fails.
struct Drained {
    asked: String,
    told: Result<(), String>,
}

/// The node's name and whether it is cordoned, as kubectl answers that.
fn drain(node: &str, drains: bool) -> Drained {
    let folder = tempfile::tempdir().unwrap();
    let (kubectl, asked) = (folder.path().join("kubectl"), folder.path().join("asked"));
    std::fs::write(&kubectl, KUBECTL).unwrap();
    std::fs::set_permissions(&kubectl, std::fs::Permissions::from_mode(0o755)).unwrap();
    let steps = Bench::several().leaves("worker-0");
    let [program, arguments @ ..] = &steps[0].command[..] else { panic!("{steps:?}") };
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .env("ASKED", &asked)
        .env("NODE", node)
        .env("DRAINS", if drains { "yes" } else { "no" })
        .output()
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    let told = if output.status.success() { Ok(()) } else { Err(told) };
    Drained { asked: std::fs::read_to_string(asked).unwrap(), told }
}

#[test]
fn a_node_that_is_cordoned_for_it_is_marked() {
    let Drained { asked, told } = drain("worker-0|", true);
    assert_eq!(told, Ok(()));
    let patch = r#"patch node worker-0 --type=merge --patch={"metadata":{"annotations":{"bivouac.dev/remade":"true"}},"spec":{"unschedulable":true}}"#;
    let (cordoned, drained) = (asked.find(patch), asked.find("drain worker-0 "));
    assert!(cordoned.is_some() && cordoned < drained, "{asked}");
    assert!(!asked.contains("poddisruptionbudgets"), "{asked}");
}

#[test]
fn a_node_that_somebody_has_cordoned_is_not_marked() {
    let Drained { asked, told } = drain("worker-0|true", true);
    assert_eq!(told, Ok(()));
    assert!(asked.contains("drain worker-0 ") && !asked.contains("patch"), "{asked}");
}

#[test]
fn a_node_that_the_api_does_not_know_has_no_pods() {
    let Drained { asked, told } = drain("", true);
    assert_eq!((told, asked.lines().count()), (Ok(()), 1), "{asked}");
}

#[test]
fn what_keeps_pods_is_told_and_no_other_budget() {
    let told = drain("worker-0|", false).told.unwrap_err();
    let budget =
        "PodDisruptionBudget default/all allows no disruption: 1 pods are healthy, 1 must be\n";
    let expected = format!(
        "error: timeout reached: 3s\npod default/web-1 stays: {budget}pod default/web-2 stays: {budget}"
    );
    assert_eq!(told, expected);
}
