//! Devices that programs of a node look for and that an engine may have left out. Never an error: most nodes need none of them.

use std::fs;

use bivouac_sys::mount::{Device, make_device};
use camino::Utf8Path;

use super::sentence;
use crate::apply::Applied;
use crate::options::Places;

/// The numbers of the kernel's messages: every kernel has them.
const MESSAGES: (&str, u32, u32) = ("kmsg", 1, 11);

/// Devices whose minor number and presence `/proc/misc` tells, by their name there.
const MISC: [(&str, &str); 2] = [("tun", "net/tun"), ("fuse", "fuse")];

/// The major number of those.
const MISC_MAJOR: u32 = 10;

/// Makes the devices that are missing and that this kernel has.
pub(super) fn ensure(places: &Places, applied: &mut Applied) {
    let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
    let (name, major, minor) = MESSAGES;
    ensure_device(places, name, Device::character(major, minor), applied);
    for (kernel_name, name) in MISC {
        if let Some(minor) = minor_of(&misc, kernel_name) {
            ensure_device(places, name, Device::character(MISC_MAJOR, minor), applied);
        }
    }
}

fn ensure_device(places: &Places, name: &str, device: Device, applied: &mut Applied) {
    let path = places.inside(&Utf8Path::new("/dev").join(name));
    if path.exists() {
        return;
    }
    if let Some(parent) = path.parent() {
        // Its failure shows when the device is made.
        let _ = fs::create_dir_all(parent);
    }
    match make_device(&path, device, 0o666) {
        Ok(()) => applied.changes.push(format!("device /dev/{name}")),
        Err(error) => applied.warnings.push(sentence(&error)),
    }
}

fn minor_of(misc: &str, name: &str) -> Option<u32> {
    misc.lines().find_map(|line| {
        let (minor, found) = line.trim().split_once(' ')?;
        (found == name).then(|| minor.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use camino::Utf8PathBuf;
    use std::os::unix::fs::FileTypeExt;

    #[test]
    fn what_the_kernel_has_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8PathBuf::from_path_buf(directory.path().to_owned()).unwrap();
        let places = Places { root: root.clone(), ..Places::default() };
        let mut applied = Applied::default();
        ensure(&places, &mut applied);
        assert!(applied.changes.contains(&"device /dev/kmsg".to_owned()), "{applied:?}");
        let kind = fs::metadata(root.join("dev/kmsg")).unwrap().file_type();
        assert!(kind.is_char_device());
        let mut again = Applied::default();
        ensure(&places, &mut again);
        assert_eq!(again, Applied::default());
    }

    #[test]
    fn the_kernel_says_what_it_has() {
        let misc = "183 hw_random\n200 tun\n  1 psaux\n";
        assert_eq!(minor_of(misc, "tun"), Some(200));
        assert_eq!(minor_of(misc, "psaux"), Some(1));
        assert_eq!(minor_of(misc, "fuse"), None);
    }
}
