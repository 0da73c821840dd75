//! Kernel parameters. What belongs to the whole kernel is never changed on a kernel that is shared: a file with the wanted
//! value is mounted over it, so that the node's programs find what they want and the host stays as it is.

use std::fs;

use bivouac_spec::node::Sysctl;
use bivouac_spec::node::config::SysctlScope;
use bivouac_sys::sysctl::{self, Outcome};
use bivouac_sys::{Result, mount};
use camino::Utf8Path;

use super::Applied;
use crate::options::RunOptions;

/// Brings the parameter about. A failure is a warning: a kernel without the parameter works without it.
pub(super) fn ensure_sysctl(sysctl: &Sysctl, options: &RunOptions, applied: &mut Applied) {
    let masked = sysctl.scope == SysctlScope::Kernel && options.shares_kernel;
    let done = if masked {
        ensure_masked(sysctl, &options.places.runtime)
    } else {
        sysctl::ensure(&sysctl.name, &sysctl.value)
    };
    match done {
        Ok(Outcome::Unchanged) => {}
        Ok(Outcome::Changed) => applied.changes.push(format!("sysctl {}", sysctl.name)),
        Err(error) => {
            let (name, value) = (&sysctl.name, &sysctl.value);
            let why = error.cause();
            applied
                .warnings
                .push(format!("kernel parameter {name} is not {value}: {error}: {why}"));
        }
    }
}

fn ensure_masked(sysctl: &Sysctl, runtime: &Utf8Path) -> Result<Outcome> {
    let is_so = || -> Result<bool> {
        let present = sysctl::read(&sysctl.name)?;
        Ok(present.split_whitespace().eq(sysctl.value.split_whitespace()))
    };
    if is_so()? {
        return Ok(Outcome::Unchanged);
    }
    let path = sysctl::path(&sysctl.name)?;
    let file = runtime.join("sysctl").join(sysctl.name.replace('/', "_"));
    // Its failure shows when it is mounted.
    let _ = fs::create_dir_all(runtime.join("sysctl"))
        .and_then(|()| fs::write(&file, format!("{}\n", sysctl.value)));
    // The file may be mounted there already, with another value.
    if is_so()? {
        return Ok(Outcome::Changed);
    }
    mount::bind(&file, path).map(|()| Outcome::Changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;

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
        let [warning] = applied.warnings.as_slice() else { panic!("{:?}", applied.warnings) };
        let text = "kernel parameter kernel.no_such_thing is not 1: read /proc/sys/kernel/no_such_thing failed";
        assert!(warning.starts_with(text), "{warning}");
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
            let another = Sysctl { value: "77".into(), ..sysctl };
            ensure_sysctl(&another, &options, &mut applied);
            assert_eq!(fs::read_to_string(path).unwrap(), "77\n");
            bivouac_sys::mount::detach(path).unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), before);
        })
        .join()
        .unwrap();
    }
}
