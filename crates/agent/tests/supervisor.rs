//! The agent as an ordinary process with real services: this program runs itself again as the agent.

#![expect(clippy::unwrap_used, reason = "a test without the usual harness")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bivouac_agent::{Places, RunOptions};
use bivouac_spec::node::status::{NodePhase, NodeStatus, UnitState, UnitStatus};
use camino::{Utf8Path, Utf8PathBuf};
use libtest_mimic::{Arguments, Failed, Trial};
use serde_json::{Value, json};

type Test = fn(&Node);

const ROOT: &str = "BIVOUAC_TEST_AGENT";
const FOLLOW: &str = "BIVOUAC_TEST_FOLLOW";
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    if let Some(root) = std::env::var_os(ROOT) {
        return bivouac_agent::run(&options(Utf8Path::from_path(root.as_ref()).unwrap()));
    }
    if let Some(root) = std::env::var_os(FOLLOW) {
        let socket = options(Utf8Path::from_path(root.as_ref()).unwrap()).places.socket;
        bivouac_agent::status(&socket, true, &mut std::io::stdout()).unwrap();
        return ExitCode::SUCCESS;
    }
    let tests: [(&str, Test); 10] = [
        ("units start in order and stop in reverse", order),
        ("a service that ends comes back", comes_back),
        ("a node becomes usable and degraded", degraded),
        ("a broken config leaves an agent that says so", broken),
        ("an agent that cannot listen says so on the console", mute),
        ("who asks and sends no more is answered", half_closed),
        ("orphans are reaped and leftovers ended", orphans),
        ("a service is restarted on request", restarted),
        ("a service that does not stop is killed", killed),
        ("an idle agent costs nothing", idle),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            test(&Node::new());
            Ok::<(), Failed>(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

fn options(root: &Utf8Path) -> RunOptions {
    let places = Places {
        socket: root.join("run/agent.sock"),
        logs: root.join("log"),
        root: root.join("root"),
        runtime: root.join("run"),
    };
    RunOptions {
        config: root.join("node.json"),
        ground: root.join("ground.json"),
        shares_kernel: true,
        places,
    }
}

/// A folder for one agent, and the processes of the test.
struct Node {
    _keep: tempfile::TempDir,
    root: Utf8PathBuf,
}

struct Agent<'a> {
    node: &'a Node,
    process: Child,
    follower: Child,
    lines: Receiver<String>,
    seen: Vec<NodeStatus>,
}

impl Node {
    fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        Self { _keep: keep, root }
    }

    fn itself(&self, variable: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env_remove(ROOT).env_remove(FOLLOW).env(variable, &self.root).stdin(Stdio::null());
        command
    }

    /// Starts a follower first, then the agent: as a provider does, which does not know when the agent listens.
    fn start(&self, config: &Value) -> Agent<'_> {
        let mut whole = json!({"format": 1, "cluster": "demo", "node": "n1"});
        whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        fs::write(self.root.join("node.json"), whole.to_string()).unwrap();
        let mut follower = self.itself(FOLLOW).stdout(Stdio::piped()).spawn().unwrap();
        let process = self.itself(ROOT).spawn().unwrap();
        let output = BufReader::new(follower.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Agent { node: self, process, follower, lines, seen: Vec::new() }
    }

    /// A service that appends its name to `order` when it starts and when it is asked to stop.
    fn service(&self, name: &str, after: &[&str]) -> Value {
        let order = self.root.join("order");
        let script = format!(
            "trap 'echo -{name} >> {order}; exit 0' TERM; echo +{name} >> {order}; \
             touch {root}/ready-{name}; while :; do sleep 0.05 & wait; done",
            root = self.root,
        );
        json!({"name": name, "command": ["/bin/sh", "-c", script], "after": after,
            "ready": {"check": {"exec": ["/usr/bin/test", "-e", self.root.join(format!("ready-{name}"))]}}})
    }

    fn order(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("order")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Agent<'_> {
    /// The next status; none when the agent has ended.
    fn next(&mut self) -> Option<&NodeStatus> {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("no news; last seen {:#?}", self.seen.last()),
        };
        self.seen.push(serde_json::from_str(&line).unwrap());
        self.seen.last()
    }

    /// Follows until the status is as wanted.
    fn until(&mut self, what: &str, fits: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.next() {
                Some(status) if fits(status) => return status.clone(),
                Some(_) => {}
                None => break,
            }
        }
        panic!("never {what}; last seen {:#?}", self.seen.last());
    }

    fn usable(&mut self) -> NodeStatus {
        self.until("usable", |status| status.phase == NodePhase::Usable)
    }

    /// Until so many lines are in the order file: its probe holds from before, so nothing else tells that it runs its script.
    fn until_order(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.node.order().len() < count {
            assert!(Instant::now() < deadline, "{:?}", self.node.order());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Stops it as a container engine would, and sees the last status.
    fn stop(mut self) {
        self.signal("TERM");
        while self.next().is_some() {}
        let last = self.seen.last().unwrap();
        assert_eq!(last.phase, NodePhase::Stopping);
        assert!(last.units.iter().all(|unit| unit.state == UnitState::Stopped), "{last:#?}");
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(self.follower.wait().unwrap().success());
        assert!(!self.node.root.join("run/agent.sock").exists());
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        // Only of use after a failed test: the agent takes its services with it.
        if self.process.try_wait().unwrap().is_none() {
            self.signal("TERM");
            let _ = self.process.wait();
        }
        let _ = self.follower.kill();
        let _ = self.follower.wait();
    }
}

fn unit<'a>(status: &'a NodeStatus, name: &str) -> &'a UnitStatus {
    status.units.iter().find(|unit| unit.name == name).unwrap()
}

