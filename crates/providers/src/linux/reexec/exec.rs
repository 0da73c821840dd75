//! Running a command in a node.
//!
//! This process stays outside of the node's pid namespace and waits for its child inside: it passes the exit code on, and ends
//! the command when the one who asked for it is gone.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use bivouac_spec::Problem;
use bivouac_sys::cgroup::{Cgroup, Version};
use bivouac_sys::namespace::{Namespace, enter};
use bivouac_sys::process::{self, PidFd, Signal, SignalFd};

use super::super::group;
use super::super::order::{Answer, Exec};
use super::super::problem::{OrProblem as _, failed};
use super::{Reports, environment, fork_until_exec, reap};

/// What a command has of the node beside its pid namespace.
const REST: [Namespace; 5] =
    [Namespace::Mount, Namespace::Network, Namespace::Uts, Namespace::Ipc, Namespace::Cgroup];

/// Runs the command; the exit code is the command's, or 128 + N when signal N ended it.
pub(super) fn exec(exec: &Exec, reports: &mut Reports) -> Result<u8, Problem> {
    let node = exec.node.open()?;
    // Opened before the mount namespace, in which the groups look different, is entered.
    let groups = open_groups(exec)?;
    // Ctrl-C is for the command, which is in the same process group: this process outlives it to tell how it ended.
    let signals = exec.inherited.then(|| {
        SignalFd::open(&[Signal::INT, Signal::QUIT, Signal::TTOU])
            .or_problem("signals", "signals cannot be blocked")
    });
    let _signals = signals.transpose()?;
    let terminal = exec.inherited && process::has_terminal();
    // Only children go into a pid namespace, and the rest is theirs to enter: this process still needs the host's `/proc`.
    enter(&node, &[Namespace::Pid]).or_problem("enter", cannot_enter(exec))?;
    let pid = fork_until_exec(|| become_command(exec, &node, groups))?;
    reports.answer(Answer::Started)?;
    let status = wait(exec, pid, reports)?;
    if terminal {
        // An interactive shell leaves it to itself, and is gone.
        process::retake_terminal();
    }
    Ok(code(status))
}

/// Returns only when it fails.
fn become_command(exec: &Exec, node: &PidFd, groups: Vec<File>) -> Problem {
    let prepared = groups
        .into_iter()
        // 0 is the writer itself.
        .try_for_each(|mut group| group.write_all(b"0"))
        .or_problem("cgroup", "the node's control group cannot be entered")
        .and_then(|()| enter(node, &REST).or_problem("enter", cannot_enter(exec)))
        .and_then(|()| {
            process::unblock_signals().or_problem("signals", "signals cannot be unblocked")
        });
    if let Err(problem) = prepared {
        return problem;
    }
    let Some((program, arguments)) = exec.command.split_first() else {
        return Problem::usage("provider.linux.no_command", "no command was given");
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment());
    if exec.inherited {
        command.envs(std::env::var_os("TERM").map(|term| ("TERM", term)));
    }
    command.envs(&exec.environment).current_dir("/");
    if !exec.inherited {
        // So that it can be ended with all that it started. One that shares a terminal must stay in the foreground group.
        command.process_group(0);
    }
    if exec.no_input {
        command.stdin(std::process::Stdio::null());
    }
    let error = command.exec();
    failed("exec", format_args!("`{program}` cannot be run in node {}", exec.node.node))
        .because(&error)
}

/// The `cgroup.procs` files of the group that commands join, so that they are ended together with the node.
fn open_groups(exec: &Exec) -> Result<Vec<File>, Problem> {
    let found = group::find(&exec.node.folder, &exec.node.cluster, &exec.node.node)?;
    let Some(group) = found else { return Ok(Vec::new()) };
    place_for_processes(&group).join_files().or_problem(
        "cgroup",
        format_args!("the control group of node {} cannot be entered", exec.node.node),
    )
}

/// On version 2 a group with children has no processes itself: the agent keeps those of the node in `init`.
fn place_for_processes(group: &Cgroup) -> Cgroup {
    let init = group.below("init");
    if group.version() == Version::V2 && init.exists() { init } else { group.clone() }
}

/// Waits until the command ends. When the other end of the reports closes, nobody wants it any more.
fn wait(exec: &Exec, pid: u32, reports: &Reports) -> Result<ExitStatus, Problem> {
    let child = PidFd::open(pid).or_problem("wait", "the command cannot be waited for")?;
    let ready = process::wait_readable(&[child.as_fd(), reports.0.as_fd()], None)
        .or_problem("wait", "the command cannot be waited for")?;
    if !ready[0] {
        let killed = if exec.inherited {
            child.send_signal(Signal::KILL)
        } else {
            process::signal_group(pid, Signal::KILL)
        };
        killed.or_problem("kill", "the command cannot be ended")?;
    }
    reap(pid)
}

fn cannot_enter(exec: &Exec) -> String {
    format!("node {} of cluster {} cannot be entered", exec.node.node, exec.node.cluster)
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).unwrap_or(255)
}
