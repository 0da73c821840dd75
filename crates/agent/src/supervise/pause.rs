//! A moment in which nothing of the node changes, so that its data can be copied.
//!
//! ```text
//! client --pause--> [stop all but it] --> lasts --+--> thaw, or the client is gone    all go on
//!                          |                      +--> its time is up                 all go on, and the client is told by the end
//!                          +--> one that cannot be stopped in time: all go on         of its connection
//! ```
//!
//! Processes are stopped by signal, which neither they nor those who wait for them notice: a stopped child is not an ended one. The clock
//! of the units stands still, no process is started and none is taken for ended meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use bivouac_sys::process::{PidFd, Signal, is_still, is_stopped, wait_readable};

use super::Supervisor;
use super::sweep::{in_reach, parent};
use crate::clock;
use crate::machine::Event;
use crate::protocol::Reply;

/// No pause lasts longer.
const LONGEST: Duration = Duration::from_secs(30);
/// How long processes may take to stop: one that writes to a slow disk cannot before it has written.
const SETTLE: Duration = Duration::from_secs(5);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(1);

/// A pause that lasts.
#[derive(Debug)]
pub(super) struct Pause {
    client: u64,
    began: Instant,
    deadline: Instant,
    /// What happened meanwhile and has to wait.
    postponed: Vec<Event>,
    _stopped: Stopped,
}

impl Pause {
    pub(super) const fn began(&self) -> Instant {
        self.began
    }

    /// How long it may still last.
    pub(super) fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    pub(super) fn postpone(&mut self, events: Vec<Event>) {
        self.postponed.extend(events);
    }
}

impl Supervisor {
    /// Stops everything but the client and those who wait for it.
    pub(super) fn pause(&mut self, client: u64, patience: Duration) -> Reply {
        if self.publisher.stops {
            let problem = Problem::failed("agent.pause.stopping", "the node is being stopped");
            return Reply::Problem(problem);
        }
        if self.pause.is_some() {
            let problem = Problem::failed("agent.pause.taken", "the node is paused already");
            return Reply::Problem(problem.help("wait until the other copy of its data is made"));
        }
        let spared = self.publisher.server.process_of(client).map_or_else(BTreeSet::new, lineage);
        let began = Instant::now();
        self.tools.processes.close_gate();
        match Stopped::all_but(&spared) {
            Ok(stopped) => {
                let deadline = Instant::now() + patience.min(LONGEST);
                let (postponed, count) = (Vec::new(), stopped.0.len());
                self.pause = Some(Pause { client, began, deadline, postponed, _stopped: stopped });
                Reply::Paused(u32::try_from(count).unwrap_or(u32::MAX))
            }
            Err(problem) => {
                self.tools.processes.open_gate();
                Reply::Problem(problem)
            }
        }
    }

    /// Ends the pause of this client.
    pub(super) fn thaw_for(&mut self, client: u64) -> Reply {
        if self.pause.as_ref().is_some_and(|pause| pause.client == client) {
            self.thaw("its data is copied");
            return Reply::Done(true);
        }
        Reply::Problem(Problem::failed("agent.pause.over", "the node is not paused"))
    }

    /// Ends a pause that nobody wants any more, or whose time is up.
    pub(super) fn look_after_pause(&mut self) {
        let Some(pause) = &self.pause else { return };
        if !self.publisher.server.has(pause.client) {
            self.thaw("who asked for it is gone");
        } else if pause.left().is_zero() {
            // The end of the connection tells that the copy is of no use.
            self.publisher.server.dismiss(pause.client);
            self.thaw("its time is up");
        }
    }

    /// Lets everything go on, and does what has waited.
    pub(super) fn thaw(&mut self, why: &str) {
        let Some(Pause { began, postponed, _stopped: stopped, .. }) = self.pause.take() else {
            return;
        };
        drop(stopped);
        let lasted = began.elapsed();
        self.started += lasted;
        self.tools.processes.open_gate();
        self.logs.note(&format!("was paused for {}: {why}", clock::render(lasted)));
        postponed.into_iter().for_each(|event| self.handle(event));
        self.reap();
    }
}

/// The process and those that started it, from each to the next.
fn lineage(process: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = Some(process);
    while let Some(pid) = next.filter(|pid| *pid != 0) {
        next = if found.insert(pid) { parent(pid) } else { None };
    }
    found
}

/// Processes that go on when this is dropped.
#[derive(Debug, Default)]
struct Stopped(Vec<PidFd>);

impl Stopped {
    /// Stops all processes in reach. Those that were stopped before are left alone, and stay so.
    fn all_but(spared: &BTreeSet<u32>) -> Result<Self, Problem> {
        let (mut stopped, mut known) = (Self::default(), BTreeSet::new());
        let deadline = Instant::now() + SETTLE;
        loop {
            let mut is_new = false;
            for pid in in_reach() {
                if !spared.contains(&pid) && known.insert(pid) {
                    stopped.stop(pid).map_err(|error| unstoppable(pid).because(&error))?;
                    is_new = true;
                }
            }
            let restless = known.iter().find(|pid| !is_still(**pid).unwrap_or(false));
            match restless {
                None if !is_new => return Ok(stopped),
                Some(pid) if Instant::now() >= deadline => return Err(unstoppable(*pid)),
                // A probe: nobody tells when all threads of somebody else's child have stopped.
                Some(_) => _ = wait_readable(&[], Some(LOOK)),
                None => {}
            }
        }
    }

    fn stop(&mut self, pid: u32) -> bivouac_sys::Result<()> {
        let process = match PidFd::open(pid) {
            Err(error) if error.is_absent() => return Ok(()),
            other => other?,
        };
        if !is_stopped(pid)? {
            process.send_signal(Signal::STOP)?;
            self.0.push(process);
        }
        Ok(())
    }
}

impl Drop for Stopped {
    /// Children before their parents: a shell that looks at its jobs finds none of them stopped.
    fn drop(&mut self) {
        for process in self.0.iter().rev() {
            let _ = process.send_signal(Signal::CONT);
        }
    }
}

fn unstoppable(pid: u32) -> Problem {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let text =
        format!("process {pid} ({}) does not stop within {}", name.trim(), clock::render(SETTLE));
    Problem::failed("agent.pause.unstoppable", text)
        .help("look what it waits for (a disk or a file server that does not answer?), and run the same command again")
}
