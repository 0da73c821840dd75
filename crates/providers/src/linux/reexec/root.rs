//! The first process of a node: it makes the root that the node will see, and becomes the agent.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use bivouac_spec::Problem;
use bivouac_spec::node::paths;
use bivouac_sys::cgroup::{Cgroup, Hierarchy, mount_view};
use bivouac_sys::machine;
use bivouac_sys::mount::{
    Attributes, Disk, Filesystem, Overlay, Propagation, bind, bind_read_only, mount, pivot_root,
    set_propagation,
};
use bivouac_sys::namespace::{Namespace, set_hostname, unshare};
use bivouac_sys::process::{self, Resource, Signal};
use camino::{Utf8Component, Utf8Path, Utf8PathBuf};
use fs_err as fs;

use super::super::folder::NodeFolder;
use super::super::order::Boot;
use super::super::problem::{OrProblem as _, failed};
use super::super::{disk, limits, names};
use super::{device, environment, update};
use crate::hosts::render_hosts;

/// Open files: what Kubernetes' own units ask for. Lowered to what is permitted.
const OPEN_FILES: u64 = 1_048_576;

/// Returns only when it fails.
pub(super) fn become_first_process(
    boot: &Boot,
    disk: Option<&Disk>,
    hierarchy: &Hierarchy,
    cgroup: &Cgroup,
) -> Problem {
    match prepare(boot, disk, hierarchy, cgroup) {
        Ok(()) => execute(boot),
        Err(problem) => problem,
    }
}

fn prepare(
    boot: &Boot,
    disk: Option<&Disk>,
    hierarchy: &Hierarchy,
    cgroup: &Cgroup,
) -> Result<(), Problem> {
    // The group first, because the cgroup namespace takes the group that its maker is in as its root.
    cgroup
        .add(std::process::id())
        .and_then(|()| unshare(&[Namespace::Cgroup, Namespace::Mount]))
        .or_problem("cgroup", "the node's control group cannot be entered")?;
    // Folders that are made here are for everybody in the node, whatever the umask of who typed the command.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let console = open_console(&boot.folder.console())?;
    // A session without terminal: neither a closed window nor Ctrl-C in it reaches the node.
    process::detach(Some(console.as_fd()))
        .or_problem("detach", "the node cannot be detached from the terminal")?;
    // A mount namespace starts as a copy whose mounts still spread to the host.
    set_propagation("/", Propagation::Private, true)
        .or_problem("mount", "the node's mounts cannot be kept from the host")?;
    let own = disk::mount(boot, disk)?;
    let root = mount_root(boot, &own)?;
    mount_kernel(&root, hierarchy)?;
    machine::show(limits::view(boot.resources), &root, resolve(&root, update::STAGE))
        .or_problem("machine", format_args!("node {} cannot be shown its limits", boot.node))?;
    device::fill(&root, &boot.folder.console())?;
    bind_directories(boot, &own, &root)?;
    write_identity(boot, &root)?;
    pivot_root(&root).or_problem("mount", "the node's root cannot be made its own")?;
    set_hostname(boot.node.as_str()).or_problem("hostname", "the node's name cannot be set")?;
    // Mounts that the kubelet makes must be seen in the pods that share them.
    set_propagation("/", Propagation::Shared, true)
        .or_problem("mount", "the node's mounts cannot be shared with its pods")?;
    process::set_limit(Resource::Nofile, Some(OPEN_FILES), Some(OPEN_FILES))
        .or_problem("limit", "the limit of open files cannot be set")?;
    process::unblock_signals().or_problem("signals", "signals cannot be unblocked")
}

fn open_console(path: &Utf8Path) -> Result<File, Problem> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    options.open(path).or_problem("console", format_args!("{path} cannot be opened"))
}

