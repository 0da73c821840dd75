//! The agent as an ordinary process with real services.

#![expect(clippy::unwrap_used, reason = "a test without the usual harness")]

mod node;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bivouac_spec::node::status::{NodePhase, NodeStatus, UnitState};
use serde_json::json;

use node::{Node, PATIENCE, ROOT, options, state, unit, wait_until};

fn main() -> ExitCode {
    node::run(&[
        ("units start in order and stop in reverse", order),
        ("a service that ends comes back", comes_back),
        ("a node becomes usable and degraded", degraded),
        ("a broken config leaves an agent that says so", broken),
        ("an agent that cannot listen says so on the console", mute),
        ("who asks and sends no more is answered", half_closed),
        ("orphans are reaped and leftovers ended", orphans),
        ("a service is restarted on request", restarted),
        ("what was said before a service started does not count", since),
        ("a service that does not stop is killed", killed),
        ("an idle agent costs nothing", idle),
    ])
}

fn order(node: &Node) {
    // The task waits until it was seen that others wait for it.
    let script = format!("read _ < {}; echo =work >> {}/order", node.gate("gate"), node.root);
    let mut agent = node.start(&json!({
        "files": [{"path": "/etc/x", "mode": 0o600, "kind": {"regular": "y"}}],
        "services": [
            node.service("c", &["b", "work"]),
            node.service("a", &[]),
            node.service("b", &["a"])],
        "tasks": [{"name": "work", "after": ["a"],
            "run": {"command": ["/bin/sh", "-c", script]}}],
        "conditions": [{"name": "c is there", "after": ["c"],
            "probe": {"check": {"file": "/etc/x"}}}]}));
    let waiting = agent.until("waiting for the task alone", |status| {
        unit(status, "c").detail.as_deref() == Some("waits for work")
    });
    assert_eq!(unit(&waiting, "c").state, UnitState::Waiting);
    assert_eq!(unit(&waiting, "b").state, UnitState::Ready);
    assert_eq!(waiting.phase, NodePhase::Starting);
    node.open_gate("gate");
    let status = agent.usable();
    assert_eq!(status.warnings, Vec::<String>::new());
    assert!(status.units.iter().all(|unit| unit.ready_after.is_some()));
    agent.stop();
    let order = node.order();
    assert_eq!(order, ["+a", "+b", "=work", "+c", "-c", "-b", "-a"]);
    let log = fs::read_to_string(node.root.join("log/agent.log")).unwrap();
    assert!(log.contains("everything is stopped"), "{log}");
}

fn comes_back(node: &Node) {
    let fail = "echo about to fail >&2; exit 3";
    let script = format!("read _ < {}; echo once >> {}/runs; {fail}", node.gate("gate"), node.root);
    let mut agent = node.start(&json!({"services": [
        {"name": "frail", "command": ["/bin/sh", "-c", script],
            "ready": {"check": {"file": "/never"}}},
        {"name": "late", "command": ["/bin/sh", "-c", fail],
            "ready": {"check": {"file": "/never"}}, "restart": {"initial": "1h", "max": "1h"}},
        {"name": "absent", "command": ["/does/not/exist"]}]}));
    for restarts in 1..=2 {
        node.open_gate("gate");
        agent.until("restarted", |status| {
            let frail = unit(status, "frail");
            frail.restarts == restarts && frail.pid.is_some()
        });
    }
    let wanted = "exited with 3, again in 3600 s; last line: about to fail";
    let status =
        agent.until("failed", |status| unit(status, "late").detail.as_deref() == Some(wanted));
    assert_eq!(unit(&status, "late").state, UnitState::Restarting);
    let detail = unit(&status, "absent").detail.clone().unwrap();
    assert!(
        detail.starts_with("cannot run /does/not/exist: it does not exist, again in"),
        "{detail}"
    );
    agent.stop();
    let log = fs::read_to_string(node.root.join("log/frail.log")).unwrap();
    let runs = fs::read_to_string(node.root.join("runs")).unwrap().lines().count();
    assert_eq!((runs, log.lines().count()), (2, 2), "every line of every run is in the log");
}

