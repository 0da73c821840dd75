//! What the machine offers: version, controllers, and where the caller itself is.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Cgroup, Folder, files};
use crate::error::Context;
use crate::mount::{Mount, mounts};
use crate::{Error, Result};

/// Controllers without which nodes cannot be limited nor pods be run.
pub(super) const REQUIRED: [&str; 3] = ["cpu", "memory", "pids"];

/// The two interfaces of the kernel. A hybrid machine, with controllers on v1, is v1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// One tree a controller.
    V1,
    /// One tree for all.
    V2,
}

/// One mounted tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// Its controllers; on v1 also a name such as `name=systemd`, on v2 those that the visible root can give.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The folder of the caller's own group.
    pub own: PathBuf,
}

/// The trees that can be used, and the caller's place in each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    version: Version,
    mounted: Vec<Mounted>,
}

impl Hierarchy {
    pub(super) fn new(version: Version, mounted: Vec<Mounted>) -> Self {
        Self { version, mounted }
    }

    /// Finds what is usable: v2 if it is mounted and has cpu, memory and pids, else v1 with these, else an error that
    /// says what is missing.
    pub fn detect() -> Result<Self> {
        let path = "/proc/self/cgroup";
        let own = fs::read_to_string(path).at("read", path)?;
        Self::choose(&mounts()?, &own, |target| {
            let text = files::read(&target.join("cgroup.controllers")).unwrap_or_default();
            text.split_whitespace().map(str::to_owned).collect()
        })
    }

    fn choose(
        mounts: &[Mount],
        own: &str,
        controllers_of: impl Fn(&Path) -> Vec<String>,
    ) -> Result<Self> {
        let memberships = own.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        });
        let mut v1 = Vec::new();
        for (names, path) in memberships {
            let controllers: Vec<String> = if names.is_empty() {
                Vec::new()
            } else {
                names.split(',').map(str::to_owned).collect()
            };
            let Some((target, own)) = place(mounts, &controllers, Path::new(path)) else {
                continue;
            };
            if !controllers.is_empty() {
                v1.push(Mounted { controllers, target, own });
                continue;
            }
            let controllers = controllers_of(&target);
            if missing(std::slice::from_ref(&controllers)).is_empty() {
                return Ok(Self::new(Version::V2, vec![Mounted { controllers, target, own }]));
            }
        }
        let missing = missing(v1.iter().map(|mounted| &mounted.controllers));
        if missing.is_empty() {
            return Ok(Self::new(Version::V1, v1));
        }
        let text = format!("no cgroup controller {} is mounted", missing.join(", "));
        Err(Error::invalid("detect", "cgroups", text))
    }

    /// The version in use.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The mounted trees.
    pub fn mounted(&self) -> &[Mounted] {
        &self.mounted
    }

    /// All controllers, named hierarchies left out.
    pub fn controllers(&self) -> impl Iterator<Item = &str> {
        let all = self.mounted.iter().flat_map(|mounted| &mounted.controllers);
        all.map(String::as_str).filter(|name| !name.starts_with("name="))
    }

    /// The caller's own group.
    pub fn own(&self) -> Cgroup {
        self.group(|mounted| vec![mounted.own.clone()])
    }

    /// The topmost group that the caller sees.
    pub fn root(&self) -> Cgroup {
        self.group(|mounted| vec![mounted.target.clone()])
    }

    /// Finds the group at `relative` below whichever group: for one that was made by a caller in another group. Groups
    /// nested in one of that first name are not searched. Several with this path, such as those of
    /// containers, are one value, with all their folders: see [`Cgroup::retain`].
    pub fn find(&self, relative: impl AsRef<Path>) -> Result<Option<Cgroup>> {
        let relative = relative.as_ref();
        let mut failure = None;
        let group = self.group(|mounted| {
            let mut found = Vec::new();
            if let Err(error) = search(&mounted.target, relative, &mut found) {
                failure.get_or_insert(error);
            }
            found
        });
        match failure {
            Some(error) => Err(error),
            None => Ok(Some(group).filter(|group| group.folders().next().is_some())),
        }
    }

    /// The group with these folders, as [`Cgroup::folders`] gave them once; `None` if none of them is there now.
    pub fn recall(&self, folders: &[impl AsRef<Path>]) -> Option<Cgroup> {
        let group = self.group(|mounted| {
            let own = folders.iter().map(AsRef::as_ref);
            own.filter(|path| path.starts_with(&mounted.target) && path.is_dir())
                .map(Path::to_owned)
                .collect()
        });
        Some(group).filter(|group| group.folders().next().is_some())
    }

    fn group(&self, mut paths: impl FnMut(&Mounted) -> Vec<PathBuf>) -> Cgroup {
        let folders = self.mounted.iter().flat_map(|mounted| {
            let controllers = &mounted.controllers;
            let folder = |path| Folder { controllers: controllers.clone(), path };
            paths(mounted).into_iter().map(folder).collect::<Vec<_>>()
        });
        Cgroup { version: self.version, folders: folders.collect() }
    }
}

