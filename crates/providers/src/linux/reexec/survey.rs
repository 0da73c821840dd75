//! Every need of a node, tried by doing it. Nothing stays: what is made is made in namespaces that end with this process, or
//! removed at once.

use bivouac_spec::facts::{Need, Outcome, Survey};
use bivouac_spec::{Class, Problem};
use bivouac_sys::cgroup::{Cgroup, Hierarchy, Limits};
use bivouac_sys::filesystem::{self, Kind};
use bivouac_sys::mount::{Attributes, Filesystem, Overlay, Propagation, mount, set_propagation};
use bivouac_sys::namespace::{Namespace, unshare};
use bivouac_sys::netlink::{Peer, Route, VethRequest};
use bivouac_sys::nft;
use camino::Utf8Path;
use fs_err as fs;

use super::super::facts::{existing, facts, open_files};
use super::super::folder::{self, StateFolder};
use super::super::names;
use super::super::problem::OrProblem as _;
use super::{fork_until_exec, survey_host};

/// How long an empty group may take to go away.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Facts and needs.
pub(super) fn survey(state: &StateFolder) -> Result<Survey, Problem> {
    let facts = facts(state)?;
    let mut needs = survey_host::needs(&facts, open_files());
    if !rustix::process::geteuid().is_root() {
        let problem = unfit("not_root", "bivouac is not run by root").help("run it with sudo");
        // All that follows would fail for this one reason.
        needs.insert(0, Need { name: "be root".to_owned(), outcome: Outcome::Unmet(problem) });
        return Ok(Survey { facts, needs });
    }
    needs.insert(0, met("be root", "yes"));
    needs.push(survey_host::forwarding());
    needs.push(need("make and limit a control group", try_cgroup()));
    let namespaces: Vec<Need> = Namespace::NODE
        .into_iter()
        .filter(|kind| *kind != Namespace::Pid)
        .map(try_namespace)
        .collect();
    let isolated = namespaces.iter().all(|need| matches!(need.outcome, Outcome::Met(_)));
    needs.extend(namespaces);
    if isolated {
        needs.extend(try_inside(state));
    }
    Ok(Survey { facts, needs })
}

fn try_inside(state: &StateFolder) -> Vec<Need> {
    // In this process's own mount namespace from here on.
    let private = set_propagation("/", Propagation::Private, true)
        .or_problem("mount", "mounts cannot be kept from the host");
    if let Err(problem) = private {
        return vec![need("make mounts of its own", Err(problem))];
    }
    vec![
        need("mount an overlay", try_overlay(state)),
        need("make a bridge and a veth pair", try_links()),
        need("load nftables rules with masquerade", try_rules()),
        // Last: a process namespace ends with its first process, and then no other can be started in it.
        try_namespace(Namespace::Pid),
        need("mount proc and sysfs", try_kernel_mounts()),
    ]
}

fn try_namespace(kind: Namespace) -> Need {
    let name = match kind {
        Namespace::Mount => "a mount",
        Namespace::Pid => "a process",
        Namespace::Network => "a network",
        Namespace::Uts => "a host name",
        Namespace::Ipc => "an IPC",
        Namespace::Cgroup => "a control group",
        Namespace::User => "a user",
    };
    let made = unshare(&[kind]).map(|()| "made".to_owned());
    let made = made.map_err(|error| {
        let help = "run bivouac on the host itself or in a privileged container";
        unfit("no_namespace", format!("{name} namespace cannot be made")).because(&error).help(help)
    });
    need(&format!("make {name} namespace"), made)
}

fn try_cgroup() -> Result<String, Problem> {
    let attempt = || -> bivouac_sys::Result<String> {
        let hierarchy = Hierarchy::detect()?;
        let name = format!("{}-survey-{}", names::CGROUP, std::process::id());
        let group = Cgroup::ensure(&hierarchy, name)?;
        let limits = Limits { cpu_millis: Some(1000), memory: Some(1 << 30), pids: Some(1000) };
        let limited = group.set_limits(limits);
        group.remove(PATIENCE)?;
        limited.map(|()| format!("version {:?}", hierarchy.version()).to_lowercase())
    };
    attempt().map_err(|error| {
        unfit("no_cgroup", "no control group can be made and limited")
            .because(&error)
            .help("mount the cgroup file system read-write with `mount -o remount,rw /sys/fs/cgroup`, or give the container `--cgroupns=private --privileged`")
    })
}