fn mute(node: &Node) {
    fs::write(node.root.join("node.json"), "{}").unwrap();
    fs::write(node.root.join("run"), "in the way").unwrap();
    let output = node.itself(ROOT).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let console = String::from_utf8(output.stderr).unwrap();
    let wanted =
        format!("bivouac agent: cannot listen at {}/run/agent.sock (agent.start): ", node.root);
    assert!(console.starts_with(&wanted), "{console}");
}

fn half_closed(node: &Node) {
    let mut agent = node.start(&json!({}));
    agent.usable();
    let mut stream = UnixStream::connect(node.root.join("run/agent.sock")).unwrap();
    stream.write_all(b"{\"status\":{}}\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status: NodeStatus = serde_json::from_str(&answer).unwrap();
    assert_eq!(status.phase, NodePhase::Usable);
    agent.stop();
}

fn degraded(node: &Node) {
    let mut agent = node.start(&json!({"services": [{
        "name": "a", "command": ["/bin/sleep", "1000"],
        "restart": {"initial": "1h", "max": "1h"}}]}));
    let pid = unit(&agent.usable(), "a").pid.unwrap();
    assert!(
        Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap().success()
    );
    let status = agent.until("degraded", |status| status.phase == NodePhase::Degraded);
    let a = unit(&status, "a");
    assert_eq!(a.state, UnitState::Restarting);
    assert_eq!(a.detail.as_deref(), Some("was killed (SIGKILL), again in 3600 s"));
    bivouac_agent::restart(&options(&node.root).places.socket, "a").unwrap();
    let status = agent.usable();
    assert_eq!(unit(&status, "a").restarts, 0, "somebody asked for it");
    assert_ne!(unit(&status, "a").pid, Some(pid));
    agent.stop();
}

fn broken(node: &Node) {
    let mut agent = node.start(&json!({"services": [
        {"name": "a", "command": ["/bin/true"], "after": ["b"]},
        {"name": "b", "command": ["/bin/true"], "after": ["a", "z"]}]}));
    let status = agent.until("failed", |status| status.phase == NodePhase::Failed);
    let texts: Vec<_> = status.problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(
        texts,
        [
            "`b` waits for `z`, which is no unit of this node",
            "units wait for each other: a > b > a"
        ]
    );
    assert_eq!(
        (status.cluster.to_string().as_str(), status.node.to_string().as_str()),
        ("demo", "n1")
    );
    agent.stop();
}

fn orphans(node: &Node) {
    // The service leaves a child in a session of its own, which a real shim is, and another that ends at once.
    let script = format!(
        "cd {}; setsid sh -c 'echo $$ > shim; exec sleep 1000' & (setsid sh -c 'echo $$ > brief' &); \
         exec sleep 1000",
        node.root
    );
    let mut agent = node.start(&json!({"services": [
        {"name": "runtime", "command": ["/bin/sh", "-c", script],
            "ready": Node::once(&format!("cd {}; test -s shim && test -s brief", node.root))}]}));
    let status = agent.usable();
    let written = |name: &str| -> u32 {
        fs::read_to_string(node.root.join(name)).unwrap().trim().parse().unwrap()
    };
    let (shim, brief) = (written("shim"), written("brief"));
    wait_until("reaped", || state(brief).is_none());
    bivouac_agent::restart(&options(&node.root).places.socket, "runtime").unwrap();
    let first = unit(&status, "runtime").pid;
    agent.until("started anew", |status| {
        unit(status, "runtime").pid.is_some_and(|pid| Some(pid) != first)
    });
    let alive = |pid| state(pid).is_some_and(|state| state != 'Z');
    assert!(alive(shim), "a restart leaves the service's children alone");
    agent.stop();
    wait_until("ended with the node", || !alive(shim));
}

fn restarted(node: &Node) {
    let mut agent =
        node.start(&json!({"services": [node.service("a", &[]), node.service("b", &["a"])]}));
    let first = unit(&agent.usable(), "a").pid;
    let socket = options(&node.root).places.socket;
    bivouac_agent::restart(&socket, "a").unwrap();
    agent.until("started anew", |status| {
        let a = unit(status, "a");
        a.state == UnitState::Ready && a.pid != first
    });
    agent.until_order(4);
    let problem = bivouac_agent::restart(&socket, "x").unwrap_err();
    assert_eq!(problem.message, "there is no service `x`");
    assert_eq!(problem.help.as_deref(), Some("name one of: a, b"));
    let mut once = Vec::new();
    bivouac_agent::status(&socket, false, &mut once).unwrap();
    assert_eq!(once.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(node.order(), ["+a", "+b", "-a", "+a"]);
    bivouac_agent::stop(&socket).unwrap();
    while agent.next().is_some() {}
    assert!(agent.process.wait().unwrap().success());
    assert_eq!(node.order()[4..], ["-b", "-a"]);
}

/// Says of when it is, whenever it is asked.
fn serve(report: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let body = format!("{{\"reports\": [\"{}\"]}}", report.lock().unwrap());
            let head = format!("HTTP/1.0 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes());
        }
    });
    address
}