fn search(folder: &Path, relative: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let first = relative.iter().next();
    for child in files::subfolders(folder)? {
        if child.file_name() != first {
            search(&child, relative, found)?;
        } else if folder.join(relative).is_dir() {
            found.push(folder.join(relative));
        }
    }
    Ok(())
}

fn missing<'a>(controllers: impl IntoIterator<Item = &'a Vec<String>>) -> Vec<&'static str> {
    let present: Vec<&String> = controllers.into_iter().flatten().collect();
    REQUIRED.into_iter().filter(|name| !present.iter().any(|one| one == name)).collect()
}

/// Where the tree with these controllers (none: v2) is mounted, and the folder of the group at `path` in it.
fn place(mounts: &[Mount], controllers: &[String], path: &Path) -> Option<(PathBuf, PathBuf)> {
    let kind = if controllers.is_empty() { "cgroup2" } else { "cgroup" };
    let mut candidates = mounts
        .iter()
        .filter(|mount| mount.kind == kind)
        .filter(|mount| {
            let options: Vec<&str> = mount.super_options.split(',').collect();
            controllers.iter().all(|name| options.contains(&name.as_str()))
        })
        .filter_map(|mount| {
            // The root of the mount is not `/` where a container engine mounts only the container's part.
            let below = path.strip_prefix(&mount.root).ok()?;
            let outside = below.starts_with("..");
            (!outside).then(|| (mount.target.clone(), join(&mount.target, below)))
        })
        .collect::<Vec<_>>();
    let usual = candidates.iter().position(|(target, _)| target.starts_with("/sys/fs/cgroup"));
    (!candidates.is_empty()).then(|| candidates.swap_remove(usual.unwrap_or(0)))
}

/// Joins without a trailing slash where there is nothing to join.
fn join(target: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { target.to_owned() } else { target.join(below) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(root: &str, target: &str, kind: &str, super_options: &str) -> Mount {
        Mount {
            id: 1,
            parent: 0,
            root: root.into(),
            target: target.into(),
            options: "rw".into(),
            shared: false,
            kind: kind.into(),
            source: kind.into(),
            super_options: super_options.into(),
        }
    }

    fn all(_: &Path) -> Vec<String> {
        ["cpuset", "cpu", "memory", "pids"].map(str::to_owned).into()
    }

    #[test]
    fn version_2_with_controllers_wins() {
        let mounts = [mount("/", "/sys/fs/cgroup", "cgroup2", "rw,nsdelegate")];
        let found = Hierarchy::choose(&mounts, "0::/user.slice/a.scope\n", all).unwrap();
        assert_eq!(found.version(), Version::V2);
        assert_eq!(found.mounted()[0].own, Path::new("/sys/fs/cgroup/user.slice/a.scope"));
    }

    #[test]
    fn a_hybrid_machine_is_version_1() {
        let mounts = [
            mount("/", "/sys/fs/cgroup/unified", "cgroup2", "rw"),
            mount("/docker/x", "/elsewhere", "cgroup", "rw,memory"),
            mount("/docker/x", "/sys/fs/cgroup/memory", "cgroup", "rw,memory"),
            mount("/", "/sys/fs/cgroup/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
            mount("/", "/sys/fs/cgroup/pids", "cgroup", "rw,pids"),
            mount("/", "/sys/fs/cgroup/systemd", "cgroup", "rw,xattr,name=systemd"),
        ];
        let own =
            "5:name=systemd:/s\n4:memory:/docker/x/y\n3:cpu,cpuacct:/\n2:pids:/p\n1:rdma:/\n0::/\n";
        let found = Hierarchy::choose(&mounts, own, |_| vec!["hugetlb".into()]).unwrap();
        assert_eq!(found.version(), Version::V1);
        let own: Vec<_> = found.own().folders().map(Path::to_owned).collect();
        let expected = ["systemd/s", "memory/y", "cpu,cpuacct", "pids/p"];
        assert_eq!(own, expected.map(|path| Path::new("/sys/fs/cgroup").join(path)));
        assert_eq!(found.controllers().collect::<Vec<_>>(), ["memory", "cpu", "cpuacct", "pids"]);
    }

    #[test]
    fn says_what_is_missing() {
        let mounts = [mount("/", "/sys/fs/cgroup/memory", "cgroup", "rw,memory")];
        let error = Hierarchy::choose(&mounts, "4:memory:/../x\n", all).unwrap_err();
        assert_eq!(error.cause().to_string(), "no cgroup controller cpu, memory, pids is mounted");
    }
}
