//! Letting packets of nodes leave the host, and the answers come back, at the least cost to the host.
//!
//! The kernel asks the interface on which a packet *arrives* whether it forwards. So the bridge must, for what leaves, and the
//! interfaces of the default routes, for the answers. Where the host forwards anyway nothing is changed; otherwise what was
//! changed is written down, and undone when the last cluster goes.
//!
//! IPv6 has such a switch for one interface since Linux 6.17 (`force_forwarding`). Before, only the whole machine can forward, and then
//! it forgets what it learned from its router unless it is told to listen on (`accept_ra` 2), which is done first.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use bivouac_spec::{Addresses, Problem};
use bivouac_sys::filesystem::FileLock;
use bivouac_sys::netlink::Route;
use bivouac_sys::process::boot_id;
use bivouac_sys::sysctl;
use serde::{Deserialize, Serialize};

use super::folder::{self, StateFolder};
use super::problem::{OrProblem as _, acquire};
use super::record::write_secret;

/// How long another command may hold the lock on what clusters share: it does a few kernel calls under it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether the whole machine forwards IPv6.
const EVERYWHERE: &str = "net/ipv6/conf/all/forwarding";

/// Takes the lock on what clusters share.
pub(super) fn lock(state: &StateFolder, verb: &str) -> Result<FileLock, Problem> {
    folder::ensure(&state.0)?;
    acquire(&state.lock(), verb, PATIENCE, "what clusters share")
}

/// Lets the bridge forward, and the interfaces that lead to the outside world, in the families of the cluster.
pub(super) fn ensure(
    state: &StateFolder,
    route: &Route,
    bridge: &str,
    addresses: &Addresses,
) -> Result<(), Problem> {
    let message = format!("forwarding for {bridge} cannot be switched on");
    let mut own = Vec::new();
    let mut wanted = Vec::new();
    for network in addresses.node_networks.iter() {
        let is_v6 = network.gateway.is_ipv6();
        let parameter = |interface: &str| switch(is_v6, interface);
        if is_v6 && !can_switch_one(bridge) {
            wanted.extend(everywhere());
            continue;
        }
        own.push(parameter(bridge));
        let uplinks = uplinks(route, |to| to.is_ipv6() == is_v6)?;
        wanted.extend(uplinks.iter().map(|one| Change::new(parameter(one), "1")));
    }
    for parameter in own {
        sysctl::ensure(&parameter, "1").or_problem("forwarding", &message)?;
    }
    let _lock = lock(state, "switch forwarding on")?;
    for change in &wanted {
        change.make(state).map_err(|problem| Problem { message: message.clone(), ..problem })?;
    }
    Ok(())
}

/// Undoes what was changed. The lock is held, and no cluster is left.
pub(super) fn restore(state: &StateFolder) -> Result<(), Problem> {
    // Switched on by somebody else meanwhile, as a container engine does when it starts: it is theirs now.
    let theirs = sysctl::read("net.ipv4.ip_forward").is_ok_and(|value| value == "1");
    for Changed { parameter, before } in read(state) {
        if theirs && parameter.starts_with("net/ipv4/") {
            continue;
        }
        match sysctl::ensure(&parameter, &before) {
            Err(error) if error.is_absent() => {}
            other => {
                other.or_problem(
                    "forwarding",
                    format_args!("{parameter} cannot be set back to {before}"),
                )?;
            }
        }
    }
    match fs_err::remove_file(state.forwarding()) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).or_problem("forwarding", "the note of what forwards cannot be removed")
        }
        _ => Ok(()),
    }
}

/// The interfaces of those default routes whose destination is of a wanted family.
pub(super) fn uplinks(
    route: &Route,
    is_wanted: impl Fn(IpAddr) -> bool,
) -> Result<BTreeSet<String>, Problem> {
    let routes = route.routes().or_problem("routes", "the host's routes cannot be listed")?;
    let defaults = routes.into_iter().filter(|one| one.destination.prefix_len() == 0);
    Ok(defaults
        .filter(|one| is_wanted(one.destination.addr()))
        .filter_map(|one| one.interface)
        .collect())
}

/// The parameter by which one interface forwards.
fn switch(is_v6: bool, interface: &str) -> String {
    if is_v6 {
        format!("net/ipv6/conf/{interface}/force_forwarding")
    } else {
        format!("net/ipv4/conf/{interface}/forwarding")
    }
}

fn can_switch_one(bridge: &str) -> bool {
    sysctl::read(&switch(true, bridge)).is_ok()
}

