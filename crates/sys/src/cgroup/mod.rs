//! Control groups, versions 1 and 2, below the caller's own.
//!
//! [`Hierarchy`] is what the machine offers, [`Cgroup`] one group in it. On version 1 a group is a folder in every
//! controller's hierarchy, on version 2 one folder; most of what is done with groups is the same for both, and the rest
//! is a match on [`Version`].
//!
//! ```text
//! v1   /sys/fs/cgroup/CONTROLLER/<own>/bivouac/...   one folder a controller, cpuset filled in from the parent
//! v2   /sys/fs/cgroup/<own or above>/bivouac/...     the nearest group that may have children with controllers
//! ```

mod files;
mod hierarchy;
mod removal;
mod v1;
mod v2;
mod view;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use hierarchy::{Hierarchy, Mounted, Version};
pub use v2::delegate_inside;
pub use view::mount_view;

use crate::Result;

/// What a group may use; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// Processor time in thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Number of tasks.
    pub pids: Option<u64>,
}

/// One folder of a group and the controllers that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    pub(crate) controllers: Vec<String>,
    pub(crate) path: PathBuf,
}

/// A group. A value: it may or may not exist on the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    version: Version,
    folders: Vec<Folder>,
}

impl Cgroup {
    /// Makes the group at `relative` below the caller's own, or leaves it as it is.
    ///
    /// v1: in every controller, with `cpuset.cpus` and `cpuset.mems` copied from the parent. v2: a group that holds
    /// processes itself cannot give controllers to children (`EBUSY`), so this walks up from the caller's own until a
    /// group can, and enables the controllers from there down to the parent of the new group.
    pub fn ensure(hierarchy: &Hierarchy, relative: impl AsRef<Path>) -> Result<Self> {
        let relative = relative.as_ref();
        let base = match hierarchy.version() {
            Version::V1 => hierarchy.own(),
            Version::V2 => v2::base(hierarchy)?,
        };
        let group = base.below(relative);
        match hierarchy.version() {
            Version::V1 => v1::ensure(&base, relative)?,
            Version::V2 => v2::ensure(&base, relative)?,
        }
        Ok(group)
    }

