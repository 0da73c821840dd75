//! The life of a node: apply the config, then one loop that owns all state. It sleeps in one place, until a signal, an answer
//! from the pool, a client or a deadline comes.

mod config;
mod inbox;
mod pause;
mod publish;
mod requests;
mod server;
mod service;
mod sweep;
mod units;
mod usage;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bivouac_spec::Problem;
use bivouac_sys::process::{Signal, SignalFd, set_child_subreaper};
use rustix::event::epoll;

use config::Changes;
use inbox::Inbox;
use pause::Pause;
use publish::Publisher;
use units::Companion;

use crate::config::{Refused, open_config};
use crate::logs::Logs;
use crate::machine::{Event, Machine, UnitId};
use crate::options::RunOptions;
use crate::pool::Pool;
use crate::probe::Tools;
use crate::processes::describe;

/// What the agent reacts to, and what would otherwise end it without need.
const SIGNALS: [Signal; 9] = [
    Signal::CHILD,
    Signal::TERM,
    Signal::INT,
    Signal::QUIT,
    Signal::POWER,
    Signal::HUP,
    Signal::USR1,
    Signal::USR2,
    Signal::ALARM,
];

/// Tokens in the poll set.
mod token {
    pub(super) const SIGNALS: u64 = 0;
    pub(super) const INBOX: u64 = 1;
    pub(super) const LISTENER: u64 = 2;
    pub(super) const FIRST_CLIENT: u64 = 3;
}

/// Runs a node until it is told to stop. Call it before the process has any other thread.
///
/// A config that cannot be applied does not end it: the status says what is wrong, for as long as somebody may ask.
#[must_use]
pub fn run(options: &RunOptions) -> ExitCode {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Before any thread is started: each inherits the blocked signals, and one that did not would take them.
    let signals = SignalFd::open(&SIGNALS);
    let logs = match Logs::open(&options.places.logs) {
        Ok(logs) => Arc::new(logs),
        Err(error) => {
            let message = format!("cannot open the logs in {}", options.places.logs);
            return give_up(&Problem::failed("agent.start", message).because(&error));
        }
    };
    let supervisor = signals
        .map_err(|error| Problem::failed("agent.start", "cannot take signals").because(&error))
        .and_then(|signals| Supervisor::open(options, Arc::clone(&logs), signals));
    match supervisor {
        Ok(supervisor) => supervisor.live(),
        Err(problem) => {
            logs.note(&render(&problem));
            give_up(&problem)
        }
    }
}

/// Says on standard error, which is the node's console, why the agent ends: nobody can ask it any more.
fn give_up(problem: &Problem) -> ExitCode {
    let _ = writeln!(io::stderr(), "bivouac agent: {}", render(problem));
    ExitCode::FAILURE
}

fn render(problem: &Problem) -> String {
    let causes = problem.causes.iter().map(|cause| format!(": {cause}"));
    format!("{} ({}){}", problem.message, problem.code, causes.collect::<String>())
}

struct Supervisor {
    started: Instant,
    options: RunOptions,
    machine: Machine,
    /// What goes with each unit of the machine.
    companions: BTreeMap<UnitId, Companion>,
    running: HashMap<u32, UnitId>,
    changes: Changes,
    logs: Arc<Logs>,
    tools: Tools,
    pool: Pool,
    inbox: Inbox,
    signals: SignalFd,
    poll: std::os::fd::OwnedFd,
    publisher: Publisher,
    /// While it lasts, only clients are served: everything else waits for its end.
    pause: Option<Pause>,
    stopped: bool,
}

