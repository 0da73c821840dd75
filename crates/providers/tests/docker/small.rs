//! A `dockerd` on a disk of a size of the test's choice. It touches no packet filter, and ends with the value.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use bivouac_e2e::{
    Mounted, Run, SOON, end_daemon, new_daemon_folder, say, wait_until, without_ways,
};

/// The engine, and its disk.
pub(crate) struct SmallEngine {
    child: Option<Child>,
    folder: PathBuf,
    _disk: Mounted,
}

impl SmallEngine {
    /// Starts one with so many MiB.
    pub(crate) fn start(size: u32) -> Self {
        let folder = new_daemon_folder();
        let disk = Mounted::new(folder.join("data"), size);
        let socket = folder.join("docker.sock");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "dockerd", "--bridge=none", "--iptables=false"]);
        command.args(["--ip-forward=false", "--host"]).arg(format!("unix://{}", socket.display()));
        for (option, name) in
            [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "pid")]
        {
            command.arg(option).arg(folder.join(name));
        }
        let log = folder.join("log");
        let errors = File::create(&log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().unwrap();
        let mut own = Self { child: Some(child), folder, _disk: disk };
        wait_until("the small dockerd answers", SOON, || {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            let is_there =
                own.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)));
            assert!(is_there, "the small dockerd ended:\n{}", said());
            let asked = own.docker(["version"]).outcome();
            if asked.code == 0 { Ok(()) } else { Err(format!("{asked}\n{}", said())) }
        });
        own
    }

    /// The value of `$DOCKER_HOST` for it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.folder.display())
    }

    /// The `docker` command with these arguments.
    pub(crate) fn docker<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Run {
        without_ways(Run::new("docker")).env("DOCKER_HOST", self.host()).args(arguments)
    }

    /// Removes what outlives the daemon, such as the bridges of networks. Volumes go with the disk.
    fn clear(&self) {
        let lists: [(&[&str], &[&str]); 2] = [
            (&["ps", "--all", "--quiet"], &["rm", "--force", "--volumes"]),
            (&["network", "ls", "--quiet", "--filter=type=custom"], &["network", "rm"]),
        ];
        for (list, remove) in lists {
            let listed = self.docker(list.iter().copied()).success().stdout();
            for id in listed.lines() {
                let _ = self.docker(remove.iter().copied().chain([id])).success();
            }
        }
    }

    /// Gives its disk another size.
    pub(crate) fn resize(&self, size: u32) {
        let options = format!("remount,size={size}m");
        let _ = Run::new("mount").args(["-o", &options]).args([self.folder.join("data")]).success();
    }

    /// Leaves no room on its disk, until what is given goes.
    pub(crate) fn fill(&self) -> Filling {
        let path = self.folder.join("data/filling");
        // Ends when the disk is full, with an error.
        let of = format!("of={}", path.display());
        let _ = Run::new("dd").args(["if=/dev/zero", &of, "bs=64k"]).outcome();
        Filling(path)
    }
}

impl Drop for SmallEngine {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let failing = std::thread::panicking();
        // One that has ended answers nobody.
        let is_there = matches!(child.try_wait(), Ok(None));
        let cleared = catch_unwind(AssertUnwindSafe(|| is_there.then(|| self.clear())));
        let ended = catch_unwind(AssertUnwindSafe(|| end_daemon(child, &self.folder)));
        if cleared.and(ended).is_err() {
            let message = format!("something of the small dockerd of {} stays", self.host());
            assert!(failing, "{message}");
            say(&message);
        }
    }
}

/// What takes all room.
pub(crate) struct Filling(PathBuf);

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