fn try_overlay(state: &StateFolder) -> Result<String, Problem> {
    let base = existing(&state.0).to_owned();
    let scratch = base.join(format!(".bivouac-survey-{}", std::process::id()));
    let result = overlay_in(&scratch);
    // Only in this mount namespace, and gone with it; the folder is the host's.
    let _ = bivouac_sys::mount::detach(scratch.join("merged"));
    let _ = fs::remove_dir_all(&scratch);
    let kind = filesystem::kind(&base).ok();
    result.map(|()| format!("in {base}")).map_err(|problem| match kind {
        Some(Kind::Overlay) => Problem { class: Class::Unfit, ..problem }.help(format!(
            "put the state folder on another file system than an overlay: {base} is inside a container; mount a volume there"
        )),
        _ => Problem { class: Class::Unfit, ..problem }.help("load the kernel module with `modprobe overlay`"),
    })
}

fn overlay_in(scratch: &Utf8Path) -> Result<(), Problem> {
    let message = format!("no overlay can be mounted in {scratch}");
    let [lower, upper, work, merged] =
        ["lower", "upper", "work", "merged"].map(|name| scratch.join(name));
    for path in [&lower, &upper, &work, &merged] {
        folder::ensure(path)?;
    }
    let overlay = Overlay { lower: vec![lower.into()], upper: upper.into(), work: work.into() };
    mount(&Filesystem::Overlay(overlay), &merged, Attributes::default())
        .or_problem("no_overlay", &message)?;
    fs::write(merged.join("file"), "written").or_problem("no_overlay", &message)
}

/// proc belongs to a pid namespace, so it is mounted by a process in the new one; sysfs to the network namespace. The place is a
/// folder that every machine has, covered in a mount namespace of that process.
fn try_kernel_mounts() -> Result<String, Problem> {
    let attempt = || {
        unshare(&[Namespace::Mount])?;
        mount(&Filesystem::Sysfs, "/proc", Attributes::INERT)?;
        mount(&Filesystem::Proc, "/proc", Attributes::INERT)
    };
    let child = fork_until_exec(|| match attempt() {
        Err(error) => unfit("no_proc", "proc and sysfs cannot be mounted")
            .because(&error)
            .help("run bivouac on the host itself or in a container with `--privileged`"),
        Ok(()) => Problem::failed(DONE, "mounted"),
    });
    match child {
        Err(problem) if problem.code == DONE => Ok("mounted".to_owned()),
        Err(problem) => Err(problem),
        Ok(_) => Ok("mounted".to_owned()),
    }
}

/// What the child says when all went well: it executes nothing, so it always says something.
const DONE: &str = "done";

fn try_links() -> Result<String, Problem> {
    let attempt = || -> bivouac_sys::Result<()> {
        let route = Route::open()?;
        route.ensure_bridge("bv-survey", "survey")?;
        route.create_veth(VethRequest {
            name: "bvs0",
            peer_name: "bvs1",
            peer: Peer::Here,
            alias: "survey",
            mtu: None,
        })?;
        route.set_master("bvs0", "bv-survey")?;
        route.destroy_link("bvs0")?;
        route.destroy_link("bv-survey")
    };
    attempt().map(|()| "made and removed".to_owned()).map_err(|error| {
        let module = if error.object().contains("veth") || error.object().contains("bvs") {
            "veth"
        } else {
            "bridge"
        };
        unfit("no_links", format!("the kernel makes no {module} interfaces"))
            .because(&error)
            .help(format!("load the kernel module with `modprobe {module}`"))
    })
}

fn try_rules() -> Result<String, Problem> {
    let rules = "table inet bivouac-survey {\n\tchain egress {\n\
                 \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
                 \t\tip saddr 192.0.2.0/24 oifname != \"lo\" masquerade\n\t}\n}\n";
    nft::load(rules).map(|()| "loaded".to_owned()).map_err(|error| {
        let problem =
            unfit("no_nftables", "no nftables rule with masquerade can be loaded").because(&error);
        if error.is_absent() {
            problem.help("install the command with `apt-get install nftables`")
        } else {
            problem
                .help("load the kernel modules with `modprobe -a nf_tables nft_chain_nat nft_masq`")
        }
    })
}

pub(super) fn met(name: &str, seen: impl Into<String>) -> Need {
    Need { name: name.to_owned(), outcome: Outcome::Met(seen.into()) }
}

pub(super) fn unfit(code: &str, message: impl Into<String>) -> Problem {
    Problem::new(Class::Unfit, format!("provider.linux.{code}"), message)
}

fn need(name: &str, result: Result<String, Problem>) -> Need {
    let outcome = result.map_or_else(Outcome::Unmet, Outcome::Met);
    Need { name: name.to_owned(), outcome }
}
