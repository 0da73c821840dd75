//! Kernel parameters. What belongs to the whole kernel is never changed on a kernel that is shared: a file with the wanted
//! value is mounted over it, so that the node's programs find what they want and the host stays as it is.

use std::fs;

use bivouac_spec::node::Sysctl;
use bivouac_spec::node::config::SysctlScope;
use camino::{Utf8Path, Utf8PathBuf};

use super::Applied;
use crate::options::RunOptions;
use crate::processes::reason;

/// Brings the parameter about. A failure is a warning: a kernel without the parameter works without it.
pub(super) fn ensure_sysctl(sysctl: &Sysctl, options: &RunOptions, applied: &mut Applied) {
    let path = path_of(&sysctl.name);
    let present = match fs::read_to_string(&path) {
        Ok(present) => present,
        Err(error) => {
            let text =
                format!("kernel parameter {} cannot be read: {}", sysctl.name, reason(&error));
            applied.warnings.push(text);
            return;
        }
    };
    if is_equal(&present, &sysctl.value) {
        return;
    }
    let masked = sysctl.scope == SysctlScope::Kernel && options.shares_kernel;
    let done = if masked {
        mask(&path, sysctl, &options.places.runtime)
    } else {
        fs::write(&path, &sysctl.value).map_err(|error| reason(&error))
    };
    match done {
        Ok(()) => applied.changes.push(format!("sysctl {}", sysctl.name)),
        Err(why) => {
            let (name, value) = (&sysctl.name, &sysctl.value);
            let present = present.trim();
            let text = format!("kernel parameter {name} stays {present} instead of {value}: {why}");
            applied.warnings.push(text);
        }
    }
}

fn mask(path: &Utf8Path, sysctl: &Sysctl, runtime: &Utf8Path) -> Result<(), String> {
    let directory = runtime.join("sysctl");
    let file = directory.join(&sysctl.name);
    fs::create_dir_all(&directory).map_err(|error| reason(&error))?;
    fs::write(&file, format!("{}\n", sysctl.value)).map_err(|error| reason(&error))?;
    bivouac_sys::mount::bind(&file, path).map_err(|error| format!("{error}: {}", error.cause()))
}

/// Dots separate, and a `/` stands for a dot within a name, as sysctl(8) has it.
fn path_of(name: &str) -> Utf8PathBuf {
    let swapped: String = name
        .chars()
        .map(|c| {
            if c == '.' {
                '/'
            } else if c == '/' {
                '.'
            } else {
                c
            }
        })
        .collect();
    Utf8PathBuf::from("/proc/sys").join(swapped)
}

fn is_equal(present: &str, wanted: &str) -> bool {
    present.split_whitespace().eq(wanted.split_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_paths_and_values_compare_by_words() {
        assert_eq!(
            path_of("net.ipv4.conf.eth0/1.rp_filter"),
            "/proc/sys/net/ipv4/conf/eth0.1/rp_filter"
        );
        assert!(is_equal("1024\t65535\n", "1024 65535"));
        assert!(!is_equal("1\n", "10"));
    }

    #[test]
    fn an_equal_value_is_left_alone_and_an_absent_parameter_is_a_warning() {
        let path = "/proc/sys/kernel/pid_max";
        let value = fs::read_to_string(path).unwrap().trim().to_owned();
        let mut applied = Applied::default();
        for (name, value) in [("kernel.pid_max", value.as_str()), ("kernel.no_such_thing", "1")] {
            let sysctl =
                Sysctl { name: name.into(), value: value.into(), scope: SysctlScope::Kernel };
            ensure_sysctl(&sysctl, &RunOptions::default(), &mut applied);
        }
        assert_eq!(applied.changes, Vec::<String>::new());
        assert_eq!(
            applied.warnings,
            ["kernel parameter kernel.no_such_thing cannot be read: it does not exist"]
        );
    }

    #[test]
    fn a_shared_kernel_is_only_masked() {
        std::thread::spawn(|| {
            use bivouac_sys::mount::{Propagation, set_propagation};
            use bivouac_sys::namespace::{Namespace, unshare};
            let path = "/proc/sys/kernel/panic";
            let before = fs::read_to_string(path).unwrap();
            let directory = tempfile::tempdir().unwrap();
            unshare(&[Namespace::Mount]).unwrap();
            set_propagation("/", Propagation::Private, true).unwrap();
            let mut options = RunOptions::default();
            options.places.runtime = Utf8PathBuf::from_path_buf(directory.path().into()).unwrap();
            let sysctl = Sysctl {
                name: "kernel.panic".into(),
                value: "1234".into(),
                scope: SysctlScope::Kernel,
            };
            let mut applied = Applied::default();
            ensure_sysctl(&sysctl, &options, &mut applied);
            ensure_sysctl(&sysctl, &options, &mut applied);
            assert_eq!(applied.changes, ["sysctl kernel.panic"]);
            assert_eq!(fs::read_to_string(path).unwrap(), "1234\n");
            bivouac_sys::mount::detach(path).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), before);
        })
        .join()
        .unwrap();
    }
}
