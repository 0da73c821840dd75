//! A cluster as a folder that `docker compose up` makes it from, on this machine or another, with no bivouac there.

use std::net::{IpAddr, Ipv4Addr};

use bivouac_provider::{ImageRequest, NetworkRequest, NodeRequest, Progress};
use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};

use super::context::write_context;
use super::document::Document;
use super::folder::Folder;
use super::problem::usage;
use crate::docker::archive::Recipe;
use crate::docker::container::{Binding, Blueprint, MODULES, Offer, own_addresses};
use crate::docker::{image, names};

/// The provider that the containers name: whoever has bivouac sees and removes them like those of a cluster of its own.
const PROVIDER: &str = "compose";

/// The folder of the image, as the project names it.
const IMAGE: &str = "image";

/// A cluster that is exported.
#[derive(Debug)]
pub struct ExportRequest<'a> {
    /// Where to. What is there of the same cluster is replaced; nodes keep their machine ids.
    pub folder: &'a Utf8Path,
    /// Its network.
    pub network: &'a NetworkRequest,
    /// Its nodes. All their ports must name a port of the host.
    pub nodes: &'a [NodeRequest],
    /// The architecture of the node image.
    pub architecture: &'a str,
    /// Whether its engine can give nodes all rights. One that lacks one itself cannot.
    pub privileged: bool,
}

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// The name of the image that is built.
    pub image: String,
    /// The project file.
    pub file: Utf8PathBuf,
}

/// Writes the folder: the project last, so that one which is there is whole.
///
/// # Errors
/// When something cannot be read or written, or a port of a node names none of the host.
pub fn export(
    request: &ExportRequest<'_>,
    on_progress: &dyn Fn(Progress),
) -> Result<Exported, Problem> {
    let folder = Folder { path: request.folder.to_owned() };
    let mut document = Document::new(PROVIDER, request.network);
    let mut tag = String::new();
    for (index, node) in request.nodes.iter().enumerate() {
        if index == 0 {
            let recipe = recipe(request, node)?;
            write_context(&request.folder.join(IMAGE), &recipe, on_progress)?;
            tag = recipe.tag;
        }
        // One service builds for all: compose builds once for each service that says so.
        let build = (index == 0).then(|| format!("./{IMAGE}"));
        folder.write_node(node)?;
        describe(&mut document, request, node, &tag, build.as_deref())?;
    }
    for stale in folder.nodes() {
        if !request.nodes.iter().any(|node| node.node == stale) {
            folder.remove_node(&stale)?;
        }
    }
    folder.write(&document)?;
    Ok(Exported { image: tag, file: folder.file() })
}

fn recipe(request: &ExportRequest<'_>, node: &NodeRequest) -> Result<Recipe, Problem> {
    let agent_digest = image::agent_digest(&node.agent)?;
    Ok(Recipe {
        tag: names::image(&node.image.digest, &agent_digest),
        agent_digest,
        request: ImageRequest { image: node.image.clone(), agent: node.agent.clone() },
        architecture: request.architecture.to_owned(),
    })
}

fn describe(
    document: &mut Document,
    request: &ExportRequest<'_>,
    node: &NodeRequest,
    tag: &str,
    build: Option<&str>,
) -> Result<(), Problem> {
    let bindings = node.ports.iter().map(|port| {
        let host_port = port.host_port.ok_or_else(|| {
            let message =
                format!("port {} of node {} has no port of the host", port.port, node.node);
            usage("no_host_port", message).help("name one with `hostPort` in `spec.ports`")
        })?;
        let host_ip = port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        Ok(Binding { port: port.clone(), host_ip, host_port })
    });
    let bindings = bindings.collect::<Result<Vec<_>, Problem>>()?;
    // What every machine has that runs containers; where modules are missing, an empty folder takes their place. Images that nodes
    // share are this machine's alone.
    let offer = Offer {
        privileged: request.privileged,
        devices: vec!["/dev/kmsg".to_owned()],
        modules: Utf8Path::new(MODULES).exists(),
        shared_images: None,
        shared_cache: None,
    };
    let blueprint = Blueprint {
        provider: PROVIDER,
        request: node,
        addresses: own_addresses(node)?,
        image: tag,
        offer: &offer,
        bindings: &bindings,
    };
    document.set_node(PROVIDER, node, blueprint.render(), build);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::samples;

    fn exported(dir: &Utf8Path, nodes: &[NodeRequest]) -> Result<Exported, Problem> {
        let network = NetworkRequest {
            cluster: nodes[0].cluster.clone(),
            addresses: nodes[0].addresses.clone(),
            ports: Vec::new(),
        };
        let request = ExportRequest {
            folder: &dir.join("export"),
            network: &network,
            nodes,
            architecture: "amd64",
            privileged: true,
        };
        export(&request, &|_| ())
    }

    #[test]
    fn an_export_is_replaced_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let mut node = samples::node();
        node.agent = dir.join("agent");
        std::fs::write(&node.agent, "an agent").unwrap();
        let problem = exported(dir, std::slice::from_ref(&node)).unwrap_err();
        assert_eq!(problem.code, "provider.compose.no_host_port");
        node.ports[0].host_port = Some(6443);
        let other =
            NodeRequest { node: "worker-1".parse().unwrap(), ports: Vec::new(), ..node.clone() };
        let file = exported(dir, &[node.clone(), other]).unwrap().file;
        let read = |path: &str| std::fs::read_to_string(dir.join("export").join(path)).unwrap();
        let before = read("nodes/worker-0/ground.json");
        assert!(read("docker-compose.yaml").contains("worker-1"));
        exported(dir, &[node]).unwrap();
        assert_eq!(read("nodes/worker-0/ground.json"), before);
        assert!(!dir.join("export/nodes/worker-1").exists());
        assert!(!std::fs::read_to_string(file).unwrap().contains("bivouac-demo.worker-1"));
    }
}
