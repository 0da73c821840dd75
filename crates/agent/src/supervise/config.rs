//! Making the node equal to a config: when the agent starts, and when the running node takes another one.
//!
//! ```text
//! config file --open, check--> refused: the node goes on as it was
//!      |
//!      +--> the status shows the new digest --> ground, mounts, files --> [machine]: what units become
//!                                                     |
//!                                                     +--> failed: units stay as they are, the status and the answer say why
//! ```
//!
//! All of it happens between two rounds of the loop. Meanwhile the status says `applying`, and shows the units as they were.

use bivouac_spec::cluster::Resources;
use bivouac_spec::node::{Ground, Mount};
use bivouac_spec::{NodeConfig, Problem};
use camino::Utf8PathBuf;

use super::{Supervisor, render};
use crate::apply::{Applied, ensure_applied, leftovers};
use crate::config::{Identity, Refused, open_config};
use crate::ground::{ensure_room, ensure_shown, ensure_surroundings, open_ground};

/// What was done for the configs up to now and still matters.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Files that changed since units were last told.
    touched: Vec<Utf8PathBuf>,
    /// Mounts of configs before that may still be there.
    mounts: Vec<Mount>,
    /// Of what is done once.
    lasting: Vec<String>,
    /// Of what is done for each config.
    warnings: Vec<String>,
    /// The limits that the node was shown.
    shown: Resources,
    has_room: bool,
    has_delegated: bool,
}

impl Supervisor {
    /// Applies the first config, unless there is none that can be applied.
    pub(super) fn begin(&mut self, config: &NodeConfig) {
        if self.publisher.problems.is_empty() {
            match open_ground(&self.options.ground) {
                Ok(ground) => self.bring_about(config, ground.as_ref()),
                Err(problem) => self.publisher.problems.push(problem),
            }
        }
        // No unit has read a file before.
        self.changes.touched.clear();
        self.note_troubles();
    }

    /// Reads the config again and makes the node equal to it.
    ///
    /// # Errors
    /// The config cannot be used, and nothing was changed; or what it asks for cannot all be made, and units stay as they are. The
    /// status says of the latter that the node failed, and whoever brought the config must know too, or it is not brought again.
    pub(super) fn take_config(&mut self) -> Result<(), Problem> {
        if self.publisher.stops {
            return Err(Problem::failed("agent.apply.stopping", "the node is being stopped"));
        }
        let (config, identity) = open_config(&self.options.config).map_err(one_problem)?;
        self.check_identity(&identity)?;
        let ground = open_ground(&self.options.ground)?;
        self.logs.note(&format!("takes the config {}", identity.config));
        self.publisher.begin(identity);
        let now = self.now();
        self.publisher.publish_now(&self.machine, now, &self.poll);
        self.bring_about(&config, ground.as_ref());
        self.publisher.applies = false;
        if self.publisher.problems.is_empty() {
            let touched = std::mem::take(&mut self.changes.touched);
            if !touched.is_empty() {
                // Certificates and keys among them may be what connections were made with.
                self.tools.clients.forget();
            }
            let now = self.now();
            let effects = self.machine.update(now, &config, &touched);
            self.perform_all(effects);
        }
        self.show_warnings();
        self.note_troubles();
        self.publisher.problems.first().cloned().map_or(Ok(()), Err)
    }

    /// A node never becomes another one.
    fn check_identity(&self, new: &Identity) -> Result<(), Problem> {
        let present = &self.publisher.identity;
        let is_known = !present.config.is_empty();
        if is_known && (&present.cluster, &present.node) != (&new.cluster, &new.node) {
            let message = format!(
                "the config is of node {} of cluster {}, and this is node {} of cluster {}",
                new.node, new.cluster, present.node, present.cluster
            );
            return Err(Problem::failed("agent.apply.identity", message));
        }
        Ok(())
    }

    /// Everything but the units. What goes wrong is in the publisher's problems.
    fn bring_about(&mut self, config: &NodeConfig, ground: Option<&Ground>) {
        self.changes.warnings.clear();
        if let Some(ground) = ground {
            self.furnish(ground);
        }
        if self.publisher.problems.is_empty() {
            self.delegate();
            let mut applied = Applied::default();
            let done = ensure_applied(config, &self.options, &mut applied);
            self.publisher.problems.extend(done.err().map(Problem::from));
            self.logs.note(&format!("applied the config, {} changes", applied.changes.len()));
            self.keep(applied);
            self.compare_mounts(config);
        }
        self.show_warnings();
    }

    fn furnish(&mut self, ground: &Ground) {
        let mut room = Applied::default();
        let mut problems = Vec::new();
        if !self.changes.has_room {
            problems = ensure_room(&self.options, &mut room);
            self.changes.has_room = problems.is_empty();
            self.changes.lasting = room.warnings;
        }
        let mut around = Applied::default();
        problems.extend(ensure_surroundings(ground, &self.options, &mut around));
        ensure_shown(ground, &mut self.changes.shown, &mut around);
        let changes = [room.changes, around.changes.clone()].concat();
        if !changes.is_empty() {
            self.logs.note(&format!("furnished the node: {}", changes.join(", ")));
        }
        self.keep(around);
        self.publisher.problems = problems;
    }

    fn keep(&mut self, applied: Applied) {
        self.changes.warnings.extend(applied.warnings);
        self.changes.touched.extend(applied.touched);
    }

    fn delegate(&mut self) {
        if std::process::id() != 1 || std::mem::replace(&mut self.changes.has_delegated, true) {
            return;
        }
        if let Err(error) = bivouac_sys::cgroup::delegate_inside("/sys/fs/cgroup") {
            self.changes.lasting.push(format!("{error}: {}", error.cause()));
        }
    }

    fn compare_mounts(&mut self, config: &NodeConfig) {
        let left = leftovers(&self.changes.mounts, &config.mounts, &self.options.places);
        self.changes.mounts = config.mounts.clone();
        for (mount, sentence) in left {
            self.changes.mounts.push(mount);
            self.changes.warnings.push(sentence);
        }
    }

    /// Puts all warnings into the status.
    pub(super) fn show_warnings(&mut self) {
        let shortfalls = self.companions.values().flat_map(|companion| &companion.shortfalls);
        let Changes { lasting, warnings, .. } = &self.changes;
        self.publisher.warnings =
            lasting.iter().chain(warnings).chain(shortfalls).cloned().collect();
    }

    fn note_troubles(&self) {
        for warning in self.changes.lasting.iter().chain(&self.changes.warnings) {
            self.logs.note(&format!("warning: {warning}"));
        }
        for problem in &self.publisher.problems {
            self.logs.note(&render(problem));
        }
    }
}

/// Everything that is wrong with a config, for a client that takes one answer.
fn one_problem(refused: Refused) -> Problem {
    let mut problems = refused.problems;
    if problems.len() == 1
        && let Some(problem) = problems.pop()
    {
        return problem;
    }
    let message = format!("the node config has {} faults", problems.len());
    let mut all = Problem::failed("agent.config.units", message);
    all.causes = problems.into_iter().map(|problem| problem.message).collect();
    all
}
