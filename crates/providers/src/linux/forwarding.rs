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

use bivouac_spec::{Addresses, Problem};
use bivouac_sys::netlink::Route;
use bivouac_sys::sysctl;

use super::parameters::{Change, Notes};
use super::problem::OrProblem as _;

/// Whether the whole machine forwards IPv6.
const EVERYWHERE: &str = "net/ipv6/conf/all/forwarding";

/// Lets the bridge forward, and the interfaces that lead to the outside world, in the families of the cluster.
pub(super) fn ensure(route: &Route, bridge: &str, addresses: &Addresses) -> Result<(), Problem> {
    let message = format!("forwarding for {bridge} cannot be switched on");
    let notes = Notes::of_machine();
    let lock = notes.lock("switch forwarding on")?;
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
    for change in &wanted {
        change.make(&notes).map_err(|problem| Problem { message: message.clone(), ..problem })?;
    }
    notes.tidy();
    drop(lock);
    Ok(())
}

/// Whether it is better left as it is when the last cluster goes: switched on by somebody else meanwhile, as a container engine does when
/// it starts, it is theirs.
pub(super) fn is_theirs(parameter: &str) -> bool {
    parameter.starts_with("net/ipv4/")
        && sysctl::read("net.ipv4.ip_forward").is_ok_and(|value| value == "1")
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

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::namespace::{Namespace, unshare};

    #[test]
    fn a_machine_that_forwards_listens_to_its_router_and_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let notes = Notes(dir.path().to_owned().try_into().unwrap());
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
                everywhere().iter().for_each(|change| change.make(&notes).unwrap());
                let during = look();
                assert!(during.iter().all(|(_, forwards, _)| forwards == "1"), "{during:?}");
                assert_eq!((&*during[2].2, &*during[4].2), ("2", "0"), "{during:?}");
            }
            crate::linux::parameters::restore(&notes).unwrap();
            assert_eq!(look(), before);
            assert!(!notes.file().unwrap().exists());
        });
        own.join().unwrap();
    }
}