impl Supervisor {
    fn open(options: &RunOptions, logs: Arc<Logs>, signals: SignalFd) -> Result<Self, Problem> {
        let started = Instant::now();
        let failed = |what: &str, error: &dyn std::error::Error| {
            Problem::failed("agent.start", format!("cannot {what}")).because(error)
        };
        if std::process::id() != 1 {
            set_child_subreaper().map_err(|error| failed("adopt orphans", &error))?;
        }
        let (config, identity, problems) = match open_config(&options.config) {
            Ok((config, identity)) => (Some(config), identity, Vec::new()),
            Err(Refused { identity, problems }) => (None, identity, problems),
        };
        let socket = &options.places.socket;
        let server = server::Server::open(socket, token::FIRST_CLIENT)
            .map_err(|error| failed(&format!("listen at {socket}"), &error))?;
        let poll = open_poll().map_err(|error| failed("wait for events", &error))?;
        let inbox = Inbox::open().map_err(|error| failed("wait for events", &error))?;
        let watch = || -> io::Result<()> {
            let watched = epoll::EventFlags::IN;
            epoll::add(&poll, &signals, epoll::EventData::new_u64(token::SIGNALS), watched)?;
            epoll::add(&poll, inbox.waker(), epoll::EventData::new_u64(token::INBOX), watched)?;
            epoll::add(
                &poll,
                server.listener(),
                epoll::EventData::new_u64(token::LISTENER),
                watched,
            )?;
            Ok(())
        };
        watch().map_err(|error| failed("wait for events", &error))?;
        let mut publisher = Publisher::new(identity, server);
        publisher.problems = problems;
        let config = config.unwrap_or_else(|| publisher.empty_config());
        let tools = Tools { places: options.places.clone(), ..Tools::default() };
        let (machine, effects) = Machine::new(&config);
        let mut supervisor = Self {
            started,
            options: options.clone(),
            machine,
            companions: BTreeMap::new(),
            running: HashMap::new(),
            changes: Changes::default(),
            logs,
            tools,
            pool: Pool::default(),
            inbox,
            signals,
            poll,
            publisher,
            pause: None,
            stopped: false,
        };
        supervisor.perform_all(effects);
        supervisor.begin(&config);
        Ok(supervisor)
    }

    fn live(mut self) -> ExitCode {
        if self.publisher.problems.is_empty() {
            self.handle(Event::Begin);
        }
        let mut events = Vec::with_capacity(16);
        while !self.stopped {
            self.publish();
            let now = self.now();
            let deadlines = self.machine.deadline().into_iter().chain(self.publisher.deadline());
            let left = match &self.pause {
                Some(pause) => Some(pause.left()),
                None => deadlines.min().map(|deadline| deadline.saturating_sub(now)),
            };
            let timeout = left.map(|left| rustix::event::Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            });
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.poll, spare, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    let problem = Problem::failed("agent.lost", "cannot wait for events");
                    let problem = problem.because(&error);
                    self.logs.note(&render(&problem));
                    return give_up(&problem);
                }
            }
            for event in &events {
                self.react(event.data.u64(), event.flags);
            }
            self.look_after_pause();
            let now = self.now();
            if self.pause.is_none()
                && self.machine.deadline().is_some_and(|deadline| deadline <= now)
            {
                self.handle(Event::Tick);
            }
        }
        self.publisher.publish_now(&self.machine, self.now(), &self.poll);
        self.logs.note("everything is stopped");
        sweep::end_everything(&self.tools.processes, &self.signals);
        self.logs.drain();
        let _ = std::fs::remove_file(&self.options.places.socket);
        if !self.options.shares_kernel {
            // A machine goes off after this. Elsewhere the host keeps what was written, and waiting for its disks costs seconds.
            rustix::fs::sync();
        }
        ExitCode::SUCCESS
    }

    /// The clock of the node's units, which stands still while they do.
    fn now(&self) -> Duration {
        let now = self.pause.as_ref().map_or_else(Instant::now, Pause::began);
        now.saturating_duration_since(self.started)
    }

    fn publish(&mut self) {
        let now = self.now();
        self.publisher.publish(&self.machine, now, &self.poll);
    }

    fn react(&mut self, token: u64, flags: epoll::EventFlags) {
        match token {
            token::SIGNALS => self.take_signals(),
            token::INBOX => {
                let events = self.inbox.take();
                match &mut self.pause {
                    Some(pause) => pause.postpone(events),
                    None => events.into_iter().for_each(|event| self.handle(event)),
                }
            }
            token::LISTENER => self.publisher.server.accept(&self.poll),
            client => self.serve(client, flags),
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read() {
            match signal {
                // During a pause none is taken for ended, so that nothing is started.
                Signal::CHILD => {}
                Signal::TERM | Signal::INT | Signal::QUIT | Signal::POWER => self.stop(),
                _ => {}
            }
        }
        if self.pause.is_none() {
            self.reap();
        }
    }

    fn reap(&mut self) {
        for (pid, status) in self.tools.processes.reap() {
            if let Some(unit) = self.running.remove(&pid) {
                self.end(unit, describe(status));
            }
        }
    }

    fn stop(&mut self) {
        self.thaw("the node is being stopped");
        self.logs.note("stopping");
        self.publisher.stops = true;
        self.handle(Event::Stop);
    }
}

fn open_poll() -> io::Result<std::os::fd::OwnedFd> {
    Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
}
