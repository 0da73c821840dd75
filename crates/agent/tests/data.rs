//! The data of a node is copied while real processes stand still, and brought back.

#![expect(clippy::unwrap_used, reason = "a test without the usual harness")]

mod node;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use bivouac_spec::node::save::Said;
use bivouac_spec::node::stream::Answer;
use bivouac_sys::mount::{Attributes, Filesystem, Propagation, detach, mount, set_propagation};
use bivouac_sys::namespace::{Namespace, unshare};
use camino::Utf8Path;
use serde_json::json;

use node::{Agent, Node, PATIENCE, RESTORE, SAVE, options, state, unit, wait_until};

fn main() -> ExitCode {
    node::run(&[
        ("a copy is of one moment, and everything goes on after it", one_moment),
        ("who is killed while it copies leaves a node that goes on", killed),
        ("who is told when to pause waits for it", told),
        ("a pause that lasts too long ends", too_long),
        ("what was stopped before stays so", stopped_before),
        ("a paused node does nothing else", nothing_else),
        ("a node that is stopped while it is paused stops", stopped_meanwhile),
        ("what comes back is what was there", comes_back),
        ("a folder of a copy comes back alone", a_part),
        ("a copy that is cut short is refused", cut_short),
    ])
}

/// A save in a process of its own, which is killed when the test is over.
struct Save {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Save {
    fn start(node: &Node) -> Self {
        Self::of(&mut node.itself(SAVE))
    }

