//! lxcfs and incusd, and what they need of a node.

use bivouac_spec::node::config::SysctlScope;
use bivouac_spec::node::{
    Check, File, FileKind, Limits, Mount, Probe, Service, Stop, Sysctl, paths,
};
use bivouac_spec::quantity::Span;

use super::lan::LAN;
use super::layout::{Layout, Member};
use super::places::{DAEMON, DATA, HOME, JOINING_MARKER, LOGS, LXCFS, PRISTINE, SOCKET};
use super::storage;
use super::units::{names, service, shell};

pub(super) const INCUSD: &str = "incusd";
const LXCFS_SERVICE: &str = "lxcfs";
/// A service: instances are asked to stop before the node ends.
const INSTANCES: &str = "instances";

/// The most open files that anything here asks for.
const OPEN_FILES: u64 = 1_048_576;

/// A member that was cut short while it joined begins anew.
const DAEMON_SCRIPT: &str = include_str!("scripts/daemon.sh");
/// incusd leaves instances alone when it is ended, so that it can be started anew. Only when the node ends must they end before it: after
/// incusd, which would remember otherwise that they were stopped, and could not when all members end at once.
const INSTANCES_SCRIPT: &str = include_str!("scripts/instances.sh");

pub(super) fn modules(layout: &Layout<'_>) -> Vec<String> {
    let mut modules = vec!["bridge", "vxlan", "nf_tables", "veth", "fuse", "overlay"];
    let driver = layout.settings.storage.driver.name();
    if driver != "dir" {
        modules.extend(["loop", driver]);
    }
    names(&modules)
}

/// As the authors of LXD and Incus advise for servers with many instances.
pub(super) fn sysctls(layout: &Layout<'_>) -> Vec<Sysctl> {
    let mut wanted = vec![("net.ipv4.ip_forward", "1", SysctlScope::Namespaced)];
    let kernel = [
        ("fs.inotify.max_queued_events", "1048576"),
        ("fs.inotify.max_user_instances", "1048576"),
        ("fs.inotify.max_user_watches", "1048576"),
        ("fs.aio-max-nr", "524288"),
        ("vm.max_map_count", "262144"),
        ("kernel.dmesg_restrict", "1"),
        ("kernel.keys.maxkeys", "2000"),
        ("kernel.keys.maxbytes", "2000000"),
    ];
    wanted.extend(kernel.map(|(name, value)| (name, value, SysctlScope::Kernel)));
    if !layout.facts.shares_kernel {
        // A network namespace that is not the kernel's first does not have these.
        let first = [
            ("net.ipv4.neigh.default.gc_thresh3", "8192"),
            ("net.ipv6.neigh.default.gc_thresh3", "8192"),
            ("net.core.bpf_jit_limit", "3000000000"),
        ];
        wanted.extend(first.map(|(name, value)| (name, value, SysctlScope::Kernel)));
    }
    let sysctl = |(name, value, scope): (&str, &str, SysctlScope)| Sysctl {
        name: name.to_owned(),
        value: value.to_owned(),
        scope,
    };
    wanted.into_iter().map(sysctl).collect()
}

pub(super) fn mounts() -> Vec<Mount> {
    let mount = |(kind, target): (&str, &str)| Mount {
        source: kind.to_owned(),
        target: target.into(),
        kind: kind.to_owned(),
        options: ["nosuid", "nodev", "noexec"].map(str::to_owned).into(),
    };
    PRISTINE.map(mount).into()
}

pub(super) fn files() -> Vec<File> {
    vec![
        File::directory(LXCFS, 0o755),
        File::directory(LOGS, 0o750),
        // Users of instances go through it to what is theirs.
        File::directory(paths::STATE, 0o711),
        File::directory(DATA, 0o711),
        // A ground may keep a folder of its own in place of what the node image has there.
        File { path: HOME.into(), mode: 0o777, owner: (0, 0), kind: FileKind::Link(DATA.into()) },
    ]
}

fn before_incusd(layout: &Layout<'_>) -> Vec<String> {
    let mut units = names(&[LXCFS_SERVICE, LAN, INSTANCES]);
    units.extend(storage::tasks(layout.settings).map(|task| task.name));
    units
}

pub(super) fn services(layout: &Layout<'_>, member: &Member) -> Vec<Service> {
    let mounted = Probe::new(Check::File(format!("{LXCFS}/proc/meminfo").into()));
    let lxcfs = ["/usr/bin/lxcfs", "-f", LXCFS].map(str::to_owned).into();
    let name = member.name().as_str();
    let incusd = [JOINING_MARKER, name, DATA, DAEMON, "--group", "incus-admin"];
    let incusd = shell(INCUSD, DAEMON_SCRIPT, &incusd);
    let answers = Probe::new(Check::Socket(SOCKET.into()));
    let (facts, never) = (layout.facts, u64::MAX);
    vec![
        service(LXCFS_SERVICE, lxcfs, Some(mounted)),
        Service {
            // An instance that finds no bridge when it is started has no network.
            after: before_incusd(layout),
            limits: Limits {
                open_files: Some(OPEN_FILES.min(facts.open_files)),
                locked_memory: facts.raises_limits.then_some(never),
                ..Limits::default()
            },
            // It looks for another to lead the database, in vain when all members end at once. The database bears being cut short.
            stop: Stop { grace: Span::seconds(3), ..Stop::default() },
            oom_score: Some(-900),
            ..service(INCUSD, incusd, Some(answers))
        },
        Service {
            after: names(&[LXCFS_SERVICE, LAN]),
            stop: Stop { grace: Span::seconds(15), ..Stop::default() },
            ..service(INSTANCES, shell(INSTANCES, INSTANCES_SCRIPT, &[]), None)
        },
    ]
}
