//! Letting packets of nodes leave the host, and the answers come back, at the least cost to the host.
//!
//! The kernel asks the interface on which a packet *arrives* whether it forwards. So the bridge must, for what leaves, and the
//! interfaces of the default routes, for the answers. Where the host forwards anyway nothing is changed; otherwise what was
//! changed is written down, and undone when the last cluster goes. IPv6 is left alone: there, forwarding would make the host
//! forget routes that it learned from its router.

use std::collections::BTreeSet;
use std::time::Duration;

use bivouac_spec::Problem;
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

/// Takes the lock on what clusters share.
pub(super) fn lock(state: &StateFolder, verb: &str) -> Result<FileLock, Problem> {
    folder::ensure(&state.0)?;
    acquire(&state.lock(), verb, PATIENCE, "what clusters share")
}

/// Lets the bridge forward, and the interfaces that lead to the outside world.
pub(super) fn ensure(state: &StateFolder, route: &Route, bridge: &str) -> Result<(), Problem> {
    let message = format_args!("forwarding for {bridge} cannot be switched on").to_string();
    sysctl::ensure(&parameter(bridge), "1").or_problem("forwarding", &message)?;
    let _lock = lock(state, "switch forwarding on")?;
    let mut changed = read(state);
    let before = changed.clone();
    for interface in uplinks(route)? {
        if sysctl::read(&parameter(&interface)).is_ok_and(|value| value == "1") {
            continue;
        }
        // Written down first: a command that is killed in between leaves a note too many, which undoes nothing wrong.
        changed.insert(interface.clone());
        note(state, &changed)?;
        sysctl::write(&parameter(&interface), "1").or_problem("forwarding", &message)?;
    }
    if changed == before { Ok(()) } else { note(state, &changed) }
}

/// Undoes what was changed. The lock is held, and no cluster is left.
pub(super) fn restore(state: &StateFolder) -> Result<(), Problem> {
    // Switched on by somebody else meanwhile, as a container engine does when it starts: it is theirs now.
    let wanted = sysctl::read("net.ipv4.ip_forward").is_ok_and(|value| value == "1");
    for interface in read(state).into_iter().filter(|_| !wanted) {
        match sysctl::ensure(&parameter(&interface), "0") {
            Err(error) if error.is_absent() => {}
            other => {
                other.or_problem(
                    "forwarding",
                    format_args!("forwarding of {interface} cannot be switched off"),
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

/// The interfaces of the default routes.
pub(super) fn uplinks(route: &Route) -> Result<BTreeSet<String>, Problem> {
    let routes = route.routes().or_problem("routes", "the host's routes cannot be listed")?;
    let defaults = routes.into_iter().filter(|one| one.destination.prefix_len() == 0);
    Ok(defaults
        .filter(|one| one.destination.addr().is_ipv4())
        .filter_map(|one| one.interface)
        .collect())
}

fn parameter(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/forwarding")
}

/// What was switched on. A restart of the host switches it off again, so a note counts for its own boot only.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    boot_id: String,
    interfaces: BTreeSet<String>,
}

fn read(state: &StateFolder) -> BTreeSet<String> {
    let text = std::fs::read(state.forwarding()).unwrap_or_default();
    let note = serde_json::from_slice::<Note>(&text).ok();
    let note = note.filter(|note| boot_id().is_ok_and(|own| own == note.boot_id));
    note.map(|note| note.interfaces).unwrap_or_default()
}

fn note(state: &StateFolder, interfaces: &BTreeSet<String>) -> Result<(), Problem> {
    let message = "the note of what forwards cannot be written";
    let boot_id = boot_id().or_problem("forwarding", message)?;
    let text = serde_json::to_vec(&Note { boot_id, interfaces: interfaces.clone() })
        .or_problem("forwarding", message)?;
    write_secret(&state.forwarding(), &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_of_another_boot_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateFolder(dir.path().to_owned().try_into().unwrap());
        assert_eq!(read(&state), BTreeSet::new());
        let interfaces = BTreeSet::from(["eth0".to_owned()]);
        note(&state, &interfaces).unwrap();
        assert_eq!(read(&state), interfaces);
        let text = std::fs::read_to_string(state.forwarding()).unwrap();
        std::fs::write(state.forwarding(), text.replace(&boot_id().unwrap(), "other")).unwrap();
        assert_eq!(read(&state), BTreeSet::new());
    }
}
