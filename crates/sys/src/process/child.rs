//! What is set up in a child between fork and exec.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use rustix::process::Signal;

use super::Limit;

/// Properties of a child before its program runs. Applied by [`ChildSetup::apply`] to a command.
#[derive(Debug, Default)]
pub struct ChildSetup {
    /// Make it the leader of a new session, and so of a process group.
    pub session: bool,
    /// The signal it gets when the thread that started it dies.
    pub parent_death_signal: Option<Signal>,
    /// Resource limits, lowered to what is permitted.
    pub limits: Vec<Limit>,
    /// Out-of-memory score adjustment, left alone where it is not permitted.
    pub oom_score_adj: Option<i32>,
    /// Cgroups that it joins before it runs anything (`Cgroup::join_files`).
    pub cgroup: Vec<File>,
}

impl ChildSetup {
    /// Arranges all of it for the command, and that the child starts with no signal blocked.
    #[expect(unsafe_code, reason = "code between fork and exec")]
    pub fn apply(self, command: &mut Command) {
        let score = self.oom_score_adj.map(|score| score.to_string());
        let set_up = move || -> std::io::Result<()> {
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
            for file in &self.cgroup {
                // 0 is the writer itself.
                rustix::io::write(file, b"0")?;
            }
            if self.session {
                rustix::process::setsid()?;
            }
            if let Some(signal) = self.parent_death_signal {
                rustix::process::set_parent_process_death_signal(Some(signal))?;
            }
            for limit in &self.limits {
                limit.apply(None)?;
            }
            if let Some(score) = &score {
                write_score(score.as_bytes());
            }
            Ok(())
        };
        // SAFETY: the closure only makes system calls: it allocates nothing, takes no lock and cannot panic, so it may
        // run in the child of a multithreaded process.
        unsafe { command.pre_exec(set_up) };
    }
}

fn write_score(score: &[u8]) {
    use rustix::fs::{Mode, OFlags, open};
    let opened = open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
    if let Ok(file) = opened {
        // Refused without CAP_SYS_RESOURCE: the service runs as well with the score that it inherits.
        let _ = rustix::io::write(file, score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Resource;

    #[test]
    fn the_child_is_as_asked() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "ulimit -n; cat /proc/self/oom_score_adj; cut -d' ' -f6 /proc/$$/stat; echo $$",
        ]);
        let limit = Limit { resource: Resource::Nofile, soft: Some(77), hard: Some(99) };
        ChildSetup {
            session: true,
            limits: vec![limit],
            oom_score_adj: Some(300),
            parent_death_signal: Some(Signal::KILL),
            ..ChildSetup::default()
        }
        .apply(&mut command);
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[..2], ["77", "300"]);
        assert_eq!(lines[2], lines[3], "leads its own session");
    }
}
