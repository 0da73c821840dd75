//! This test's own binary as the programs of a node: the image of the test holds nothing else. Static, so it runs on an empty
//! root.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{self, ExitCode};
use std::time::Duration;

use bivouac_spec::node::paths;
use bivouac_spec::node::{FileKind, NodePhase, status::Usage};
use bivouac_spec::{NodeConfig, NodeStatus};
use bivouac_sys::cgroup::Hierarchy;
use bivouac_sys::netlink::Route;
use bivouac_sys::process::{PidFd, Signal, SignalFd, reap, wait_readable};
use ipnet::IpNet;

/// The programs.
pub(crate) const NAMES: [&str; 11] =
    ["sh", "cat", "echo", "sleep", "true", "false", "serve", "greet", "answer", "hold", "who"];

/// Runs the program that this was called as, if it is one.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let arguments: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let (program, rest) = arguments.split_first()?;
    let code = match (Path::new(program).file_name()?.to_str()?, rest) {
        ("bivouac", ["agent", "run", ..]) => run_agent(),
        ("bivouac", ["agent", "status", options @ ..]) => status(!options.is_empty()),
        ("bivouac", ["agent", "apply"]) => apply(),
        ("true", _) => 0,
        ("false", _) => 1,
        ("cat", []) => io::copy(&mut io::stdin(), &mut io::stdout()).map_or(1, |_| 0),
        ("echo", words) => writeln!(io::stdout(), "{}", words.join(" ")).map_or(1, |()| 0),
        ("sleep", [seconds]) => sleep(seconds.parse().unwrap()),
        ("sh", ["-c", script]) => shell(script),
        ("serve", [address]) => serve(address, |_| "hello".to_owned()),
        ("who", [address]) => serve(address, |from| from.ip().to_string()),
        ("greet", [address]) => greet(address),
        ("answer", [address]) => answer(address),
        ("hold", [mebibytes]) => hold(mebibytes.parse().unwrap()),
        _ => return None,
    };
    Some(ExitCode::from(code))
}

/// Gives the node this address, listens there, says so, and answers whoever comes.
fn serve(address: &str, text: impl Fn(SocketAddr) -> String) -> u8 {
    let address: SocketAddr = address.parse().unwrap();
    Route::open().unwrap().ensure_address("lo", IpNet::from(address.ip())).unwrap();
    let listener = TcpListener::bind(address).unwrap();
    io::stdout().write_all(b"listening\n").unwrap();
    loop {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(text(from).as_bytes()).unwrap();
    }
}

/// Sends back every UDP packet, and says when it begins.
fn answer(address: &str) -> u8 {
    let socket = UdpSocket::bind(address).unwrap();
    io::stdout().write_all(b"listening\n").unwrap();
    let mut packet = [0; 64];
    loop {
        let (length, from) = socket.recv_from(&mut packet).unwrap();
        socket.send_to(&packet[..length], from).unwrap();
    }
}

fn greet(address: &str) -> u8 {
    let patience = Duration::from_secs(120);
    let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), patience).unwrap();
    io::copy(&mut stream, &mut io::stdout()).map_or(1, |_| 0)
}

fn sleep(seconds: u64) -> u8 {
    std::thread::sleep(Duration::from_secs(seconds));
    0
}

/// `exit N`, `kill -N $$`, `echo TEXT >&2`, `echo $NAME`: enough for tests.
fn shell(script: &str) -> u8 {
    let words: Vec<&str> = script.split_whitespace().collect();
    match words[..] {
        ["exit", code] => code.parse().unwrap(),
        ["kill", "-TERM", "$$"] => {
            let own = PidFd::open(process::id()).unwrap();
            own.send_signal(Signal::TERM).unwrap();
            own.wait(None).unwrap();
            unreachable!()
        }
        ["echo", text, ">&2"] => writeln!(io::stderr(), "{text}").map_or(1, |()| 0),
        ["echo", variable] => {
            let value = std::env::var(variable.trim_start_matches('$')).unwrap_or_default();
            writeln!(io::stdout(), "{value}").map_or(1, |()| 0)
        }
        _ => 127,
    }
}

/// An agent that only lives: it reaps, and ends when asked to.
fn run_agent() -> u8 {
    let signals = SignalFd::open(&[Signal::TERM, Signal::CHILD]).unwrap();
    let log = format!("{}/agent.log", paths::LOGS);
    let mut log = OpenOptions::new().create(true).append(true).open(log).unwrap();
    let config: NodeConfig =
        serde_json::from_slice(&std::fs::read(paths::CONFIG).unwrap()).unwrap();
    writeln!(log, "started as {} in {}", process::id(), config.node).unwrap();
    loop {
        wait_readable(&[signals.as_fd()], None).unwrap();
        while let Some(signal) = signals.read().unwrap() {
            if signal == Signal::TERM {
                writeln!(log, "stopped").unwrap();
                return 0;
            }
            reap().unwrap();
        }
    }
}

/// Takes what this test needs of a new config. With this file there, it is an agent that cannot.
fn apply() -> u8 {
    if Path::new("/etc/old-agent").exists() {
        return io::stderr()
            .write_all(b"error: unrecognized subcommand 'apply'\n")
            .map_or(1, |()| 2);
    }
    let config: NodeConfig =
        serde_json::from_slice(&std::fs::read(paths::CONFIG).unwrap()).unwrap();
    for file in config.files {
        if let FileKind::Regular(content) = file.kind {
            std::fs::write(file.path, content.0).unwrap();
        }
    }
    0
}

/// Takes this much memory, says so, and keeps it.
fn hold(mebibytes: usize) -> u8 {
    let held = vec![1u8; mebibytes << 20];
    io::stdout().write_all(b"listening\n").unwrap();
    sleep(3600) + std::hint::black_box(held)[0]
}

/// Says what the node is, and with `follow` stays until nobody listens.
fn status(follow: bool) -> u8 {
    let config: NodeConfig =
        serde_json::from_slice(&std::fs::read(paths::CONFIG).unwrap()).unwrap();
    let status = NodeStatus {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        config: config.digest(),
        phase: NodePhase::Usable,
        uptime: 1,
        units: Vec::new(),
        warnings: Vec::new(),
        problems: Vec::new(),
        usage: Some(Usage { memory: memory_in_use(), cpu: None, tasks: None }),
    };
    let line = serde_json::to_string(&status).unwrap() + "\n";
    io::stdout().write_all(line.as_bytes()).unwrap();
    if follow { sleep(3600) } else { 0 }
}

fn memory_in_use() -> Option<u64> {
    Hierarchy::detect().ok()?.root().memory_in_use().ok()?
}
