//! A running node takes another config.

#![expect(clippy::unwrap_used, reason = "a test without the usual harness")]

mod node;

use std::collections::BTreeSet;
use std::fs;
use std::process::ExitCode;

use bivouac_spec::node::status::{NodePhase, NodeStatus, UnitState};
use serde_json::{Value, json};

use node::{Agent, Node, options, unit};

fn main() -> ExitCode {
    node::run(&[
        ("what is the same stays, what is not is made so", changed),
        ("a watched file restarts its service alone", watched),
        ("a task is done again when it or its file changed", tasks),
        ("hosts and routes follow the ground", moved),
        ("a faulty config is refused and nothing changes", refused),
        ("a failed node takes a good config", mended),
        ("what could not be applied is said and mended by another try", half_done),
        ("files of a config that was replaced while the node was off go too", replaced_while_off),
        ("a removed service that does not stop is killed", deaf),
        ("a node that stops takes no config", stopping),
    ])
}

fn apply(agent: &Agent<'_>) -> Result<(), bivouac_spec::Problem> {
    bivouac_agent::apply(&options(&agent.node().root).places.socket)
}

/// Takes the config, and returns the first usable status that a follower sees who begins when the client has its answer.
fn taken(agent: &mut Agent<'_>, config: &Value) -> NodeStatus {
    let digest = agent.node().write(config);
    apply(agent).unwrap();
    let status = agent.follow_anew(|status| status.phase == NodePhase::Usable);
    assert!(status.iter().all(|status| status.config == digest), "{status:#?}");
    status.last().unwrap().clone()
}

fn file(path: &str, content: &str) -> Value {
    let own = rustix::process::getuid().as_raw();
    json!({"path": path, "mode": 0o600, "owner": [own, own], "kind": {"regular": content}})
}

fn changed(node: &Node) {
    let with = |service: Value, key: &str, value: Value| {
        let mut service = service;
        service[key] = value;
        service
    };
    // Ready when what it says is in its log.
    let other = |word: &str| {
        json!({"name": "other", "after": ["same"],
            "command": ["/bin/sh", "-c", format!("echo {word}; exec sleep 1000")],
            "ready": Node::once(&format!("grep -q {word} {}/log/other.log", node.root))})
    };
    let mut agent = node.start(&json!({
        "files": [file("/etc/stays", "1"), file("/etc/changes", "1"), file("/etc/goes", "1"),
            {"path": "/etc/folder", "mode": 0o755, "kind": "directory"},
            {"path": "/etc/link", "mode": 0, "kind": {"link": "/nowhere"}}],
        "services": [
            node.service("same", &[]),
            other("one"),
            node.service("gone", &["same"]),
            {"name": "needs-other", "command": ["/bin/sleep", "1001"], "after": ["other"]}]}));
    let before = agent.usable();
    let status = taken(
        &mut agent,
        &json!({
        "files": [file("/etc/stays", "1"), file("/etc/changes", "2"), file("/etc/new/er", "1")],
        "services": [
            node.service("new", &["other"]),
            with(node.service("same", &[]), "stop", json!({"signal": "terminate", "grace": "9s"})),
            {"name": "needs-other", "command": ["/bin/sleep", "1001"], "after": ["other"]},
            other("two")],
        "conditions": [{"name": "holds", "probe": {"check": {"file": "/etc/new/er"}}}]}),
    );
    let names: Vec<_> = status.units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["new", "same", "needs-other", "other", "holds"]);
    for same in ["same", "needs-other"] {
        assert_eq!(unit(&status, same), unit(&before, same));
    }
    assert_ne!(unit(&status, "other").pid, unit(&before, "other").pid);
    assert_eq!(unit(&status, "other").restarts, 0);
    let order = node.order();
    assert_eq!(order[..2], ["+same", "+gone"]);
    // Neither needs the other.
    assert_eq!(
        BTreeSet::from_iter(&order[2..]),
        BTreeSet::from_iter(&["-gone".into(), "+new".into()])
    );
    let log = fs::read_to_string(node.root.join("log/other.log")).unwrap();
    assert_eq!(log, "one\ntwo\n");
    let read = |path: &str| fs::read_to_string(node.root.join("root/etc").join(path)).ok();
    let found = ["stays", "changes", "goes", "new/er"].map(read);
    assert_eq!(found, [Some("1".into()), Some("2".into()), None, Some("1".into())]);
    assert!(fs::symlink_metadata(node.root.join("root/etc/link")).is_err());
    assert!(node.root.join("root/etc/folder").is_dir(), "folders stay");
    agent.stop();
    assert_eq!(node.order()[4..], ["-new", "-same"]);
}