fn order(node: &Node) {
    let mut agent = node.start(&json!({
        "files": [{"path": "/etc/x", "mode": 0o600, "kind": {"regular": "y"}}],
        "services": [
            node.service("c", &["b", "work"]),
            node.service("a", &[]),
            node.service("b", &["a"])],
        "tasks": [{"name": "work", "after": ["a"],
            "run": {"command": ["/bin/sh", "-c", format!("echo =work >> {}/order", node.root)]}}],
        "conditions": [{"name": "c is there", "after": ["c"],
            "probe": {"check": {"file": "/etc/x"}}}]}));
    let status = agent.usable();
    assert_eq!(status.warnings, Vec::<String>::new());
    assert!(status.units.iter().all(|unit| unit.ready_after.is_some()));
    let first = &agent.seen[0];
    assert_eq!(unit(first, "c").state, UnitState::Waiting);
    assert!(unit(first, "c").detail.as_ref().unwrap().starts_with("waits for b, work"));
    agent.stop();
    let order = node.order();
    assert_eq!(order[0], "+a");
    assert_eq!(order[3..], ["+c", "-c", "-b", "-a"]);
    let log = fs::read_to_string(node.root.join("log/agent.log")).unwrap();
    assert!(log.contains("everything is stopped"), "{log}");
}

fn comes_back(node: &Node) {
    let script =
        format!("echo once >> {root}/runs; echo about to fail >&2; exit 3", root = node.root);
    let mut agent = node.start(&json!({"services": [{
        "name": "frail", "command": ["/bin/sh", "-c", script],
        "ready": {"check": {"file": "/never"}}}, {
        "name": "absent", "command": ["/does/not/exist"]}]}));
    let status = agent.until("restarted twice", |status| unit(status, "frail").restarts == 2);
    let details: Vec<_> =
        agent.seen.iter().filter_map(|status| unit(status, "frail").detail.clone()).collect();
    let wanted = "exited with 3, again in 200 ms; last line: about to fail";
    assert!(details.iter().any(|detail| detail == wanted), "{details:?}");
    let detail = unit(&status, "absent").detail.clone().unwrap();
    assert!(
        detail.starts_with("cannot run /does/not/exist: it does not exist, again in"),
        "{detail}"
    );
    agent.stop();
    let log = fs::read_to_string(node.root.join("log/frail.log")).unwrap();
    let runs = fs::read_to_string(node.root.join("runs")).unwrap().lines().count();
    assert_eq!(log.lines().count(), runs, "every line of every run is in the log");
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
        "restart": {"initial": "1s", "max": "1s"}}]}));
    let pid = unit(&agent.usable(), "a").pid.unwrap();
    assert!(
        Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status().unwrap().success()
    );
    let status = agent.until("degraded", |status| status.phase == NodePhase::Degraded);
    let a = unit(&status, "a");
    assert_eq!(a.state, UnitState::Restarting);
    assert_eq!(a.detail.as_deref(), Some("was killed (SIGKILL), again in 1 s"));
    let status = agent.usable();
    assert_eq!(unit(&status, "a").restarts, 1);
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
        "setsid sh -c 'echo $$ > {root}/shim; exec sleep 1000' & (setsid true &) ; sleep 0.2; exec sleep 1000",
        root = node.root
    );
    let mut agent = node.start(&json!({"services": [
        {"name": "runtime", "command": ["/bin/sh", "-c", script],
            "ready": {"check": {"exec": ["/usr/bin/test", "-s", node.root.join("shim")]}}}]}));
    let status = agent.usable();
    let shim = fs::read_to_string(node.root.join("shim")).unwrap().trim().to_owned();
    bivouac_agent::restart(&options(&node.root).places.socket, "runtime").unwrap();
    let first = unit(&status, "runtime").pid;
    agent.until("started anew", |status| {
        unit(status, "runtime").pid.is_some_and(|pid| Some(pid) != first)
    });
    let alive = |pid: &str| fs::exists(format!("/proc/{pid}")).unwrap();
    assert!(alive(&shim), "a restart leaves the service's children alone");
    agent.stop();
    assert!(!alive(&shim), "the end of the node does not");
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