/// What makes the whole machine forward IPv6. Interfaces that listen to a router go on doing so; and because the last change is
/// made to all interfaces, and so is its undoing, those that forward already are noted, too.
fn everywhere() -> Vec<Change> {
    if sysctl::read(EVERYWHERE).is_ok_and(|value| value == "1") {
        return Vec::new();
    }
    let entries = std::fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut listening = Vec::new();
    let mut forwarding = Vec::new();
    for name in names.filter(|name| name != "all") {
        let is = |parameter: &str, value| sysctl::read(parameter).is_ok_and(|now| now == value);
        let (accepts, forwards) =
            (format!("net/ipv6/conf/{name}/accept_ra"), format!("net/ipv6/conf/{name}/forwarding"));
        if is(&forwards, "1") {
            forwarding.push(Change::new(forwards, "1"));
        } else if is(&accepts, "1") {
            listening.push(Change::new(accepts, "2"));
        }
    }
    let all = Change { also: forwarding, ..Change::new(EVERYWHERE.to_owned(), "1") };
    listening.into_iter().chain([all]).collect()
}

/// A parameter to set.
#[derive(Debug)]
struct Change {
    parameter: String,
    value: &'static str,
    /// What is set again when this is undone, because that changes it.
    also: Vec<Change>,
}

impl Change {
    const fn new(parameter: String, value: &'static str) -> Self {
        Self { parameter, value, also: Vec::new() }
    }

    /// Sets it, and notes what it was. The lock is held.
    fn make(&self, state: &StateFolder) -> Result<(), Problem> {
        let parameter = &self.parameter;
        let before = sysctl::read(parameter).or_problem("forwarding", parameter)?;
        if before == self.value {
            return Ok(());
        }
        let mut changed = read(state);
        if !changed.iter().any(|one| one.parameter == *parameter) {
            // Written down first: a command that is killed in between leaves a note too many, which undoes nothing wrong. The one for
            // all interfaces goes before the others, so that it is undone before them.
            let also = self.also.iter().map(|one| (&one.parameter, one.value.to_owned()));
            let own = [(parameter, before)].into_iter().chain(also);
            let own =
                own.map(|(parameter, before)| Changed { parameter: parameter.clone(), before });
            changed.splice(0..0, own);
            note(state, changed)?;
        }
        sysctl::write(parameter, self.value).or_problem("forwarding", parameter)
    }
}

/// A parameter that was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    parameter: String,
    before: String,
}

/// What was changed, in the order in which it is undone. A restart of the host undoes it as well, so a note counts for its own boot
/// only.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    boot_id: String,
    changed: Vec<Changed>,
}

fn read(state: &StateFolder) -> Vec<Changed> {
    let text = std::fs::read(state.forwarding()).unwrap_or_default();
    let note = serde_json::from_slice::<Note>(&text).ok();
    let note = note.filter(|note| boot_id().is_ok_and(|own| own == note.boot_id));
    note.map(|note| note.changed).unwrap_or_default()
}

fn note(state: &StateFolder, changed: Vec<Changed>) -> Result<(), Problem> {
    let message = "the note of what forwards cannot be written";
    let boot_id = boot_id().or_problem("forwarding", message)?;
    let text = serde_json::to_vec(&Note { boot_id, changed }).or_problem("forwarding", message)?;
    write_secret(&state.forwarding(), &text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::namespace::{Namespace, unshare};

    fn state(dir: &tempfile::TempDir) -> StateFolder {
        StateFolder(dir.path().to_owned().try_into().unwrap())
    }

    #[test]
    fn a_note_of_another_boot_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        assert_eq!(read(&state), []);
        let changed = vec![Changed { parameter: switch(false, "eth0"), before: "0".into() }];
        note(&state, changed.clone()).unwrap();
        assert_eq!(read(&state), changed);
        let text = std::fs::read_to_string(state.forwarding()).unwrap();
        std::fs::write(state.forwarding(), text.replace(&boot_id().unwrap(), "other")).unwrap();
        assert_eq!(read(&state), []);
    }

    #[test]
    fn a_machine_that_forwards_listens_to_its_router_and_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let state = state(&dir);
        let own = std::thread::spawn(move || {
            // Its parameters are those of this thread's network namespace.
            unshare(&[Namespace::Network]).unwrap();
            let route = Route::open().unwrap();
            for name in ["learns", "routes", "static"] {
                route.ensure_bridge(name, "test").unwrap();
            }
            let of = |name: &str, what: &str| format!("net/ipv6/conf/{name}/{what}");
            sysctl::write(&of("learns", "accept_ra"), "1").unwrap();
            sysctl::write(&of("static", "accept_ra"), "0").unwrap();
            sysctl::write(&of("routes", "forwarding"), "1").unwrap();
            let look = || {
                ["all", "default", "learns", "routes", "static"].map(|name| {
                    let read = |what| sysctl::read(&of(name, what)).unwrap();
                    (name, read("forwarding"), read("accept_ra"))
                })
            };
            let before = look();
            for _ in 0..2 {
                everywhere().iter().for_each(|change| change.make(&state).unwrap());
                let during = look();
                assert!(during.iter().all(|(_, forwards, _)| forwards == "1"), "{during:?}");
                assert_eq!((&*during[2].2, &*during[4].2), ("2", "0"), "{during:?}");
            }
            restore(&state).unwrap();
            assert_eq!(look(), before);
            assert!(!state.forwarding().exists());
        });
        own.join().unwrap();
    }
}