/// The image with the node's own changes over it, which are in this folder.
fn mount_root(boot: &Boot, own: &NodeFolder) -> Result<Utf8PathBuf, Problem> {
    let root = boot.folder.root();
    for path in [&own.upper(), &own.work(), &root] {
        super::super::folder::ensure(path)?;
    }
    // The mode of the upper layer is that of the node's `/`.
    fs::set_permissions(own.upper(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .or_problem("mount", "the mode of the node's root cannot be set")?;
    let overlay = Overlay {
        lower: vec![boot.rootfs.clone().into()],
        upper: own.upper().into(),
        work: own.work().into(),
    };
    mount(&Filesystem::Overlay(overlay), &root, Attributes::default()).or_problem(
        "no_overlay",
        format_args!("the image {} cannot be mounted as the node's root", boot.rootfs),
    )?;
    Ok(root)
}

/// What the kernel shows of itself, each as the node's namespaces see it, and the node's volatile folders.
fn mount_kernel(root: &Utf8Path, hierarchy: &Hierarchy) -> Result<(), Problem> {
    let volatile = Attributes { no_suid: true, no_dev: true, ..Attributes::default() };
    let tmpfs = |mode| Filesystem::Tmpfs { size: None, mode };
    let plan = [
        ("/proc", Filesystem::Proc, Attributes::INERT),
        ("/sys", Filesystem::Sysfs, Attributes::INERT),
        ("/run", tmpfs(0o755), volatile),
        ("/tmp", tmpfs(0o1777), volatile),
        // Files will be mounted over some of those above, and a pod in a user namespace of its own may mount `proc` and `sysfs` only
        // where it sees whole ones.
        ("/run/.kernel/proc", Filesystem::Proc, Attributes::INERT),
        ("/run/.kernel/sys", Filesystem::Sysfs, Attributes::INERT),
    ];
    for (path, filesystem, attributes) in plan {
        let target = ensure_directory(root, path)?;
        mount(&filesystem, &target, attributes)
            .or_problem("mount", format_args!("{path} of the node cannot be mounted"))?;
    }
    mount_view(hierarchy, root.join("sys/fs/cgroup"))
        .or_problem("cgroup", "/sys/fs/cgroup of the node cannot be mounted")
}

fn bind_directories(boot: &Boot, own: &NodeFolder, root: &Utf8Path) -> Result<(), Problem> {
    let message = |path: &str| format!("{path} of the node cannot be mounted");
    for path in paths::REAL_DIRECTORIES {
        let source = if path == paths::LOGS { boot.folder.logs() } else { own.data(path) };
        super::super::folder::ensure(&source)?;
        bind(&source, ensure_directory(root, path)?).or_problem("mount", message(path))?;
    }
    let modules = Utf8Path::new("/lib/modules");
    if modules.is_dir() {
        bind_read_only(modules, ensure_directory(root, modules.as_str())?)
            .or_problem("mount", message(modules.as_str()))?;
    }
    bind_read_only(&boot.shared_images, ensure_directory(root, paths::SHARED_IMAGES)?)
        .or_problem("mount", message(paths::SHARED_IMAGES))?;
    bind(&boot.shared_cache, ensure_directory(root, paths::SHARED_CACHE)?)
        .or_problem("mount", message(paths::SHARED_CACHE))?;
    let agent = ensure_file(root, paths::AGENT)?;
    bind_read_only(&boot.agent, agent).or_problem("mount", message(paths::AGENT))
}

/// Who the node is, whom it knows, and what it must be.
fn write_identity(boot: &Boot, root: &Utf8Path) -> Result<(), Problem> {
    let hosts = render_hosts(&boot.cluster, &boot.node, &boot.addresses);
    let config = fs::read_to_string(boot.folder.config())
        .or_problem("config", format_args!("the config of node {} cannot be read", boot.node))?;
    let files = [
        ("/etc/hostname", 0o644, format!("{}\n", boot.node)),
        ("/etc/machine-id", 0o444, format!("{}\n", boot.machine_id)),
        ("/etc/hosts", 0o644, hosts),
        ("/etc/resolv.conf", 0o644, boot.resolv_conf.clone()),
        (paths::CONFIG, 0o600, config),
    ];
    for (path, mode, content) in files {
        let target = fresh_file(root, path)?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        let written = options.open(&target).and_then(|mut file| {
            use std::io::Write as _;
            file.write_all(content.as_bytes())?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(mode))
        });
        written.or_problem("write", format_args!("{path} of the node cannot be written"))?;
    }
    Ok(())
}

fn execute(boot: &Boot) -> Problem {
    let mut command = Command::new(paths::AGENT);
    command
        .arg0("bivouac")
        .args(["agent", "run", "--shares-kernel", "--label"])
        .arg(names::label(&boot.cluster, &boot.node))
        .env_clear()
        .envs(environment())
        .current_dir("/");
    // A node that is stopped the moment it was started must not miss it.
    if let Err(error) = process::keep_pending(&mut command, &[Signal::TERM]) {
        return failed("signals", "signals cannot be kept for the agent").because(&error);
    }
    failed("agent", format_args!("the agent {} cannot be run", boot.agent)).because(&command.exec())
}

fn ensure_directory(root: &Utf8Path, path: &str) -> Result<Utf8PathBuf, Problem> {
    let inside = resolve(root, path);
    fs::create_dir_all(&inside)
        .or_problem("write", format_args!("the folder {path} of the node cannot be made"))?;
    Ok(inside)
}

/// Something to mount a file over.
fn ensure_file(root: &Utf8Path, path: &str) -> Result<Utf8PathBuf, Problem> {
    let target = resolve(root, path);
    if target.is_file() { Ok(target) } else { fresh_file(root, path).and_then(touch) }
}

fn touch(path: Utf8PathBuf) -> Result<Utf8PathBuf, Problem> {
    fs::write(&path, "").or_problem("write", format_args!("{path} cannot be written"))?;
    Ok(path)
}

/// A path where nothing is, in a folder that exists. Whatever was there, such as a link to elsewhere, is removed.
fn fresh_file(root: &Utf8Path, path: &str) -> Result<Utf8PathBuf, Problem> {
    let path = Utf8Path::new(path);
    let parent = path.parent().unwrap_or(Utf8Path::new("/"));
    let target =
        ensure_directory(root, parent.as_str())?.join(path.file_name().unwrap_or_default());
    match fs::remove_file(&target) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).or_problem("write", format_args!("{path} of the node cannot be replaced"))
        }
        _ => Ok(target),
    }
}

