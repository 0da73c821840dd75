//! The mount table, as `/proc/PID/mountinfo` tells it (proc(5)).

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::Context;
use crate::{Error, Result};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount.
    pub id: u32,
    /// Number of the mount that it lies on.
    pub parent: u32,
    /// The part of its file system that is the root of this mount: not `/` for bind mounts and cgroup namespaces.
    pub root: PathBuf,
    /// Where it is mounted, as seen from the process's root.
    pub target: PathBuf,
    /// Options of the mount, such as `rw,nosuid`.
    pub options: String,
    /// Mounts below it spread to its peers.
    pub shared: bool,
    /// The file system, such as `overlay`.
    pub kind: String,
    /// What is mounted, such as a device.
    pub source: String,
    /// Options of the file system.
    pub super_options: String,
}

/// Mounts of the calling thread's mount namespace, in the order in which they were made.
pub fn mounts() -> Result<Vec<Mount>> {
    read("/proc/thread-self/mountinfo")
}

/// Mounts that a process sees.
pub fn mounts_of(pid: u32) -> Result<Vec<Mount>> {
    read(&format!("/proc/{pid}/mountinfo"))
}

/// Mounts of the caller at this path or below it.
pub fn mounts_below(path: impl AsRef<Path>) -> Result<Vec<Mount>> {
    let path = path.as_ref();
    Ok(mounts()?.into_iter().filter(|mount| mount.target.starts_with(path)).collect())
}

fn read(path: &str) -> Result<Vec<Mount>> {
    let text = fs::read(path).at("read", path)?;
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                Error::invalid("read", path, format!("unexpected line `{line}`"))
            })
        })
        .collect()
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let text = |bytes: &[u8]| String::from_utf8_lossy(&unescape(bytes)).into_owned();
    let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(unescape(bytes)));
    let id = text(fields.next()?).parse().ok()?;
    let parent = text(fields.next()?).parse().ok()?;
    let _device = fields.next()?;
    let (root, target) = (path(fields.next()?), path(fields.next()?));
    let options = text(fields.next()?);
    let mut shared = false;
    for optional in fields.by_ref().take_while(|field| *field != b"-") {
        shared |= optional.starts_with(b"shared:");
    }
    let kind = text(fields.next()?);
    let source = text(fields.next()?);
    let super_options = text(fields.next().unwrap_or_default());
    Some(Mount { id, parent, root, target, options, shared, kind, source, super_options })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let octal = tail.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            _ => bytes.push(*first),
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_optional_fields_and_escapes() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402\134 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let mount = parse(line).unwrap();
        assert_eq!((mount.id, mount.parent, mount.shared), (36, 35, true));
        assert_eq!(mount.target, Path::new(r"/mnt 2\"));
        assert_eq!((mount.kind.as_str(), mount.source.as_str()), ("ext3", "/dev/root"));
        assert_eq!(mount.super_options, "rw,errors=continue");
        assert!(parse(b"36 35 98:0 /").is_none());
    }

    #[test]
    fn the_own_table_has_a_root() {
        assert!(mounts().unwrap().iter().any(|mount| mount.target == Path::new("/")));
        assert!(!mounts_of(std::process::id()).unwrap().is_empty());
    }
}
