//! Namespaces: making new ones, entering those of another process, holding one open.
//!
//! All of these change the calling *thread*. Do it in a program with a single thread, or in a thread of its own that
//! ends afterwards; never in a thread of a runtime. The pid namespace is an exception of the kernel: the caller itself
//! stays where it is, only its children are in the new one.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space,
    move_into_thread_name_spaces, unshare_unsafe,
};

use crate::Result;
use crate::error::Context;
use crate::process::PidFd;

/// A kind of namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Namespace {
    /// The mount table.
    Mount,
    /// Process numbers.
    Pid,
    /// Interfaces, addresses, routes, rules.
    Network,
    /// Host name.
    Uts,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// The root of the cgroup view.
    Cgroup,
    /// Users, groups and capabilities.
    User,
}

impl Namespace {
    /// What a node has of its own.
    pub const NODE: [Self; 6] =
        [Self::Mount, Self::Pid, Self::Network, Self::Uts, Self::Ipc, Self::Cgroup];

    /// The name below `/proc/PID/ns`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mount => "mnt",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Cgroup => "cgroup",
            Self::User => "user",
        }
    }

    fn unshare_flag(self) -> UnshareFlags {
        match self {
            Self::Mount => UnshareFlags::NEWNS,
            Self::Pid => UnshareFlags::NEWPID,
            Self::Network => UnshareFlags::NEWNET,
            Self::Uts => UnshareFlags::NEWUTS,
            Self::Ipc => UnshareFlags::NEWIPC,
            Self::Cgroup => UnshareFlags::NEWCGROUP,
            Self::User => UnshareFlags::NEWUSER,
        }
    }

    fn link_type(self) -> LinkNameSpaceType {
        match self {
            Self::Mount => LinkNameSpaceType::Mount,
            Self::Pid => LinkNameSpaceType::ProcessID,
            Self::Network => LinkNameSpaceType::Network,
            Self::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            Self::Ipc => LinkNameSpaceType::InterProcessCommunication,
            Self::Cgroup => LinkNameSpaceType::ControlGroup,
            Self::User => LinkNameSpaceType::User,
        }
    }
}

fn names(namespaces: &[Namespace]) -> String {
    namespaces.iter().map(|namespace| namespace.name()).collect::<Vec<_>>().join("+")
}

/// Moves the caller into new namespaces of these kinds (children only, for pid).
pub fn unshare(namespaces: &[Namespace]) -> Result<()> {
    let flags = namespaces.iter().fold(UnshareFlags::empty(), |all, one| all | one.unshare_flag());
    unshare_flags(flags).at("unshare", names(namespaces))
}

/// Moves the caller into namespaces of another process, all at once.
pub fn enter(process: &PidFd, namespaces: &[Namespace]) -> Result<()> {
    let object = format!("{} of process {}", names(namespaces), process.pid());
    own_working_directory(namespaces).at("unshare", "fs")?;
    let types = namespaces.iter().fold(ThreadNameSpaceType::empty(), |all, one| {
        all | ThreadNameSpaceType::from_bits_retain(one.unshare_flag().bits())
    });
    move_into_thread_name_spaces(std::os::fd::AsFd::as_fd(process), types).at("setns", object)
}

/// Holds a namespace of a process open: it stays while the descriptor (or anything in it) does.
pub fn open_ns(pid: u32, namespace: Namespace) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/{}", namespace.name());
    Ok(File::open(&path).at("open", &path)?.into())
}

/// Holds the calling thread's own namespace open.
pub fn open_own(namespace: Namespace) -> Result<OwnedFd> {
    let path = format!("/proc/thread-self/ns/{}", namespace.name());
    Ok(File::open(&path).at("open", &path)?.into())
}

/// Moves the caller into an open namespace of this kind.
pub fn enter_fd(namespace: BorrowedFd<'_>, kind: Namespace) -> Result<()> {
    own_working_directory(&[kind]).at("unshare", "fs")?;
    move_into_link_name_space(namespace, Some(kind.link_type())).at("setns", kind.name())
}

/// Whether the caller is in the first user namespace of the machine. Root of another one has all capabilities and yet no power over what
/// belongs to the machine as a whole, such as higher limits and lower OOM scores.
pub fn is_first_user() -> Result<bool> {
    let path = "/proc/thread-self/uid_map";
    std::fs::read_to_string(path).at("read", path).map(|map| is_whole(&map))
}

/// Whether every user is who they are (user_namespaces(7)).
fn is_whole(map: &str) -> bool {
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

/// Sets the host name of the caller's UTS namespace.
pub fn set_hostname(name: &str) -> Result<()> {
    rustix::system::sethostname(name.as_bytes()).at("sethostname", name)
}

/// A mount or user namespace is refused to a thread that shares root and working directory with others.
fn own_working_directory(namespaces: &[Namespace]) -> rustix::io::Result<()> {
    let needed = namespaces.iter().any(|one| matches!(one, Namespace::Mount | Namespace::User));
    if needed { unshare_flags(UnshareFlags::FS) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "unshare may unshare the descriptor table")]
fn unshare_flags(flags: UnshareFlags) -> rustix::io::Result<()> {
    // SAFETY: unsafe only for CLONE_FILES, which no caller passes: descriptors keep their meaning.
    unsafe { unshare_unsafe(flags) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::in_thread;
    use std::os::fd::AsFd;

    #[test]
    fn a_new_namespace_can_be_held_and_entered() {
        let held = in_thread(|| {
            unshare(&[Namespace::Uts]).unwrap();
            set_hostname("inside").unwrap();
            open_own(Namespace::Uts).unwrap()
        });
        let name = in_thread(move || {
            enter_fd(held.as_fd(), Namespace::Uts).unwrap();
            std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap()
        });
        assert_eq!(name.trim(), "inside");
        assert_ne!(std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim(), "inside");
    }

    #[test]
    fn the_first_user_namespace_has_everybody_as_they_are() {
        let own = std::fs::read_to_string("/proc/self/uid_map").unwrap();
        assert_eq!(is_first_user().unwrap(), is_whole(&own));
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(!is_whole("         0       1000          1\n         1     100000      65536\n"));
        assert!(!is_whole(""));
    }

    #[test]
    fn enters_several_of_a_process_at_once() {
        in_thread(|| {
            let own = PidFd::open(std::process::id()).unwrap();
            unshare(&[Namespace::Mount, Namespace::Network, Namespace::Ipc]).unwrap();
            enter(&own, &[Namespace::Mount, Namespace::Network, Namespace::Ipc]).unwrap();
            let link = |path| std::fs::read_link(path).unwrap();
            assert_eq!(link("/proc/thread-self/ns/net"), link("/proc/self/ns/net"));
        });
        assert!(open_ns(u32::MAX, Namespace::Mount).unwrap_err().is_absent());
    }
}
