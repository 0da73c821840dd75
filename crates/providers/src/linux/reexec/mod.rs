//! What runs in a process of its own with a single thread: everything that makes or enters namespaces.
//!
//! The command starts its own binary again with `__linux ORDER REPORTS`, two descriptor numbers, and [`dispatch`] runs the order
//! before any thread exists. Answers are lines of JSON; nothing is printed.

mod boot;
mod device;
mod exec;
mod file;
mod link;
mod root;
mod survey;
mod survey_host;
mod update;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::process::{ExitCode, ExitStatus};

use bivouac_spec::Problem;
use bivouac_sys::process::PidFd;

use super::order::{Answer, Order, Report, VERB};
use super::problem::{OrProblem as _, failed};

/// Runs the order that this process was started for, if it was: `None` means that it is an ordinary invocation. Call it with
/// all arguments, the program's name included, before anything that starts a thread.
pub fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != VERB {
        return None;
    }
    let mut number = || arguments.next()?.to_str()?.parse::<u32>().ok();
    let (Some(order), Some(reports)) = (number(), number()) else { return Some(ExitCode::from(2)) };
    let Ok(reports) = File::options().write(true).open(format!("/proc/self/fd/{reports}")) else {
        return Some(ExitCode::from(2));
    };
    let mut reports = Reports(reports);
    let code = read(order).and_then(|order| run(order, &mut reports));
    Some(ExitCode::from(code.unwrap_or_else(|problem| {
        // If nobody listens any more, nobody can be told.
        let _ = reports.send(&Err(problem));
        1
    })))
}

fn read(order: u32) -> Result<Order, Problem> {
    // Neither descriptor may be seen by any program that this process starts.
    bivouac_sys::process::close_on_exec_beyond_stdio()
        .or_problem("order", "descriptors cannot be kept from nodes")?;
    let text = std::fs::read(format!("/proc/self/fd/{order}"))
        .or_problem("order", "the order of this process cannot be read")?;
    serde_json::from_slice(&text).or_problem("order", "the order of this process makes no sense")
}

fn run(order: Order, reports: &mut Reports) -> Result<u8, Problem> {
    match order {
        Order::Boot(boot) => {
            boot::boot(&boot)?;
            reports.answer(Answer::Running)
        }
        Order::Update(order) => {
            update::update(&order)?;
            reports.answer(Answer::Updated)
        }
        Order::Exec(exec) => exec::exec(&exec, reports),
        Order::Put(order) => {
            file::put(&order)?;
            reports.answer(Answer::Written)
        }
        Order::Get(order) => file::get(&order, reports),
        Order::Survey(state) => reports.answer(Answer::Surveyed(Box::new(survey::survey(&state)?))),
    }
}

/// Where answers go.
#[derive(Debug)]
struct Reports(File);

impl Reports {
    fn send(&mut self, report: &Report) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }

    /// Sends the answer; the process then ends with 0.
    fn answer(&mut self, answer: Answer) -> Result<u8, Problem> {
        self.send(&Ok(answer)).map(|()| 0).or_problem("report", "nobody listens")
    }
}

/// Runs `child` in a forked process up to the point where it executes another program, and returns its pid then. What the
/// child says in place of that comes back as the error.
fn fork_until_exec(child: impl FnOnce() -> Problem) -> Result<u32, Problem> {
    use std::io::Read as _;
    let (mut reader, mut writer) = std::io::pipe().or_problem("fork", "no pipe can be made")?;
    let pid = bivouac_sys::process::fork_child(|| {
        let problem = child();
        // The end of the pipe in this process closes when a program is executed; only a failure is written to it.
        let _ = writer.write_all(&serde_json::to_vec(&problem).unwrap_or_default());
        127
    })
    .or_problem("fork", "no process can be made")?;
    drop(writer);
    let mut text = Vec::new();
    reader.read_to_end(&mut text).or_problem("fork", "the new process cannot be listened to")?;
    if text.is_empty() {
        return Ok(pid);
    }
    // Reaped here: it may be in a node's pid namespace, which cannot end before its last zombie is gone, and the host's init
    // that would inherit it may take its time.
    reap(pid)?;
    Err(serde_json::from_slice(&text)
        .unwrap_or_else(|_| failed("fork", "the new process ended before it could run anything")))
}

/// Waits until a child has ended, and how.
fn reap(pid: u32) -> Result<ExitStatus, Problem> {
    let message = format!("process {pid} cannot be waited for");
    let ended = PidFd::open(pid).and_then(|child| child.wait(None));
    ended.or_problem("wait", &message)?;
    let reaped = bivouac_sys::process::reap().or_problem("wait", &message)?;
    let status = reaped.into_iter().find(|(reaped, _)| *reaped == pid).map(|(_, status)| status);
    status.ok_or_else(|| failed("wait", &message))
}

/// What a program in a node finds in its environment.
fn environment() -> [(&'static str, &'static str); 3] {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    [("PATH", path), ("HOME", "/root"), ("container", "bivouac")]
}
