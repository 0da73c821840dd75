//! Kernel parameters by dotted name, such as `net.ipv4.ip_forward`.
//!
//! As with sysctl(8), a name part that holds a dot itself is written with `/` and `.` exchanged:
//! `net/ipv4/conf/eth0.1/forwarding` or `net.ipv4.conf.eth0/1.forwarding`.

use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::error::Context;
use crate::{Error, Result};

/// What setting a parameter did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It had the value already.
    Unchanged,
    /// It has it now.
    Changed,
}

/// The value, without the final newline.
pub fn read(name: &str) -> Result<String> {
    let path = path(name)?;
    Ok(fs::read_to_string(&path).at("read", path.display())?.trim_end().to_owned())
}

/// Sets the value.
pub fn write(name: &str, value: &str) -> Result<()> {
    let path = path(name)?;
    fs::write(&path, value).at("write", format_args!("{value} to {}", path.display()))
}

/// Sets the value unless it is so already; different white space between words is the same value.
pub fn ensure(name: &str, value: &str) -> Result<Outcome> {
    if read(name)?.split_whitespace().eq(value.split_whitespace()) {
        return Ok(Outcome::Unchanged);
    }
    write(name, value).map(|()| Outcome::Changed)
}

fn uses_slashes(name: &str) -> bool {
    name.find(['.', '/']).is_some_and(|at| name.as_bytes()[at] == b'/')
}

/// Where a parameter is below `/proc/sys`.
pub fn path(name: &str) -> Result<PathBuf> {
    let relative: String = if uses_slashes(name) {
        name.to_owned()
    } else {
        name.chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect()
    };
    let relative = Path::new(&relative);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    if !plain || relative.as_os_str().is_empty() {
        return Err(Error::invalid(
            "find",
            format_args!("kernel parameter `{name}`"),
            "not a name",
        ));
    }
    Ok(Path::new("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::isolated;

    #[test]
    fn sets_once() {
        isolated(|| {
            let name = "net.ipv4.ip_local_port_range";
            assert_eq!(ensure(name, "20000 50000").unwrap(), Outcome::Changed);
            assert_eq!(ensure(name, "20000\t50000").unwrap(), Outcome::Unchanged);
            assert_eq!(read(name).unwrap(), "20000\t50000");
            assert!(read("net.ipv4.absent").unwrap_err().is_absent());
        });
    }

    #[test]
    fn names_become_paths_below_proc_sys() {
        assert_eq!(
            path("net.ipv4.conf.eth0/1.x").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.1/x")
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.1/x").unwrap(),
            Path::new("/proc/sys/net/ipv4/conf/eth0.1/x")
        );
        for name in ["", "/etc/passwd", "kernel/../../x", "kernel/../x", "kernel.//.x"] {
            assert!(path(name).is_err(), "{name}");
        }
    }
}
