//! Routes to the pods of other nodes.

use bivouac_spec::node;
use bivouac_sys::Result;
use bivouac_sys::netlink::{Route, RouteEntry};

use crate::apply::Applied;

/// Who made them: the number that all routes of ours carry (`/etc/iproute2/rt_protos` has no such entry).
const PROTOCOL: u8 = 137;

/// Makes the routes that are missing or lead elsewhere, and removes those of ours that are not wanted any more.
pub(super) fn ensure(wanted: &[node::Route], applied: &mut Applied) -> Result<()> {
    let route = Route::open()?;
    let present = route.routes()?;
    let is = |entry: &RouteEntry, wanted: &node::Route| {
        entry.protocol == PROTOCOL
            && entry.destination == wanted.to.trunc()
            && entry.gateway == Some(wanted.via)
    };
    let stale = |entry: &&RouteEntry| {
        entry.protocol == PROTOCOL && !wanted.iter().any(|wanted| is(entry, wanted))
    };
    // Before new ones are made: two routes to one destination may differ in their metric only.
    for entry in present.iter().filter(stale) {
        route.destroy_route(entry)?;
        applied.changes.push(format!("no route {}", entry.destination));
    }
    for wanted in wanted {
        if present.iter().any(|entry| is(entry, wanted)) {
            continue;
        }
        let (destination, gateway) = (wanted.to.trunc(), Some(wanted.via));
        let entry = RouteEntry { destination, gateway, interface: None, protocol: PROTOCOL };
        route.ensure_route(&entry)?;
        applied.changes.push(format!("route {destination}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_sys::namespace::{Namespace, unshare};

    fn to(network: &str, via: &str) -> node::Route {
        node::Route { to: network.parse().unwrap(), via: via.parse().unwrap() }
    }

    fn ensure_all(wanted: &[node::Route]) -> Vec<String> {
        let mut applied = Applied::default();
        ensure(wanted, &mut applied).unwrap();
        applied.changes
    }

    #[test]
    fn routes_are_made_changed_and_removed_and_those_of_others_stay() {
        std::thread::spawn(|| {
            unshare(&[Namespace::Network]).unwrap();
            let route = Route::open().unwrap();
            route.ensure_bridge("br", "x").unwrap();
            route.set_up("br", true).unwrap();
            route.ensure_address("br", "10.9.0.1/24".parse().unwrap()).unwrap();
            route.ensure_address("br", "fd00:9::1/64".parse().unwrap()).unwrap();
            let theirs = RouteEntry {
                destination: "10.200.0.0/24".parse().unwrap(),
                gateway: Some("10.9.0.77".parse().unwrap()),
                interface: Some("br".to_owned()),
                protocol: 3,
            };
            route.ensure_route(&theirs).unwrap();
            let first = [to("10.244.1.0/24", "10.9.0.2"), to("fd00:244:1::/64", "fd00:9::2")];
            assert_eq!(ensure_all(&first), ["route 10.244.1.0/24", "route fd00:244:1::/64"]);
            assert_eq!(ensure_all(&first), Vec::<String>::new());
            let second = [to("10.244.1.0/24", "10.9.0.3"), to("10.244.2.0/24", "10.9.0.4")];
            assert_eq!(ensure_all(&second).len(), 4);
            assert_eq!(ensure_all(&second), Vec::<String>::new());
            let found = route.routes().unwrap();
            let ours: Vec<_> = found.iter().filter(|entry| entry.protocol == PROTOCOL).collect();
            assert_eq!(ours.len(), 2, "{found:?}");
            assert!(found.contains(&theirs));
            let mut applied = Applied::default();
            let error = ensure(&[to("10.1.0.0/16", "10.77.0.1")], &mut applied).unwrap_err();
            assert_eq!(error.to_string(), "set route to 10.1.0.0/16 failed");
        })
        .join()
        .unwrap();
    }
}