fn watched(node: &Node) {
    let config = |content: &str, unwatched: &str| {
        json!({
            "files": [file("/etc/a/b/key", content), file("/etc/z", unwatched)],
            "services": [
                {"name": "file", "command": ["/bin/sleep", "1000"], "watch": ["/etc/a/b/key"]},
                {"name": "folder", "command": ["/bin/sleep", "1001"], "watch": ["/etc/a"]},
                {"name": "needs", "command": ["/bin/sleep", "1002"], "after": ["file"]},
                {"name": "namesake", "command": ["/bin/sleep", "1003"], "watch": ["/etc/a/b/ke"]}]})
    };
    let mut agent = node.start(&config("1", "1"));
    let first = agent.usable();
    let second = taken(&mut agent, &config("1", "2"));
    assert_eq!(second.units, first.units);
    let third = taken(&mut agent, &config("2", "2"));
    let restarted = |name: &str| unit(&third, name).pid != unit(&second, name).pid;
    let names = ["file", "folder", "needs", "namesake"];
    assert_eq!(names.map(restarted), [true, true, false, false]);
    agent.stop();
}

fn tasks(node: &Node) {
    let config = |content: &str, word: &str| {
        let task = |name: &str, text: &str, watch: &[&str]| {
            let script = format!("echo {text} >> {}/done", node.root);
            json!({"name": name, "run": {"command": ["/bin/sh", "-c", script]}, "watch": watch})
        };
        json!({"files": [file("/etc/x", content)],
            "tasks": [task("a", "a", &[]), task("b", word, &[]), task("c", "c", &["/etc/x"])]})
    };
    let done = || {
        let mut lines: Vec<String> = fs::read_to_string(node.root.join("done"))
            .unwrap()
            .lines()
            .map(str::to_owned)
            .collect();
        lines.sort();
        fs::write(node.root.join("done"), "").unwrap();
        lines
    };
    let mut agent = node.start(&config("1", "b"));
    agent.usable();
    assert_eq!(done(), ["a", "b", "c"]);
    taken(&mut agent, &config("1", "b"));
    assert_eq!(done(), [] as [&str; 0]);
    taken(&mut agent, &config("1", "bb"));
    assert_eq!(done(), ["bb"]);
    taken(&mut agent, &config("2", "bb"));
    assert_eq!(done(), ["c"]);
    agent.stop();
}

fn moved(node: &Node) {
    let ground = |hosts: &str, networks: &[&str]| {
        let routes: Vec<_> =
            networks.iter().map(|to| json!({"to": to, "via": "10.9.0.2"})).collect();
        let ground = json!({"machineId": "ab", "hosts": hosts, "routes": routes});
        fs::write(node.root.join("ground.json"), ground.to_string()).unwrap();
    };
    let config = json!({"services": [
        {"name": "a", "command": ["/bin/sleep", "1000"]},
        {"name": "b", "command": ["/bin/sleep", "1000"], "watch": ["/etc/hosts"]}]});
    ground("one\n", &["10.244.1.0/24", "10.244.2.0/24"]);
    let mut agent = node.start(&config);
    let before = agent.usable();
    let routes = |agent: &Agent<'_>| -> Vec<String> {
        // Destinations as the kernel prints four bytes of memory as one number; 2 in the flags: through a router.
        let table = fs::read_to_string(format!("/proc/{}/net/route", agent.process.id())).unwrap();
        let fields = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut found: Vec<_> = fields
            .filter(|fields| fields[3] == "0003")
            .map(|fields| fields[1].to_owned())
            .collect();
        found.sort();
        found
    };
    assert_eq!(routes(&agent), ["0001F40A", "0002F40A"]);
    ground("two\n", &["10.244.2.0/24", "10.244.3.0/24"]);
    let after = taken(&mut agent, &config);
    assert_eq!(routes(&agent), ["0002F40A", "0003F40A"]);
    assert_eq!(fs::read_to_string(node.root.join("root/etc/hosts")).unwrap(), "two\n");
    assert_eq!(unit(&after, "a"), unit(&before, "a"));
    assert_ne!(unit(&after, "b").pid, unit(&before, "b").pid, "it watches the hosts");
    agent.stop();
}

