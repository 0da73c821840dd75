//! The life of a node: apply the config, then one loop that owns all state. It sleeps in one place, until a signal, an answer
//! from the pool, a client or a deadline comes.

mod inbox;
mod publish;
mod server;
mod service;
mod sweep;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bivouac_spec::node::{Probe, Service};
use bivouac_spec::{NodeConfig, Problem};
use bivouac_sys::process::{PidFd, Signal, SignalFd, set_child_subreaper};
use rustix::event::epoll;

use inbox::Inbox;
use publish::Publisher;

use crate::apply::{Applied, ensure_applied};
use crate::config::{Refused, open_config};
use crate::ground::ensure_furnished;
use crate::logs::{Log, Logs};
use crate::machine::{Answer, Effect, Event, Machine, UnitId};
use crate::options::RunOptions;
use crate::pool::Pool;
use crate::probe::{Tools, ask};
use crate::processes::describe;
use crate::protocol::{Reply, Request};
use crate::task::Work;

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
        Ok(supervisor) => supervisor.live(options),
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

/// How a unit is asked.
enum Question {
    Probe(Arc<Probe>),
    Task(Work),
}

struct Supervisor {
    started: Instant,
    machine: Machine,
    services: Vec<Service>,
    /// By unit; absent for a service without a probe.
    questions: Vec<Option<Question>>,
    logs: Arc<Logs>,
    service_logs: Vec<Option<Arc<Log>>>,
    running: HashMap<u32, UnitId>,
    tools: Tools,
    pool: Pool,
    inbox: Inbox,
    signals: SignalFd,
    poll: std::os::fd::OwnedFd,
    publisher: Publisher,
    warned: BTreeSet<UnitId>,
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
        let mut supervisor = Self {
            started,
            machine: Machine::new(&config),
            services: config.services.clone(),
            questions: Vec::new(),
            logs,
            service_logs: Vec::new(),
            running: HashMap::new(),
            tools,
            pool: Pool::default(),
            inbox,
            signals,
            poll,
            publisher,
            warned: BTreeSet::new(),
            stopped: false,
        };
        supervisor.prepare_units(&config);
        supervisor.apply(&config, options);
        Ok(supervisor)
    }

    fn prepare_units(&mut self, config: &NodeConfig) {
        for service in &config.services {
            let question = service.ready.clone().map(|probe| Question::Probe(Arc::new(probe)));
            self.questions.push(question);
            let log = self.logs.open_log(&service.name);
            self.service_logs.push(log.ok());
        }
        for task in &config.tasks {
            let is_command = matches!(task.run, bivouac_spec::node::Run::Command(_));
            let log =
                is_command.then(|| self.logs.open_log(&task.name.replace('/', "_")).ok()).flatten();
            let work = Work { run: task.run.clone(), done: Arc::default(), log };
            self.questions.push(Some(Question::Task(work)));
        }
        for condition in &config.conditions {
            let probe = Arc::new(condition.probe.clone());
            self.questions.push(Some(Question::Probe(probe)));
        }
    }

    fn apply(&mut self, config: &NodeConfig, options: &RunOptions) {
        if self.publisher.problems.is_empty() {
            let mut furnished = Applied::default();
            self.publisher.problems = ensure_furnished(options, &mut furnished);
            if !furnished.changes.is_empty() {
                self.logs.note(&format!("furnished the node: {}", furnished.changes.join(", ")));
            }
            self.publisher.warnings.extend(furnished.warnings);
        }
        if self.publisher.problems.is_empty() {
            if std::process::id() == 1
                && let Err(error) = bivouac_sys::cgroup::delegate_inside("/sys/fs/cgroup")
            {
                let text = format!("{error}: {}", error.cause());
                self.publisher.warnings.push(text);
            }
            match ensure_applied(config, options) {
                Ok(applied) => {
                    self.logs
                        .note(&format!("applied the config, {} changes", applied.changes.len()));
                    self.publisher.warnings.extend(applied.warnings);
                }
                Err(error) => self.publisher.problems.push(error.into()),
            }
        }
        for warning in &self.publisher.warnings {
            self.logs.note(&format!("warning: {warning}"));
        }
        for problem in &self.publisher.problems {
            self.logs.note(&render(problem));
        }
    }

    fn live(mut self, options: &RunOptions) -> ExitCode {
        if self.publisher.problems.is_empty() {
            self.handle(Event::Begin);
        }
        let mut events = Vec::with_capacity(16);
        while !self.stopped {
            self.publish();
            let now = self.now();
            let deadline =
                self.machine.deadline().into_iter().chain(self.publisher.deadline()).min();
            let timeout = deadline.map(|deadline| {
                let left = deadline.saturating_sub(now);
                rustix::event::Timespec {
                    tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(left.subsec_nanos()),
                }
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
            let now = self.now();
            if self.machine.deadline().is_some_and(|deadline| deadline <= now) {
                self.handle(Event::Tick);
            }
        }
        self.publisher.publish_now(&self.machine, self.now(), &self.poll);
        self.logs.note("everything is stopped");
        sweep::end_everything(&self.tools.processes, &self.signals);
        self.logs.drain();
        let _ = std::fs::remove_file(&options.places.socket);
        rustix::fs::sync();
        ExitCode::SUCCESS
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn publish(&mut self) {
        let now = self.now();
        self.publisher.publish(&self.machine, now, &self.poll);
    }

    fn react(&mut self, token: u64, flags: epoll::EventFlags) {
        match token {
            token::SIGNALS => self.take_signals(),
            token::INBOX => {
                for event in self.inbox.take() {
                    self.handle(event);
                }
            }
            token::LISTENER => self.publisher.server.accept(&self.poll),
            client => self.serve(client, flags),
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read() {
            match signal {
                Signal::CHILD => {}
                Signal::TERM | Signal::INT | Signal::QUIT | Signal::POWER => self.stop(),
                _ => {}
            }
        }
        for (pid, status) in self.tools.processes.reap() {
            if let Some(unit) = self.running.remove(&pid) {
                let last_line = self.service_logs[unit].as_ref().and_then(|log| log.last_line());
                self.end(unit, describe(status), last_line);
            }
        }
    }

    fn stop(&mut self) {
        self.logs.note("stopping");
        self.publisher.stops = true;
        self.handle(Event::Stop);
    }

    fn end(&mut self, unit: UnitId, how: String, last_line: Option<String>) {
        self.logs.note(&format!("{}: {how}", self.services[unit].name));
        self.handle(Event::Ended { unit, how, last_line });
    }

    fn serve(&mut self, client: u64, flags: epoll::EventFlags) {
        if flags.contains(epoll::EventFlags::OUT) {
            self.publisher.flush(client, &self.poll);
        }
        for request in self.publisher.server.read(client) {
            let stops = matches!(request, Ok(Request::Stop {}));
            let reply = match request {
                Ok(Request::Status { follow }) => {
                    let now = self.now();
                    self.publisher.answer(client, follow, &self.machine, now, &self.poll);
                    continue;
                }
                Ok(Request::Restart { service }) => self.restart(&service),
                Ok(Request::Stop {}) => Reply::Done(true),
                Err(problem) => Reply::Problem(problem),
            };
            self.publisher.reply(client, &reply, &self.poll);
            if stops {
                self.stop();
            }
        }
    }

    fn restart(&mut self, service: &str) -> Reply {
        let Some(unit) = self.machine.service(service) else {
            let text = format!("there is no service `{service}`");
            let names: Vec<_> = self.services.iter().map(|service| service.name.as_str()).collect();
            let help = format!("name one of: {}", names.join(", "));
            return Reply::Problem(Problem::usage("agent.no_service", text).help(help));
        };
        self.logs.note(&format!("{service}: asked to start anew"));
        self.handle(Event::Restart(unit));
        Reply::Done(true)
    }

    /// Gives the event to the machine and does what it decides, until nothing is left to do.
    fn handle(&mut self, event: Event) {
        let mut pending = VecDeque::from([event]);
        while let Some(event) = pending.pop_front() {
            let now = self.now();
            for effect in self.machine.handle(now, event) {
                pending.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Start(unit) => return Some(self.start(unit)),
            Effect::Signal(unit, signal) => {
                let running = self.running.iter().find(|(_, of)| **of == unit);
                if let Some(process) = running.and_then(|(pid, _)| PidFd::open(*pid).ok()) {
                    let _ = process.send_signal(service::kernel_signal(signal));
                }
            }
            Effect::Ask { unit, round } => self.ask(unit, round),
            Effect::Finished => self.stopped = true,
        }
        None
    }

    fn start(&mut self, unit: UnitId) -> Event {
        let service = &self.services[unit];
        let log = self.service_logs[unit].as_ref();
        match service::start(service, log, &self.tools.processes) {
            Ok(pid) => {
                self.logs.note(&format!("{}: started as process {pid}", service.name));
                if self.warned.insert(unit) {
                    self.publisher.warnings.extend(service::shortfalls(service, pid));
                }
                self.running.insert(pid, unit);
                Event::Started { unit, pid }
            }
            Err(how) => {
                self.logs.note(&format!("{}: {how}", service.name));
                Event::Ended { unit, how, last_line: None }
            }
        }
    }

    fn ask(&self, unit: UnitId, round: u32) {
        let (tools, sender) = (self.tools.clone(), self.inbox.sender());
        match &self.questions[unit] {
            None => sender.send(Event::Answered { unit, round, answer: Answer::Yes }),
            Some(Question::Probe(probe)) => {
                let probe = Arc::clone(probe);
                self.pool.run(move || {
                    let answer = ask(&probe, &tools).map_or_else(Answer::not_yet, |()| Answer::Yes);
                    sender.send(Event::Answered { unit, round, answer });
                });
            }
            Some(Question::Task(work)) => {
                let work = work.clone();
                self.pool.run(move || {
                    let note = |detail| sender.send(Event::Noted { unit, round, detail });
                    let answer = work.attempt(&tools, &note);
                    sender.send(Event::Answered { unit, round, answer });
                });
            }
        }
    }
}

fn open_poll() -> io::Result<std::os::fd::OwnedFd> {
    Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
}