fn since(node: &Node) {
    let report = Arc::new(Mutex::new("2000-01-01T00:00:00Z".to_owned()));
    let address = serve(Arc::clone(&report));
    let mut agent = node.start(&json!({
        "services": [{"name": "a", "command": ["/bin/sleep", "1000"]}],
        "conditions": [{"name": "a has reported", "after": ["a"], "probe": {"check": {"http": {
            "request": {"method": "GET", "url": format!("http://{address}/")},
            "expect": {"json": {"select": "$.reports[?@ >= \"{since}\"]", "atLeast": 1,
                "what": "reports are new", "since": "a"}}}}}}]}));
    let old = agent.until("asked", |status| unit(status, "a has reported").detail.is_some());
    let condition = unit(&old, "a has reported");
    assert_eq!(condition.detail.as_deref(), Some("0 of 1 reports are new"));
    assert_eq!(old.phase, NodePhase::Starting);
    *report.lock().unwrap() = "9999-01-01T00:00:00Z".to_owned();
    agent.usable();
    agent.stop();
}

fn killed(node: &Node) {
    let mut agent = node.start(&json!({"services": [{
        "name": "deaf", "command": ["/bin/sh", "-c", "trap '' TERM; echo x; while :; do sleep 1; done"],
        "stop": {"signal": "terminate", "grace": "300ms"}, "limits": {"openFiles": 64}, "oomScore": 500}]}));
    let pid = unit(&agent.usable(), "deaf").pid.unwrap();
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    assert_eq!(read("oom_score_adj").trim(), "500");
    assert!(read("limits").lines().any(|line| line.starts_with("Max open files            64 ")));
    let environment = read("environ");
    let mut names: Vec<_> =
        environment.split('\0').filter_map(|pair| pair.split('=').next()).collect();
    names.retain(|name| !["", "PWD", "OLDPWD", "_", "SHLVL"].contains(name));
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH"]);
    agent.signal("HUP");
    agent.stop();
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
}

fn idle(node: &Node) {
    let mut agent = node.start(&json!({"services": [
        {"name": "a", "command": ["/bin/sleep", "1000"]}]}));
    agent.usable();
    let pid = agent.process.id();
    // The pool may still be letting go of its threads; a ticking agent would never come to rest.
    let switches = || {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = switches();
        std::thread::sleep(Duration::from_millis(500));
        if switches() == before {
            break;
        }
        assert!(Instant::now() < deadline, "the agent never rests");
    }
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let pss = text.lines().find(|line| line.starts_with("Pss:")).unwrap();
    assert!(pss.contains("kB"), "{pss}");
    agent.signal("KILL");
    let status = agent.process.wait().unwrap();
    assert_eq!(status.signal(), Some(9));
    let last = agent.seen.last().unwrap().units[0].pid.unwrap();
    let _ = Command::new("kill").arg(last.to_string()).status();
}
