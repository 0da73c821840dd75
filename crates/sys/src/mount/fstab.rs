//! Mounts as they are written in fstab(5).

use std::ffi::CString;
use std::path::Path;

use rustix::mount::MountFlags;

use super::{Propagation, onto, set_propagation};
use crate::error::Context;
use crate::{Error, Result};

/// Mounts `source` at the existing `target`: a bind mount for the kind `bind` or the options `bind` and `rbind`, any kind of
/// file system otherwise. Options that the kernel has flags for become flags, `shared`, `private` and `slave` (and with `r`
/// before them) are applied afterwards, all others are handed to the file system.
pub fn mount_fstab(
    source: impl AsRef<Path>,
    target: impl AsRef<Path>,
    kind: &str,
    options: &[String],
) -> Result<()> {
    let (source, target) = (source.as_ref(), target.as_ref());
    let wanted = parse(options);
    let object = onto(source, target);
    let recursive = options.iter().any(|option| option == "rbind");
    if kind == "bind" || recursive || options.iter().any(|option| option == "bind") {
        let mut flags = MountFlags::BIND;
        flags.set(MountFlags::REC, recursive);
        rustix::mount::mount(source, target, c"", flags, None).at("bind mount", &object)?;
        if !wanted.flags.is_empty() {
            // The kernel ignores all other flags when it binds.
            let flags = wanted.flags | MountFlags::BIND;
            rustix::mount::mount_remount(target, flags, c"").at("remount", target.display())?;
        }
    } else {
        let data = CString::new(wanted.data.join(","))
            .map_err(|_| Error::invalid("mount", &object, "an option holds a zero byte"))?;
        rustix::mount::mount(source, target, kind, wanted.flags, data.as_c_str())
            .at("mount", &object)?;
    }
    for (propagation, recursive) in wanted.propagation {
        set_propagation(target, propagation, recursive)?;
    }
    Ok(())
}

struct Wanted<'a> {
    flags: MountFlags,
    propagation: Vec<(Propagation, bool)>,
    data: Vec<&'a str>,
}

fn parse(options: &[String]) -> Wanted<'_> {
    let mut wanted =
        Wanted { flags: MountFlags::empty(), propagation: Vec::new(), data: Vec::new() };
    for option in options {
        let flag = match option.as_str() {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            "sync" => MountFlags::SYNCHRONOUS,
            "bind" | "rbind" | "defaults" | "rw" => MountFlags::empty(),
            "shared" | "rshared" => {
                wanted.propagation.push((Propagation::Shared, option.starts_with("rsh")));
                continue;
            }
            "private" | "rprivate" => {
                wanted.propagation.push((Propagation::Private, option.starts_with('r')));
                continue;
            }
            "slave" | "rslave" => {
                wanted.propagation.push((Propagation::Slave, option.starts_with('r')));
                continue;
            }
            data => {
                wanted.data.push(data);
                continue;
            }
        };
        wanted.flags |= flag;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::mounts_below;
    use crate::testing::isolated;
    use std::fs;

    #[test]
    fn options_become_flags_data_and_propagation() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        isolated(move || {
            let options = ["nosuid", "size=1m", "mode=0700", "rshared"].map(str::to_owned);
            mount_fstab("scratch", &root, "tmpfs", &options).unwrap();
            let [a, b] = ["a", "b"].map(|name| root.join(name));
            fs::create_dir(&a).unwrap();
            fs::create_dir(&b).unwrap();
            mount_fstab(&a, &b, "bind", &["ro".to_owned(), "private".to_owned()]).unwrap();
            assert!(fs::write(b.join("x"), "").is_err());
            fs::write(a.join("x"), "").unwrap();
            let table = mounts_below(&root).unwrap();
            assert_eq!(table[0].source, "scratch");
            assert!(table[0].shared && table[0].options.contains("nosuid"));
            assert!(!table[1].shared && table[1].options.starts_with("ro"));
        });
    }
}
