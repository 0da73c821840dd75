//! What is put into a container before it starts: the node config, and what the agent must know of its ground.

use std::io;
use std::net::IpAddr;

use bivouac_provider::NodeRequest;
use bivouac_spec::Problem;
use bivouac_spec::network::NodeAddresses;
use bivouac_spec::node::{Ground, Route, paths};
use tar::{Builder, EntryType, Header};

use super::create::Data;
use super::problem::{OrProblem as _, failed};
use crate::hosts::render_hosts;

/// Folders of `/var` by the Filesystem Hierarchy Standard, with their permission bits.
const VAR: [(&str, u32); 7] = [
    ("/var/cache", 0o755),
    ("/var/lib", 0o755),
    ("/var/local", 0o755),
    ("/var/log", 0o755),
    ("/var/opt", 0o755),
    ("/var/spool", 0o755),
    ("/var/tmp", 0o1777),
];

/// Links of `/var` by the same standard.
const VAR_LINKS: [(&str, &str); 2] = [("/var/run", "/run"), ("/var/lock", "/run/lock")];

/// What the ground leaves to the agent.
pub(super) fn ground(request: &NodeRequest, machine_id: &str) -> Ground {
    let others = request.addresses.nodes.iter().filter(|(name, _)| **name != request.node);
    let routes = others.flat_map(|(_, node)| {
        node.pod_networks.iter().filter_map(|pods| {
            let is_ipv6 = pods.addr().is_ipv6();
            let via = node.addresses.iter().find(|address| address.is_ipv6() == is_ipv6)?;
            Some(Route { to: *pods, via: *via })
        })
    });
    Ground {
        machine_id: machine_id.to_owned(),
        hosts: render_hosts(&request.cluster, &request.node, &request.addresses),
        routes: routes.collect(),
        resolver: request.addresses.nodes.get(&request.node).map(resolver),
        resources: request.resources,
    }
}

/// The address at which the node offers the engine's DNS server, which listens on IPv4 alone: one of that family where there is one.
fn resolver(own: &NodeAddresses) -> IpAddr {
    own.addresses.iter().copied().find(IpAddr::is_ipv4).unwrap_or_else(|| own.primary())
}

/// Both documents, each with its place in the node.
pub(super) fn documents(
    request: &NodeRequest,
    machine_id: &str,
) -> Result<[(&'static str, Vec<u8>); 2], Problem> {
    let message = || format!("the config of node {} cannot be written", request.node);
    let config = serde_json::to_vec(&request.config).or_problem("config", message())?;
    let ground =
        serde_json::to_vec(&ground(request, machine_id)).or_problem("config", message())?;
    Ok([(paths::CONFIG, config), (paths::GROUND, ground)])
}

/// An archive with both documents, which only root may read because they hold keys. For a new volume with what nodes expect in `/var`,
/// too.
pub(super) fn archive(request: &NodeRequest, volume: &Data) -> Result<Vec<u8>, Problem> {
    let documents = documents(request, &volume.machine_id)?;
    let folders = VAR.into_iter().chain(paths::REAL_DIRECTORIES.map(|it| (it, 0o755)));
    let (folders, links): (Vec<_>, &[_]) =
        if volume.is_new { (folders.collect(), &VAR_LINKS) } else { (Vec::new(), &[]) };
    let write = || -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, mode) in folders {
            let mut header = header(EntryType::Directory, mode);
            archive.append_data(&mut header, path.trim_start_matches('/'), io::empty())?;
        }
        for (path, target) in links {
            let mut header = header(EntryType::Symlink, 0o777);
            archive.append_link(&mut header, path.trim_start_matches('/'), target)?;
        }
        for (path, content) in documents {
            let mut header = header(EntryType::Regular, 0o600);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path.trim_start_matches('/'), &content[..])?;
        }
        archive.into_inner()
    };
    write()
        .or_problem("config", format_args!("the config of node {} cannot be written", request.node))
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header
}

/// A fresh machine id: 32 hexadecimal digits, as machine-id(5) wants it.
pub(super) fn new_machine_id() -> Result<String, Problem> {
    let path = "/proc/sys/kernel/random/uuid";
    let text = fs_err::read_to_string(path);
    let text =
        text.map_err(|error| failed("machine_id", "no machine id can be made").because(&error))?;
    Ok(text.trim().replace('-', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;
    use bivouac_spec::network::Families;
    use std::io::Read as _;

    #[test]
    fn the_agent_learns_of_its_ground() {
        insta::assert_json_snapshot!(ground(&samples::node(), "0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn pods_are_reached_through_nodes_of_their_family() {
        let mut request = samples::node();
        request.addresses = samples::dual_stack(2);
        let routes = ground(&request, "").routes;
        let routes: Vec<_> =
            routes.iter().map(|route| format!("{} {}", route.to, route.via)).collect();
        assert_eq!(routes, ["10.244.1.0/24 10.89.7.3", "fd00:244:0:1::/64 fd00:89::3"]);
    }

    #[test]
    fn names_are_asked_for_over_ipv4_whichever_family_is_preferred() {
        let mut own = samples::dual_stack(1).nodes.into_values().next().unwrap();
        let [ipv4, ipv6] = [own.addresses.primary, own.addresses.secondary.unwrap()];
        assert_eq!(resolver(&own), ipv4);
        own.addresses = Families { primary: ipv6, secondary: Some(ipv4) };
        assert_eq!(resolver(&own), ipv4);
        own.addresses = Families::single(ipv6);
        assert_eq!(resolver(&own), ipv6);
    }

    #[test]
    fn nobody_but_root_reads_what_is_put_in() {
        let data = |is_new| Data { machine_id: "id".to_owned(), is_new };
        let all = archive(&samples::node(), &data(true)).unwrap();
        let mut all = tar::Archive::new(&all[..]);
        let tmp = all.entries().unwrap().map(Result::unwrap);
        let mut tmp = tmp.filter(|entry| entry.path().unwrap().ends_with("var/tmp"));
        assert_eq!(tmp.next().unwrap().header().mode().unwrap(), 0o1777);
        let bytes = archive(&samples::node(), &data(false)).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut seen = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!(entry.header().mode().unwrap(), 0o600);
            assert_eq!(entry.header().uid().unwrap(), 0);
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert!(text.starts_with('{'));
            seen.push(format!("/{}", entry.path().unwrap().display()));
        }
        assert_eq!(seen, [paths::CONFIG, paths::GROUND]);
    }
}