/// Where an absolute path of the node is before the node's root is made the root: a link in it, such as `/lib`, must not lead
/// out to the host.
fn resolve(root: &Utf8Path, path: &str) -> Utf8PathBuf {
    // As many links as the kernel follows.
    let mut links = 40;
    let mut pending: Vec<String> = parts(Utf8Path::new(path));
    let mut done = Utf8PathBuf::new();
    while let Some(part) = pending.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let link = root.join(&done).join(&part).read_link_utf8().ok().filter(|_| links > 0);
        let Some(link) = link else {
            done.push(part);
            continue;
        };
        links -= 1;
        if link.is_absolute() {
            done = Utf8PathBuf::new();
        }
        pending.extend(parts(&link));
    }
    root.join(done)
}

/// The parts of a path, the last first.
fn parts(path: &Utf8Path) -> Vec<String> {
    let parts = path.components().filter_map(|part| match part {
        Utf8Component::Normal(name) => Some(name.to_owned()),
        Utf8Component::ParentDir => Some("..".to_owned()),
        _ => None,
    });
    parts.rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_the_image_stay_within_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/run", root.join("usr/lib/run")).unwrap();
        symlink("../../../../etc", root.join("usr/lib/up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(resolve(root, "/lib/modules"), root.join("usr/lib/modules"));
        assert_eq!(resolve(root, "/lib/run/x"), root.join("run/x"));
        assert_eq!(resolve(root, "/lib/up/passwd"), root.join("etc/passwd"));
        assert_eq!(resolve(root, "/lib/../../../etc"), root.join("etc"));
        assert!(resolve(root, "/loop").starts_with(root));
    }

    #[test]
    fn a_file_replaces_a_link_to_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(dir.path()).unwrap();
        let outside = root.join("outside");
        std::fs::write(&outside, "mine").unwrap();
        std::fs::create_dir(root.join("etc")).unwrap();
        symlink(&outside, root.join("etc/hosts")).unwrap();
        let target = fresh_file(root, "/etc/hosts").unwrap();
        assert!(!target.exists());
        assert_eq!(std::fs::read_to_string(outside).unwrap(), "mine");
    }
}