fn refused(node: &Node) {
    let good = json!({"files": [file("/etc/x", "1")], "services": [node.service("a", &[])]});
    let mut agent = node.start(&good);
    let before = agent.usable();
    let expect = |agent: &Agent<'_>, code: &str, causes: &[&str]| {
        let problem = apply(agent).unwrap_err();
        assert_eq!(problem.code, code);
        if !causes.is_empty() {
            assert_eq!(problem.causes, causes);
        }
    };
    node.write(&json!({"services": [
        {"name": "a", "command": ["/bin/true"], "after": ["z"]}, {"name": "b", "command": []}]}));
    let causes = [
        "`a` waits for `z`, which is no unit of this node",
        "`b` has no program with an absolute path",
    ];
    expect(&agent, "agent.config.units", &causes);
    fs::write(node.root.join("node.json"), "{").unwrap();
    expect(&agent, "agent.config.malformed", &[]);
    fs::remove_file(node.root.join("node.json")).unwrap();
    expect(&agent, "agent.config.unreadable", &[]);
    node.write(&json!({"node": "n2"}));
    expect(&agent, "agent.apply.identity", &[]);
    node.write(&good);
    fs::write(node.root.join("ground.json"), "{").unwrap();
    expect(&agent, "agent.ground.malformed", &[]);
    let after = agent.follow_anew(|_| true).pop().unwrap();
    assert!(after.usage.is_some_and(|usage| usage.memory.is_some()), "{after:?}");
    let steady = |status| NodeStatus { uptime: 0, usage: None, ..status };
    assert_eq!(steady(after), steady(before));
    assert_eq!(fs::read_to_string(node.root.join("root/etc/x")).unwrap(), "1");
    agent.stop();
}

fn mended(node: &Node) {
    let mut agent = node.start(&json!({"services": [{"name": "a", "command": ["relative"]}]}));
    agent.until("failed", |status| status.phase == NodePhase::Failed);
    let status = taken(&mut agent, &json!({"services": [node.service("a", &[])]}));
    assert_eq!(status.problems, []);
    assert_eq!(node.order(), ["+a"]);
    agent.stop();
}

fn half_done(node: &Node) {
    let config = |content: &str, last: &str| {
        json!({"files": [file("/etc/x", content), file(last, "1")],
            "services": [{"name": "a", "command": ["/bin/sleep", "1000"], "watch": ["/etc/x"]}]})
    };
    let mut agent = node.start(&config("1", "/etc/last"));
    let first = agent.usable();
    fs::create_dir_all(node.root.join("root/etc/folder/full")).unwrap();
    let digest = node.write(&config("2", "/etc/folder"));
    let problem = apply(&agent).unwrap_err();
    let failed = agent.until("failed", |status| status.phase == NodePhase::Failed);
    assert_eq!(failed.config, digest);
    assert_eq!(failed.problems[0].message, "cannot make file /etc/folder");
    assert_eq!(problem, failed.problems[0], "who brought it hears of it");
    assert_eq!(apply(&agent).unwrap_err(), problem, "also when it is brought again");
    assert_eq!(unit(&failed, "a"), unit(&first, "a"), "services go on");
    fs::remove_dir_all(node.root.join("root/etc/folder")).unwrap();
    let last = taken(&mut agent, &config("2", "/etc/folder"));
    assert_eq!(last.problems, []);
    assert_ne!(unit(&last, "a").pid, unit(&first, "a").pid, "its file changed at the first try");
    assert!(!node.root.join("root/etc/last").exists());
    agent.stop();
}

fn replaced_while_off(node: &Node) {
    let mut agent = node.start(&json!({"files": [file("/etc/x", "1"), file("/etc/y", "1")]}));
    agent.usable();
    agent.stop();
    let mut agent = node.start(&json!({"files": [file("/etc/y", "1")]}));
    agent.usable();
    assert!(!node.root.join("root/etc/x").exists() && node.root.join("root/etc/y").exists());
    agent.stop();
}

fn deaf(node: &Node) {
    let mut agent = node.start(&json!({"services": [{
        "name": "deaf", "command": ["/bin/sh", "-c", "trap '' TERM; echo x; while :; do sleep 1; done"],
        "ready": Node::once(&format!("test -s {}/log/deaf.log", node.root)),
        "stop": {"signal": "terminate", "grace": "300ms"}}]}));
    let pid = unit(&agent.usable(), "deaf").pid.unwrap();
    let digest = node.write(&json!({}));
    apply(&agent).unwrap();
    // Seen by who has followed all the time: it is stopping for a moment only.
    let status = agent.until("stopping", |status| {
        let deaf = status.units.iter().find(|unit| unit.name == "deaf");
        status.config == digest && deaf.is_some_and(|deaf| deaf.state == UnitState::Stopping)
    });
    assert_eq!(status.phase, NodePhase::Starting);
    assert_eq!(agent.usable().units, []);
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    agent.stop();
}

fn stopping(node: &Node) {
    let script = format!(
        "trap '' TERM; touch {root}/ready; read _ < {gate}",
        root = node.root,
        gate = node.gate("gate")
    );
    let mut agent = node.start(&json!({"services": [{
        "name": "slow", "command": ["/bin/sh", "-c", script],
        "ready": Node::once(&format!("test -e {}/ready", node.root)),
        "stop": {"signal": "terminate", "grace": "1h"}}]}));
    agent.usable();
    agent.signal("TERM");
    agent.until("stopping", |status| status.phase == NodePhase::Stopping);
    assert_eq!(apply(&agent).unwrap_err().code, "agent.apply.stopping");
    node.open_gate("gate");
    agent.stop();
}