    /// The version of the hierarchy that it is in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Its folders: one a controller hierarchy on v1, one on v2.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.iter().map(|folder| folder.path.as_path())
    }

    /// The group at `relative` below this one; nothing is made.
    #[must_use]
    pub fn below(&self, relative: impl AsRef<Path>) -> Self {
        let relative = relative.as_ref();
        let mut group = self.clone();
        for folder in &mut group.folders {
            folder.path.push(relative);
        }
        group
    }

    /// The group with those folders for which `keep` holds, each asked about as a group of its own; `None` if there are none.
    #[must_use]
    pub fn retain(mut self, mut keep: impl FnMut(&Self) -> bool) -> Option<Self> {
        let version = self.version;
        self.folders.retain(|folder| keep(&Self { version, folders: vec![folder.clone()] }));
        (!self.folders.is_empty()).then_some(self)
    }

    /// True if any of its folders is there.
    pub fn exists(&self) -> bool {
        self.folders().any(Path::exists)
    }

    /// Moves a process into the group.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.folders().try_for_each(|path| files::write(&path.join("cgroup.procs"), pid))
    }

    /// `cgroup.procs` of each folder, open for writing: for a child that joins before it executes its program.
    pub fn join_files(&self) -> Result<Vec<File>> {
        self.folders().map(|path| files::open_for_writing(&path.join("cgroup.procs"))).collect()
    }

    /// Bytes of memory that its processes use and that cannot be taken from them: files that are merely cached do not count. `None`
    /// where nobody counts.
    pub fn memory_in_use(&self) -> Result<Option<u64>> {
        let Some(folder) = self.folder("memory") else { return Ok(None) };
        let path = folder.join("memory.stat");
        if !path.exists() {
            return Ok(None);
        }
        let keys: &[&str] = match self.version {
            Version::V1 => &["total_rss", "total_shmem"],
            Version::V2 => &["anon", "shmem", "kernel_stack", "pagetables", "slab_unreclaimable"],
        };
        Ok(Some(files::sum(&files::read(&path)?, keys)))
    }

    /// Processor time that its processes have used since the group was made. `None` where nobody counts.
    pub fn cpu_time(&self) -> Result<Option<Duration>> {
        let (controller, name) = match self.version {
            Version::V1 => ("cpuacct", "cpuacct.usage"),
            Version::V2 => ("cpu", "cpu.stat"),
        };
        let Some(text) = self.read_if_there(controller, name)? else { return Ok(None) };
        Ok(Some(match self.version {
            Version::V1 => Duration::from_nanos(text.trim().parse().unwrap_or_default()),
            Version::V2 => Duration::from_micros(files::sum(&text, &["usage_usec"])),
        }))
    }

    /// Tasks, which are processes and their threads, in the group and below it. `None` where nobody counts.
    pub fn tasks(&self) -> Result<Option<u64>> {
        let text = self.read_if_there("pids", "pids.current")?;
        Ok(text.and_then(|text| text.trim().parse().ok()))
    }

    fn read_if_there(&self, controller: &str, name: &str) -> Result<Option<String>> {
        let path = self.folder(controller).map(|folder| folder.join(name));
        path.filter(|path| path.exists()).map(|path| files::read(&path)).transpose()
    }

    /// Sets all limits, lifting those that are `None`. Who has a limit of memory gets no swap beside it. Lowering the limit of memory
    /// below what is in use is refused on v1 (`is_busy`); on v2 the kernel ends processes until it holds, so ask first.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        match self.version {
            Version::V1 => v1::set_limits(self, limits),
            Version::V2 => v2::set_limits(self, limits),
        }
    }

    /// Pids in the group and in all groups below it.
    pub fn processes(&self) -> Result<BTreeSet<u32>> {
        let mut pids = BTreeSet::new();
        for folder in self.folders() {
            files::walk(folder, &mut |path| files::read_pids(path, &mut pids))?;
        }
        Ok(pids)
    }

    /// True if a process in the group or below it is outside of the caller's pid namespace: it has no pid here.
    pub fn has_unseen(&self) -> Result<bool> {
        let mut unseen = false;
        for folder in self.folders() {
            files::walk(folder, &mut |path| {
                unseen = unseen || files::has_unseen(path)?;
                Ok(())
            })?;
        }
        Ok(unseen)
    }

    /// Names of the groups directly below it.
    pub fn list_children(&self) -> Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        for folder in self.folders() {
            for child in files::subfolders(folder)? {
                names.extend(child.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        Ok(names)
    }

    /// The folder for a controller; on v2 the only one.
    pub(crate) fn folder(&self, controller: &str) -> Option<&Path> {
        let named = |folder: &&Folder| folder.controllers.iter().any(|name| name == controller);
        match self.version {
            Version::V1 => self.folders.iter().find(named),
            Version::V2 => self.folders.first(),
        }
        .map(|folder| folder.path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{ChildSetup, ProcessId};
    use std::process::Command;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn life_cycle(hierarchy: &Hierarchy, limits: Limits, name: &str) {
        let name = format!("bivouac-test-{}-{name}", std::process::id());
        let parent = Cgroup::ensure(hierarchy, &name).unwrap();
        let relative = format!("{name}/cluster/node");
        let group = Cgroup::ensure(hierarchy, &relative).unwrap();
        assert_eq!(group, Cgroup::ensure(hierarchy, &relative).unwrap());
        assert_eq!(group, parent.below("cluster/node"));
        group.set_limits(limits).unwrap();
        group.set_limits(limits).unwrap();
        group.set_limits(Limits::default()).unwrap();
        assert_eq!(group.memory_in_use().unwrap().unwrap_or_default(), 0);

        let mut joined = Command::new("sh");
        joined.args(["-c", "sleep 600 & sleep 600"]);
        let cgroup = group.join_files().unwrap();
        ChildSetup { cgroup, ..ChildSetup::default() }.apply(&mut joined);
        let mut joined = joined.spawn().unwrap();
        assert!(parent.processes().unwrap().contains(&joined.id()));
        let mut added = Command::new("sleep").arg("600").spawn().unwrap();
        group.add(added.id()).unwrap();
        assert!(group.processes().unwrap().contains(&added.id()));
        if hierarchy.controllers().any(|name| name == "pids") {
            assert!(parent.tasks().unwrap() >= Some(2), "the one that joined and the added one");
        }
        if hierarchy.controllers().any(|name| name == "cpuacct" || name == "cpu") {
            assert!(parent.cpu_time().unwrap().is_some_and(|time| !time.is_zero()));
        }
        assert_eq!(parent.list_children().unwrap(), BTreeSet::from(["cluster".to_owned()]));
        assert_eq!(
            hierarchy.find(Path::new(&name).join("cluster")).unwrap(),
            Some(parent.below("cluster"))
        );

        assert!(!parent.has_unseen().unwrap());
        let folders: Vec<_> = group.folders().map(Path::to_owned).collect();
        assert_eq!(hierarchy.recall(&folders), Some(group.clone()));
        assert_eq!(hierarchy.recall(&[folders[0].join("none")]), None);
        assert_eq!(hierarchy.recall(&["/"]), None);
        assert_eq!(group.clone().retain(|one| *one == group).is_some(), folders.len() == 1);
        let first = group.clone().retain(|one| one.folders().eq([folders[0].as_path()]));
        assert_eq!(first.unwrap().folders().collect::<Vec<_>>(), [&folders[0]]);
        assert_eq!(group.clone().retain(|_| false), None);

        let identity = ProcessId::of(added.id()).unwrap();
        let error = parent.remove(Duration::from_millis(30)).unwrap_err();
        assert!(error.is_timeout());
        parent.kill_all(PATIENCE).unwrap();
        assert!(!identity.is_alive().unwrap());
        joined.wait().unwrap();
        added.wait().unwrap();
        assert!(group.processes().unwrap().is_empty());
        parent.remove(PATIENCE).unwrap();
        assert!(!parent.exists());
        parent.remove(PATIENCE).unwrap();
        assert_eq!(hierarchy.find(&name).unwrap(), None);
        assert!(group.add(std::process::id()).unwrap_err().is_absent());
    }

    #[test]
    fn a_group_lives_and_dies_in_the_hierarchy_of_this_machine() {
        let hierarchy = Hierarchy::detect().unwrap();
        let limits = Limits { cpu_millis: Some(1500), memory: Some(1 << 30), pids: Some(500) };
        life_cycle(&hierarchy, limits, "machine");
    }

    #[test]
    fn a_group_lives_and_dies_in_version_2() {
        let Some(mount) = crate::mount::mounts().unwrap().into_iter().find(|m| m.kind == "cgroup2")
        else {
            println!("skipped: no cgroup v2 hierarchy is mounted");
            return;
        };
        let folder = |name: &str| {
            let path = mount.target.join(format!("bivouac-{name}-{}", std::process::id()));
            // A run that was killed may have left one of the same number.
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        // One that has handed controllers down takes no processes any more; the machine's own top must not be it.
        let (top, node) = (folder("top"), folder("node"));
        let own = top.join("own");
        std::fs::create_dir_all(&own).unwrap();
        let mounted = Mounted { controllers: Vec::new(), target: top.clone(), own };
        life_cycle(&Hierarchy::new(Version::V2, vec![mounted]), Limits::default(), "own");

        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        std::fs::write(node.join("cgroup.procs"), child.id().to_string()).unwrap();
        delegate_inside(&node).unwrap();
        assert_eq!(std::fs::read_to_string(node.join("cgroup.procs")).unwrap(), "");
        child.kill().unwrap();
        child.wait().unwrap();
        let folders = [top, node].map(|path| Folder { controllers: Vec::new(), path }).into();
        Cgroup { version: Version::V2, folders }.remove(PATIENCE).unwrap();
    }
}
