//! What only a process with a single thread may do: forking, pid namespaces, pivot_root. Without the test harness, which
//! runs tests in threads; a failed assertion ends the program with an error.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use bivouac_sys::mount::{self, Attributes, Filesystem, Propagation};
use bivouac_sys::namespace::{self, Namespace};
use bivouac_sys::process::{
    self, PidFd, Signal, SignalFd, detach, fork_child, reap, set_child_subreaper, wait_readable,
};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(120));

fn main() {
    exit_codes_and_panics();
    an_orphan_comes_to_the_subreaper();
    process_one_of_a_new_root();
}

fn end_of(pid: u32) -> ExitStatus {
    let process = PidFd::open(pid).expect("an unreaped child is there");
    assert_eq!(process.wait(PATIENCE).expect("poll"), process::Wait::Exited);
    let reaped = reap().expect("reap");
    reaped.into_iter().find(|(one, _)| *one == pid).expect("the child is reaped").1
}

fn exit_codes_and_panics() {
    assert_eq!(end_of(fork_child(|| 7).expect("fork")).code(), Some(7));
    let panics = fork_child(|| {
        std::panic::set_hook(Box::new(|_| {}));
        panic!("on purpose")
    });
    assert_eq!(end_of(panics.expect("fork")).code(), Some(101));
    let killed = fork_child(|| {
        PidFd::open(std::process::id())
            .and_then(|own| own.send_signal(Signal::KILL))
            .map_or(1, |()| 0)
    });
    assert_eq!(end_of(killed.expect("fork")).signal(), Some(Signal::KILL.as_raw()));
    assert!(reap().expect("nothing left").is_empty());
}

fn an_orphan_comes_to_the_subreaper() {
    set_child_subreaper().expect("prctl");
    let signals = SignalFd::open(&[Signal::CHILD]).expect("signalfd");
    let parent = fork_child(|| {
        // Its own child outlives it.
        fork_child(|| detach(None).map_or(1, |()| 42)).map_or(1, |_| 0)
    });
    let parent = parent.expect("fork");
    let mut ends = Vec::new();
    while ends.len() < 2 {
        assert_eq!(wait_readable(&[signals.as_fd()], PATIENCE).expect("poll"), [true]);
        while signals.read().expect("read").is_some() {}
        ends.extend(reap().expect("reap"));
    }
    process::unblock_signals().expect("sigprocmask");
    let orphan = ends.iter().find(|(pid, _)| *pid != parent).expect("two processes ended");
    assert_eq!(orphan.1.code(), Some(42));
}

fn process_one_of_a_new_root() {
    let root = tempfile::tempdir().expect("a directory");
    let (mut ours, mut theirs) = UnixStream::pair().expect("a socket pair");
    let outside = root.path().to_owned();
    let node = fork_child(move || {
        namespace::unshare(&Namespace::NODE).expect("unshare");
        let init = fork_child(|| {
            enter_root(&outside);
            theirs.write_all(b"x").expect("tell");
            loop {
                std::thread::park();
            }
        });
        init.map_or(1, |pid| u8::from(PidFd::open(pid).and_then(|init| init.wait(None)).is_err()))
    });
    let node = node.expect("fork");
    std::io::Read::read_exact(&mut ours, &mut [0]).expect("the node is up");
    let children = fs::read_to_string(format!("/proc/{node}/task/{node}/children")).expect("proc");
    let init = PidFd::open(children.trim().parse().expect("one child")).expect("init");
    let entered = fork_child(|| {
        namespace::enter(&init, &Namespace::NODE).expect("setns");
        let name = fs::read_to_string("/proc/sys/kernel/hostname").expect("proc is mounted");
        u8::from(name.trim() != "node" || !Path::new("/marker").exists())
    });
    assert_eq!(end_of(entered.expect("fork")).code(), Some(0));
    init.send_signal(Signal::KILL).expect("signal");
    assert_eq!(end_of(node).code(), Some(0));
    assert_eq!(fs::read_dir(root.path()).expect("the host's view").count(), 0);
}

fn enter_root(root: &Path) {
    assert_eq!(std::process::id(), 1);
    mount::set_propagation("/", Propagation::Private, true).expect("propagation");
    let tmpfs = Filesystem::Tmpfs { size: Some(1 << 20), mode: 0o755 };
    mount::mount(&tmpfs, root, Attributes::default()).expect("tmpfs");
    fs::create_dir(root.join("proc")).expect("mkdir");
    fs::write(root.join("marker"), "").expect("write");
    mount::mount(&Filesystem::Proc, root.join("proc"), Attributes::INERT).expect("proc");
    mount::pivot_root(root).expect("pivot_root");
    namespace::set_hostname("node").expect("hostname");
    assert_eq!(mount::mounts().expect("mounts").len(), 2);
}