    fn of(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    fn hear(&mut self) -> Said {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        Said::parse(&line).unwrap_or_else(|| panic!("not a line of a save: {line:?}"))
    }

    fn say(&mut self, word: &str) {
        writeln!(self.input.as_mut().unwrap(), "{word}").unwrap();
    }

    fn paused(node: &Node) -> (Self, u32) {
        let mut save = Self::start(node);
        match save.hear() {
            Said::Paused { processes } => (save, processes),
            other => panic!("{other:?}"),
        }
    }

    /// The tar of a node that is paused.
    fn copy(mut self) -> Vec<u8> {
        self.say("copy");
        let copied = self.hear();
        let Said::Copied { bytes, .. } = copied else { panic!("{copied:?}") };
        self.say("send");
        assert_eq!(self.hear(), Said::Sending { bytes });
        let mut tar = Vec::new();
        self.output.read_to_end(&mut tar).unwrap();
        assert!(self.process.wait().unwrap().success());
        assert_eq!(tar.len() as u64, bytes);
        tar
    }
}

impl Drop for Save {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A service with a child that writes ascending numbers to a file, and one that has a session of its own.
fn counting(node: &Node) -> Agent<'_> {
    fs::create_dir_all(node.root.join("data/deep")).unwrap();
    let script = format!(
        "cd {root}; (setsid sh -c 'echo $$ > other; exec sleep 1000' &); \
         (n=0; while :; do n=$((n+1)); echo $n > data/deep/.n; mv data/deep/.n data/deep/count; done) & \
         echo $! > counter; wait",
        root = node.root
    );
    let mut agent = node.start(&json!({"services": [
        {"name": "counting", "command": ["/bin/sh", "-c", script],
            "ready": Node::once(&format!(
                "cd {}; test -s data/deep/count && test -s counter && test -s other", node.root))}]}));
    agent.usable();
    agent
}

fn count(node: &Node) -> u64 {
    fs::read_to_string(node.root.join("data/deep/count")).unwrap().trim().parse().unwrap()
}

fn pids(node: &Node, agent: &Agent<'_>) -> Vec<u32> {
    let read =
        |name: &str| fs::read_to_string(node.root.join(name)).unwrap().trim().parse().unwrap();
    let service = unit(agent.seen.last().unwrap(), "counting").pid.unwrap();
    vec![service, read("counter"), read("other")]
}

/// A shell that waits for the child of a vfork to execute stops when that does: until then it stands still, too.
fn stands_still(pid: u32) -> bool {
    matches!(state(pid), Some('T' | 'D'))
}

fn goes_on(node: &Node, agent: &Agent<'_>) {
    for pid in pids(node, agent) {
        wait_until("going on", || state(pid) != Some('T'));
    }
    let before = count(node);
    wait_until("counting", || count(node) > before);
}

fn unpack(tar: &[u8], into: &Utf8Path) {
    fs::create_dir_all(into).unwrap();
    let mut command = Command::new("tar");
    let mut tar_process =
        command.args(["-x", "-C", into.as_str()]).stdin(Stdio::piped()).spawn().unwrap();
    tar_process.stdin.take().unwrap().write_all(tar).unwrap();
    assert!(tar_process.wait().unwrap().success());
}

fn one_moment(node: &Node) {
    let agent = counting(node);
    let pids = pids(node, &agent);
    let (save, processes) = Save::paused(node);
    assert!(processes >= 3, "{processes}");
    assert!(pids.iter().all(|pid| stands_still(*pid)), "{pids:?}");
    let at = count(node);
    let tar = save.copy();
    goes_on(node, &agent);
    let copy = node.root.join("copy");
    unpack(&tar, &copy);
    let inside = copy.join(node.root.strip_prefix("/").unwrap()).join("data/deep/count");
    assert_eq!(fs::read_to_string(inside).unwrap().trim(), at.to_string());
    let mut status = Vec::new();
    bivouac_agent::status(&options(&node.root).places.socket, false, &mut status).unwrap();
    let status = serde_json::from_slice(&status).unwrap();
    assert_eq!(unit(&status, "counting").pid, Some(pids[0]));
    assert_eq!(unit(&status, "counting").restarts, 0);
    agent.stop();
}

fn killed(node: &Node) {
    let agent = counting(node);
    let (mut save, _) = Save::paused(node);
    save.process.kill().unwrap();
    goes_on(node, &agent);
    let left: Vec<_> = fs::read_dir(node.root.join("state")).unwrap().collect();
    assert!(left.iter().all(|entry| entry.as_ref().unwrap().file_name() == "files.json"));
    // One that is gone without a word, too.
    let (mut save, _) = Save::paused(node);
    drop(save.input.take());
    assert!(matches!(save.hear(), Said::Problem(problem) if problem.code == "agent.save.unwanted"));
    assert!(!save.process.wait().unwrap().success());
    goes_on(node, &agent);
    agent.stop();
}

fn ask(node: &Node, request: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(options(&node.root).places.socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    writeln!(stream, "{request}").unwrap();
    BufReader::new(stream)
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

fn told(node: &Node) {
    let agent = counting(node);
    let mut save = Save::of(node.itself(SAVE).arg("await"));
    let Said::Ready { bytes } = save.hear() else { panic!("it is not ready") };
    assert!(bytes > 0);
    goes_on(node, &agent);
    save.say("pause");
    assert!(matches!(save.hear(), Said::Paused { .. }));
    assert!(pids(node, &agent).iter().all(|pid| stands_still(*pid)));
    save.copy();
    agent.stop();
}

fn too_long(node: &Node) {
    let agent = counting(node);
    let mut client = ask(node, r#"{"pause":{"patience":100}}"#);
    assert!(line(&mut client).starts_with(r#"{"paused":"#));
    assert_eq!(line(&mut client), "", "the end of the connection tells");
    goes_on(node, &agent);
    agent.stop();
}

fn stopped_before(node: &Node) {
    let agent = counting(node);
    let other = pids(node, &agent)[2];
    let kill = |name: &str| {
        assert!(
            Command::new("kill").args(["-s", name, &other.to_string()]).status().unwrap().success()
        );
    };
    kill("STOP");
    wait_until("stopped", || state(other) == Some('T'));
    let (save, _) = Save::paused(node);
    save.copy();
    wait_until("going on", || state(pids(node, &agent)[1]) != Some('T'));
    assert_eq!(state(other), Some('T'));
    kill("CONT");
    goes_on(node, &agent);
    agent.stop();
}

fn nothing_else(node: &Node) {
    let agent = counting(node);
    let service = pids(node, &agent)[0];
    let (save, _) = Save::paused(node);
    assert!(line(&mut ask(node, r#"{"pause":{"patience":1000}}"#)).contains("agent.pause.taken"));
    assert!(line(&mut ask(node, r#"{"apply":{}}"#)).contains("agent.paused"));
    assert!(line(&mut ask(node, r#"{"thaw":{}}"#)).contains("agent.pause.over"));
    // A service that ends meanwhile is not started again before the others go on.
    assert!(
        Command::new("kill").args(["-s", "KILL", &service.to_string()]).status().unwrap().success()
    );
    wait_until("ended", || state(service) == Some('Z'));
    assert!(line(&mut ask(node, r#"{"status":{}}"#)).contains(&format!("\"pid\":{service}")));
    assert_eq!(state(service), Some('Z'));
    save.copy();
    wait_until("reaped", || state(service).is_none());
    agent.stop();
}

fn stopped_meanwhile(node: &Node) {
    let agent = counting(node);
    let (_save, _) = Save::paused(node);
    agent.stop();
}

fn restore(node: &Node, tar: &[u8], size: usize) -> (bool, String) {
    restore_folder(node, "data", tar, size)
}

fn restore_folder(node: &Node, folder: &str, tar: &[u8], size: usize) -> (bool, String) {
    let mut command = node.itself(RESTORE);
    command.args([&size.to_string(), folder]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // It may end before it has read everything.
    let _ = process.stdin.take().unwrap().write_all(tar);
    let output = process.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

fn run(command: &str) {
    assert!(Command::new("sh").args(["-ec", command]).status().unwrap().success(), "{command}");
}

/// Makes files of all kinds, and a mount among them that is nobody's data.
fn furnish(root: &Utf8Path) {
    run(&format!(
        "cd {root}; mkdir -p data/a data/mounted data/empty; echo one > data/a/one; ln data/a/one data/two; \
         ln -s a/one data/link; chown 1234:4321 data/a/one; chmod 4750 data/a/one; chmod 1777 data/empty; \
         mknod data/white c 0 0; mkfifo data/pipe; echo under > data/mounted/under; \
         truncate -s 64M data/hole; echo end >> data/hole; touch -d @1000000.5 data/a/one; \
         mkdir -p data/a/{long}; echo far > data/a/{long}/{long}; ln data/a/{long}/{long} data/a/far; ln -s {long}/{long} data/a/near",
        long = "long".repeat(30),
    ));
    rustix::fs::setxattr(
        root.join("data/a").as_str(),
        "trusted.overlay.opaque",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )
    .unwrap();
    let memory = Filesystem::Tmpfs { size: Some(1 << 20), mode: 0o755 };
    mount(&memory, root.join("data/mounted"), Attributes::default()).unwrap();
    fs::write(root.join("data/mounted/volatile"), "x").unwrap();
}

fn comes_back(node: &Node) {
    unshare(&[Namespace::Mount]).unwrap();
    set_propagation("/", Propagation::Private, true).unwrap();
    let root = &node.root;
    furnish(root);
    let agent = node.start(&json!({}));
    agent.follow_anew(|_| true);
    let (save, _) = Save::paused(node);
    let tar = save.copy();
    assert!(tar.len() < 1 << 20, "a hole is no data: {} bytes", tar.len());
    run(&format!(
        "cd {root}/data; rm -r a two; echo new > new; mkdir -p more/deep; ln -s / link2; echo x > hole"
    ));
    assert_eq!(restore(node, &tar, tar.len()), (true, String::new()));

    let data = root.join("data");
    let one = fs::metadata(data.join("a/one")).unwrap();
    assert_eq!((one.uid(), one.gid(), one.mode() & 0o7777), (1234, 4321, 0o4750));
    assert_eq!((one.mtime(), one.mtime_nsec()), (1_000_000, 500_000_000));
    assert_eq!(one.ino(), fs::metadata(data.join("two")).unwrap().ino());
    assert_eq!(fs::read_link(data.join("link")).unwrap().to_str(), Some("a/one"));
    for name in ["far", "near"] {
        assert_eq!(fs::read_to_string(data.join("a").join(name)).unwrap(), "far\n");
    }
    let white = fs::symlink_metadata(data.join("white")).unwrap();
    assert!(white.file_type().is_char_device() && white.rdev() == 0);
    assert!(fs::symlink_metadata(data.join("pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::metadata(data.join("empty")).unwrap().mode() & 0o7777, 0o1777);
    let hole = fs::metadata(data.join("hole")).unwrap();
    assert!(hole.len() > 64 << 20 && hole.blocks() * 512 < 1 << 20, "{hole:?}");
    let mut value = [0; 8];
    let length =
        rustix::fs::getxattr(data.join("a").as_str(), "trusted.overlay.opaque", &mut value[..]);
    assert_eq!(&value[..length.unwrap()], b"y");
    let mut names: Vec<_> =
        data.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["a", "empty", "hole", "link", "mounted", "pipe", "two", "white"]);
    // What is mounted is neither copied nor removed, and still mounted.
    assert_eq!(fs::read_to_string(data.join("mounted/volatile")).unwrap(), "x");
    agent.stop();
    // Or the folder of the test stays.
    detach(data.join("mounted")).unwrap();
}

fn a_part(node: &Node) {
    unshare(&[Namespace::Mount]).unwrap();
    let data = node.root.join("data");
    let put = |text: &str| {
        for folder in ["one", "two"] {
            fs::create_dir_all(data.join(folder).join("deep")).unwrap();
            fs::write(data.join(folder).join("deep/file"), text).unwrap();
        }
    };
    put("saved");
    let agent = node.start(&json!({}));
    agent.follow_anew(|_| true);
    let tar = Save::paused(node).0.copy();
    put("changed");
    fs::write(data.join("two/new"), "new").unwrap();
    assert_eq!(restore_folder(node, "data/two", &tar, tar.len()), (true, String::new()));
    let file = |folder: &str| fs::read_to_string(data.join(folder).join("deep/file")).unwrap();
    assert_eq!((file("one").as_str(), file("two").as_str()), ("changed", "saved"));
    assert!(!data.join("two/new").exists());
    // What the copy does not have is no copy of it.
    fs::create_dir(data.join("three")).unwrap();
    let (done, why) = restore_folder(node, "data/three", &tar, tar.len());
    assert!(!done && why.contains("agent.restore.failed"), "{why}");
    agent.stop();
}

fn cut_short(node: &Node) {
    unshare(&[Namespace::Mount]).unwrap();
    fs::create_dir_all(node.root.join("data")).unwrap();
    fs::write(node.root.join("data/file"), vec![7; 100_000]).unwrap();
    let agent = node.start(&json!({}));
    agent.follow_anew(|_| true);
    let tar = Save::paused(node).0.copy();
    let problem = |(success, text): (bool, String)| {
        assert!(!success);
        match Answer::parse(text.trim_end()) {
            Some(Answer::Problem(problem)) => problem,
            _ => panic!("{text}"),
        }
    };
    let short = problem(restore(node, &tar[..50_000], tar.len()));
    assert_eq!(short.code, "agent.restore.failed");
    // The last blocks say only that it is the end.
    let ends = problem(restore(node, &tar[..tar.len() - 512], tar.len()));
    assert!(ends.causes[0].contains("bytes came"), "{ends:?}");
    assert_eq!(restore(node, &tar, tar.len()), (true, String::new()));
    assert_eq!(fs::read(node.root.join("data/file")).unwrap(), vec![7; 100_000]);
    agent.stop();
}
