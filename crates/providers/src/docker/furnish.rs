//! What is put into a container before it starts: the node config, and what the agent must know of its ground.

use std::io;

use bivouac_provider::NodeRequest;
use bivouac_spec::Problem;
use bivouac_spec::node::{Ground, Route, paths};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::problem::{OrProblem as _, failed};
use crate::hosts::render_hosts;

/// What the ground leaves to the agent.
pub(super) fn ground(request: &NodeRequest, machine_id: &str) -> Ground {
    let others = request.addresses.nodes.iter().filter(|(name, _)| **name != request.node);
    let routes = others.flat_map(|(_, node)| {
        node.pod_networks.iter().map(|pods| Route { to: *pods, via: node.address })
    });
    Ground {
        machine_id: machine_id.to_owned(),
        hosts: render_hosts(&request.cluster, &request.node, &request.addresses),
        routes: routes.collect(),
        resolver: request.addresses.nodes.get(&request.node).map(|node| node.address),
    }
}

/// The digest of what the ground leaves to the agent. The machine id, which stays with the node, does not count.
pub(super) fn digest(request: &NodeRequest) -> String {
    let text = serde_json::to_vec(&ground(request, "")).expect("a ground has string keys only");
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

/// An archive with both documents. Only root may read them: they hold keys.
pub(super) fn archive(request: &NodeRequest, machine_id: &str) -> Result<Vec<u8>, Problem> {
    let message = || format!("the config of node {} cannot be written", request.node);
    let config = serde_json::to_vec(&request.config).or_problem("config", message())?;
    let ground =
        serde_json::to_vec(&ground(request, machine_id)).or_problem("config", message())?;
    let write = || -> io::Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for (path, content) in [(paths::CONFIG, config), (paths::GROUND, ground)] {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o600);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(content.len() as u64);
            archive.append_data(&mut header, path.trim_start_matches('/'), &content[..])?;
        }
        archive.into_inner()
    };
    write().or_problem("config", message())
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
    use std::io::Read as _;

    #[test]
    fn the_agent_learns_of_its_ground() {
        insta::assert_json_snapshot!(ground(&samples::node(), "0123456789abcdef0123456789abcdef"));
    }

    #[test]
    fn another_ground_has_another_digest() {
        let mut request = samples::node();
        let before = digest(&request);
        assert_eq!(digest(&request), before);
        request.addresses = crate::samples::addresses(2);
        assert_ne!(digest(&request), before);
    }

    #[test]
    fn nobody_but_root_reads_what_is_put_in() {
        let bytes = archive(&samples::node(), "id").unwrap();
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
