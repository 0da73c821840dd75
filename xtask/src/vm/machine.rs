//! QEMU: the machine, for as long as it may run.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use super::disk::Guest;

/// A guest and what it is given.
pub(super) struct Machine {
    pub(super) guest: Guest,
    pub(super) store: PathBuf,
    pub(super) share: PathBuf,
    /// In MiB.
    pub(super) memory: u32,
    pub(super) cpus: u32,
    /// Whether it comes back when it restarts; otherwise, as when its kernel gives up, that is its end.
    pub(super) restarts: bool,
}

/// The kernel's messages and systemd's go to the first serial port, which is a file; what is run has a console of its own.
const COMMAND_LINE: &str = "root=/dev/vda rw rootflags=noinit_itable console=ttyS0 panic=-1 quiet fsck.mode=skip systemd.getty_auto=no \
                            systemd.wants=bivouac-tests.service systemd.mask=apt-daily.timer systemd.mask=apt-daily-upgrade.timer \
                            systemd.mask=dpkg-db-backup.timer systemd.mask=e2scrub_all.timer systemd.mask=fstrim.timer \
                            mitigations=off nowatchdog";

impl Machine {
    fn command(&self) -> Command {
        let Guest { disk, kernel, initrd } = &self.guest;
        let drive = |path: &PathBuf| {
            format!("file={},format=raw,if=virtio,snapshot=on,cache=unsafe", path.display())
        };
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        command.args(["-smp", &self.cpus.to_string()]);
        command.args(["-m", &self.memory.to_string(), "-nodefaults", "-display", "none"]);
        command.args((!self.restarts).then_some("-no-reboot"));
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        command.args(["-append", COMMAND_LINE]);
        command.args(["-drive", &drive(disk), "-drive", &drive(&self.store)]);
        let share = self.share.display();
        command
            .args(["-virtfs", &format!("local,path={share},mount_tag=share,security_model=none")]);
        command.args(["-nic", "user,model=virtio,restrict=on"]);
        command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial"]);
        command.args([
            "-chardev",
            "stdio,id=words,signal=off",
            "-device",
            "virtconsole,chardev=words",
        ]);
        command.args(["-serial", &format!("file:{}", self.boot_log().display())]);
        // Throw-away files of disks.
        command.env("TMPDIR", self.share.parent().unwrap_or(&self.share));
        command
    }

    fn boot_log(&self) -> PathBuf {
        self.share.with_file_name("boot.log")
    }
}

/// Runs the guest until it switches itself off. Its exit code is that of what ran in it.
pub(super) fn run(machine: &Machine, limit: Duration) -> Result<(), String> {
    let mut command = machine.command();
    let mut child = command
        .stdin(Stdio::inherit())
        .spawn()
        .map_err(|error| format!("qemu-system-x86_64 (package qemu-system-x86): {error}"))?;
    let pid = child.id();
    let (ended, end) = channel::<()>();
    // Killed by its number, which stays its own until it is waited for.
    let guard = thread::spawn(move || {
        let timed_out = end
            .recv_timeout(limit)
            .is_err_and(|error| matches!(error, std::sync::mpsc::RecvTimeoutError::Timeout));
        if timed_out {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        timed_out
    });
    let status = child.wait().map_err(|error| format!("qemu-system-x86_64: {error}"));
    drop(ended);
    let log = machine.boot_log();
    if guard.join().unwrap_or_default() {
        let minutes = limit.as_secs() / 60;
        return Err(format!(
            "the guest was switched off after {minutes} minutes; its kernel: {}",
            log.display()
        ));
    }
    let status = status?;
    match fs::read_to_string(machine.share.join("code")).as_deref().map(str::trim) {
        Ok("0") => Ok(()),
        Ok(code) => Err(format!("what ran in the guest ended with {code}")),
        Err(_) => {
            Err(format!("the guest ended without a word ({status}); its kernel: {}", log.display()))
        }
    }
}
