//! `cargo xtask vm`: end-to-end tests in a guest of its own, with Debian's kernel and control groups version 2.
//!
//! QEMU emulates the machine, so any host will do, and it takes its time. The guest is Debian with systemd, as users have it.
//!
//! ```text
//! here                                        in the guest
//! root.img   Debian, made once by mmdebstrap  /                  what is written is thrown away
//! store.img  the node images                  /var/lib/bivouac   the same
//! share/     programs and what to run (9p)    /share  <-- `xtask guest`, a service: runs it, writes `code`, switches off
//! console    <-- virtio console --            what it prints
//! ```

mod disk;
mod guest;
mod machine;
mod payload;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use guest::serve;

/// The case that is none of the end-to-end tests: `bivouac service install`, and a restart of the machine.
const SERVICE: &str = "service";
/// What runs when nothing is named: what control groups and systemd make a difference to, of what an emulated machine brings to an end.
const CASES: [&str; 5] = [
    SERVICE,
    "linux/nothing_left/",
    "linux/greedy/",
    "linux/change/stop_and_start",
    "linux/incus/instances_on_all_members",
];
const MINUTES: u64 = 120;
/// How many times slower than a machine an emulated one may be.
const PATIENCE: &str = "10";

pub(crate) const USAGE: &str = "\
  vm         run end-to-end tests in a guest with Debian's kernel, emulated by QEMU:
             vm [--minutes N] [--memory MIB] [--cpus N] [CASE...] | vm [OPTION...] -- COMMAND...
             the case `service` is `bivouac service install` and a restart of the guest
             $BIVOUAC is the binary, $BIVOUAC_STORE the store with its node images, $BIVOUAC_VM_DIR where disks are kept
";

/// What was asked for.
struct Options {
    limit: Duration,
    memory: u32,
    cpus: u32,
    cases: Vec<String>,
    /// In place of cases.
    command: Vec<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            limit: Duration::from_secs(MINUTES * 60),
            memory: 4096,
            cpus: 2,
            cases: Vec::new(),
            command: Vec::new(),
        };
        while let Some(word) = words.next() {
            let mut number = |what: &str| -> Result<u32, String> {
                let value = words.next().and_then(|value| value.parse().ok());
                value.ok_or_else(|| format!("{word} wants a number of {what}"))
            };
            match word.as_str() {
                "--minutes" => {
                    options.limit = Duration::from_secs(u64::from(number("minutes")?) * 60);
                }
                "--memory" => options.memory = number("MiB")?,
                "--cpus" => options.cpus = number("processors")?,
                "--" => options.command = words.by_ref().collect(),
                option if option.starts_with('-') => {
                    return Err(format!("{option} is no option\n{USAGE}"));
                }
                _ => options.cases.push(word),
            }
        }
        if options.cases.is_empty() {
            options.cases = CASES.map(str::to_owned).into();
        }
        Ok(options)
    }

    fn restarts(&self) -> bool {
        self.command.is_empty() && self.cases.iter().any(|case| case == SERVICE)
    }
}

/// Makes what is missing, boots the guest, and fails when what runs in it fails.
pub(crate) fn run(words: impl Iterator<Item = String>) -> Result<(), String> {
    let options = Options::parse(words)?;
    let folder = std::env::var_os("BIVOUAC_VM_DIR").map_or_else(default_folder, PathBuf::from);
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let binary = payload::binary()?;
    let guest = disk::ensure_guest(&folder)?;
    let store = disk::ensure_store(&folder, &binary)?;
    let share = payload::fill(&folder, &binary, &options)?;
    let restarts = options.restarts();
    let Options { memory, cpus, limit, .. } = options;
    machine::run(&machine::Machine { guest, store, share, memory, cpus, restarts }, limit)
}

fn default_folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    target.map_or_else(|| crate::root().join("target"), PathBuf::from).join("vm")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn cases_or_a_command() {
        let options = parse("--minutes 3 --cpus 1 linux/load/").unwrap();
        assert_eq!(options.cpus, 1);
        assert_eq!(options.limit, Duration::from_secs(180));
        assert_eq!(options.cases, ["linux/load/"]);
        assert!(!options.restarts());
        assert_eq!(parse("").unwrap().cases, CASES);
        assert!(parse("").unwrap().restarts() && !parse("-- ls").unwrap().restarts());
        assert_eq!(parse("-- ls -l").unwrap().command, ["ls", "-l"]);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(parse("--minutes soon").is_err());
        assert!(parse("--fast").is_err());
    }
}
