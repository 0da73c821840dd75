//! An agent as an ordinary process: the test program runs itself again as the agent, and as one that follows its status.

#![expect(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by tests without the usual harness that each need a part"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use bivouac_agent::{Places, RestoreRequest, RunOptions, SaveRequest};
use bivouac_spec::NodeConfig;
use bivouac_spec::node::status::{NodePhase, NodeStatus, UnitState, UnitStatus};
use bivouac_sys::mount::{Propagation, set_propagation};
use bivouac_sys::namespace::{Namespace, unshare};
use bivouac_sys::netlink::Route;
use camino::{Utf8Path, Utf8PathBuf};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

/// A test gets a folder of its own.
pub(crate) type Test = fn(&Node);

/// Which folder this program is the agent of, and which it follows.
pub(crate) const ROOT: &str = "BIVOUAC_TEST_AGENT";
const FOLLOW: &str = "BIVOUAC_TEST_FOLLOW";
/// Whose `data` folder this program saves, and restores.
pub(crate) const SAVE: &str = "BIVOUAC_TEST_SAVE";
pub(crate) const RESTORE: &str = "BIVOUAC_TEST_RESTORE";
/// Nothing takes longer than this, also where other programs have nearly all of the machine: it only ends what hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// The whole of a test program's `main`.
pub(crate) fn run(tests: &[(&'static str, Test)]) -> ExitCode {
    if let Some(root) = std::env::var_os(ROOT) {
        let options = options(Utf8Path::from_path(root.as_ref()).unwrap());
        if options.ground.exists() {
            isolate();
        }
        return bivouac_agent::run(&options);
    }
    if let Some(root) = std::env::var_os(FOLLOW) {
        let socket = options(Utf8Path::from_path(root.as_ref()).unwrap()).places.socket;
        // An agent that is slow to start is waited for until the test gives up and ends this process.
        while let Err(problem) = bivouac_agent::status(&socket, true, &mut std::io::stdout()) {
            assert_eq!(problem.code, "agent.absent");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(root) = std::env::var_os(SAVE) {
        let root = Utf8Path::from_path(root.as_ref()).unwrap();
        let await_pause = std::env::args().nth(1).is_some();
        let paths = vec![root.join("data")];
        let request = SaveRequest { paths, patience: PATIENCE, await_pause };
        return bivouac_agent::save(&options(root).places, &request);
    }
    if let Some(root) = std::env::var_os(RESTORE) {
        let root = Utf8Path::from_path(root.as_ref()).unwrap();
        let size = std::env::args().nth(1).map(|size| size.parse().unwrap());
        let folder = std::env::args().nth(2).unwrap_or_else(|| "data".to_owned());
        let request = RestoreRequest { paths: vec![root.join(folder)], size };
        return bivouac_agent::restore(&options(root).places, &request);
    }
    let trials = tests.iter().copied().map(|(name, test)| {
        Trial::test(name, move || {
            test(&Node::new());
            Ok::<(), Failed>(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

pub(crate) fn options(root: &Utf8Path) -> RunOptions {
    let places = Places {
        socket: root.join("run/agent.sock"),
        logs: root.join("log"),
        root: root.join("root"),
        state: root.join("state"),
        runtime: root.join("run"),
    };
    RunOptions {
        config: root.join("node.json"),
        ground: root.join("ground.json"),
        shares_kernel: true,
        places,
    }
}

/// A network of its own, with a router to give routes to, and mounts that nobody else sees: what a ground says concerns both.
fn isolate() {
    unshare(&[Namespace::Mount, Namespace::Network]).unwrap();
    set_propagation("/", Propagation::Private, true).unwrap();
    let route = Route::open().unwrap();
    route.ensure_bridge("br", "x").unwrap();
    route.set_up("br", true).unwrap();
    route.ensure_address("br", "10.9.0.1/24".parse().unwrap()).unwrap();
}

/// A folder for one agent, and the processes of the test.
pub(crate) struct Node {
    _keep: tempfile::TempDir,
    pub(crate) root: Utf8PathBuf,
}

pub(crate) struct Agent<'a> {
    node: &'a Node,
    pub(crate) process: Child,
    follower: Child,
    lines: Receiver<String>,
    /// Every status up to now.
    pub(crate) seen: Vec<NodeStatus>,
}

impl Node {
    pub(crate) fn new() -> Self {
        let keep = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(keep.path().to_owned()).unwrap();
        Self { _keep: keep, root }
    }

    pub(crate) fn itself(&self, variable: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        for name in [ROOT, FOLLOW, SAVE, RESTORE] {
            command.env_remove(name);
        }
        command.env(variable, &self.root).stdin(Stdio::null());
        command
    }

    /// Puts the config where the agent reads it, and returns its digest.
    pub(crate) fn write(&self, config: &Value) -> String {
        let mut whole = json!({"format": 1, "cluster": "demo", "node": "n1"});
        whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        fs::write(self.root.join("node.json"), whole.to_string()).unwrap();
        serde_json::from_value::<NodeConfig>(whole).map_or_else(|_| String::new(), |c| c.digest())
    }

    /// Starts a follower first, then the agent: as a provider does, which does not know when the agent listens.
    pub(crate) fn start(&self, config: &Value) -> Agent<'_> {
        self.write(config);
        let mut follower = self.itself(FOLLOW).stdout(Stdio::piped()).spawn().unwrap();
        let process = self.itself(ROOT).spawn().unwrap();
        let output = BufReader::new(follower.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Agent { node: self, process, follower, lines, seen: Vec::new() }
    }

    /// A pipe with a name, at which a process of the node waits until [`Self::open_gate`].
    pub(crate) fn gate(&self, name: &str) -> Utf8PathBuf {
        let gate = self.root.join(name);
        let mode = Mode::from_raw_mode(0o600);
        mknodat(CWD, gate.as_std_path(), FileType::Fifo, mode, 0).unwrap();
        gate
    }

    /// Lets go on whoever reads the gate, now or later.
    pub(crate) fn open_gate(&self, name: &str) {
        // For both ways, so that it waits for nobody. What is written stays for as long as it is open: as long as the process.
        let gate = fs::OpenOptions::new().read(true).write(true).open(self.root.join(name));
        let mut gate = gate.unwrap();
        gate.write_all(b"\n").unwrap();
        std::mem::forget(gate);
    }

    /// A service that appends its name to `order` when it starts and when it is asked to stop.
    pub(crate) fn service(&self, name: &str, after: &[&str]) -> Value {
        let order = self.root.join("order");
        let script = format!(
            "trap 'echo -{name} >> {order}; exit 0' TERM; echo +{name} >> {order}; \
             touch {root}/ready-{name}; while :; do sleep 0.05 & wait; done",
            root = self.root,
        );
        json!({"name": name, "command": ["/bin/sh", "-c", script], "after": after,
            "ready": Self::once(&format!("test -e {}/ready-{name}", self.root))})
    }

    /// Ready once this command of a shell succeeds, however long it takes.
    pub(crate) fn once(command: &str) -> Value {
        json!({"check": {"exec": ["/bin/sh", "-c", command]}, "timeout": "2m"})
    }

    pub(crate) fn order(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("order")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

impl Agent<'_> {
    /// The node it is the agent of.
    pub(crate) fn node(&self) -> &Node {
        self.node
    }

    /// Follows the status from now on as somebody else would, until it is as wanted; returns all that was seen.
    pub(crate) fn follow_anew(&self, fits: impl Fn(&NodeStatus) -> bool) -> Vec<NodeStatus> {
        let mut follower = self.node.itself(FOLLOW).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(follower.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let mut seen: Vec<NodeStatus> = Vec::new();
        while !seen.last().is_some_and(&fits) {
            let line = lines.recv_timeout(PATIENCE);
            let Ok(line) = line else { panic!("never as wanted: {:#?}", seen.last()) };
            seen.push(serde_json::from_str(&line).unwrap());
        }
        follower.kill().unwrap();
        follower.wait().unwrap();
        seen
    }

    /// The next status; none when the agent has ended.
    pub(crate) fn next(&mut self) -> Option<&NodeStatus> {
        let line = match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => panic!("no news; last seen {:#?}", self.seen.last()),
        };
        self.seen.push(serde_json::from_str(&line).unwrap());
        self.seen.last()
    }

    /// Follows until the status is as wanted.
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
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

    pub(crate) fn usable(&mut self) -> NodeStatus {
        self.until("usable", |status| status.phase == NodePhase::Usable)
    }

    /// Until so many lines are in the order file: its probe holds from before, so nothing else tells that it runs its script.
    pub(crate) fn until_order(&self, count: usize) {
        wait_until("so many lines", || self.node.order().len() >= count);
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Stops it as a container engine would, and sees the last status.
    pub(crate) fn stop(mut self) {
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

/// A probe, for what nobody tells.
pub(crate) fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the kernel says of a process: `T` is stopped, `Z` ended and not reaped; none when it is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(crate) fn unit<'a>(status: &'a NodeStatus, name: &str) -> &'a UnitStatus {
    status.units.iter().find(|unit| unit.name == name).unwrap()
}
