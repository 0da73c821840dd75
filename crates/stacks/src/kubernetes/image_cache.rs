//! The cache of container images: a service of each node, which its containerd asks before anybody else. What it keeps lies in a folder that
//! nodes of this host share; see the agent for how.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bivouac_spec::Problem;
use bivouac_spec::cluster::{self, Registry};
use bivouac_spec::node::{self, Check, Content, File, Probe, Service, Upstream, paths};

use super::command::Command;
use super::layout::Layout;
use super::registries::{self, authorization};
use super::sources::Sources;
use super::{keys, places, tuning};
use crate::stack::Keys;

/// The service.
const IMAGE_CACHE: &str = "image-cache";

/// Where containerd asks. Nobody outside of the node does.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7445);

/// The cache of a cluster that has one.
pub(super) struct ImageCache {
    settings: cluster::ImageCache,
    /// What containerd says, so that it is known from others in the node.
    token: String,
}

impl ImageCache {
    /// The cache, where nodes can share a folder.
    pub(super) fn of(layout: &Layout<'_>, keys: &Keys) -> Result<Option<Self>, Problem> {
        let Some(settings) = wanted(layout) else { return Ok(None) };
        Ok(Some(Self { settings, token: keys::token(keys, IMAGE_CACHE)? }))
    }

    /// The part of a `hosts.toml` that names it. Before all others: they are asked in the order of the file.
    pub(super) fn host(&self) -> String {
        let table = format!("host.\"http://{LISTEN}\"");
        let (header, token) = (node::ImageCache::HEADER, &self.token);
        format!(
            "\n[{table}]\ncapabilities = [\"pull\", \"resolve\"]\n\n[{table}.header]\n{header} = \"{token}\"\n"
        )
    }

    /// What it is told.
    pub(super) fn file(&self, layout: &Layout<'_>, sources: &Sources) -> Result<File, Problem> {
        let mut registries = BTreeMap::new();
        for registry in &layout.settings.registries {
            registries.insert(registry.host.clone(), upstreams(registry, sources)?);
        }
        let own = Upstream { url: None, authorization: None, authorities: None, insecure: false };
        registries.entry(Registry::ALL.to_owned()).or_insert_with(|| vec![own]);
        let token = Content(self.token.clone());
        let (cluster, size) = (layout.cluster.clone(), self.settings.size);
        let config = node::ImageCache { cluster, size, token, registries };
        let text = serde_json::to_string_pretty(&config).expect("it has string keys only");
        Ok(File::secret(places::IMAGE_CACHE, format!("{text}\n")))
    }
}

fn wanted(layout: &Layout<'_>) -> Option<cluster::ImageCache> {
    layout.settings.image_cache.filter(|_| layout.facts.shares_images)
}

/// Who is asked for the images of a registry, in the order in which containerd would ask them.
fn upstreams(registry: &Registry, sources: &Sources) -> Result<Vec<Upstream>, Problem> {
    let mut upstreams = Vec::new();
    let header = |credentials: &Option<cluster::Credentials>| {
        let credentials = credentials.as_ref().map(|it| authorization(it, sources));
        Ok::<_, Problem>(credentials.transpose()?.map(Content))
    };
    for (index, mirror) in registry.mirrors.iter().enumerate() {
        let is_secure = mirror.url.starts_with("https:");
        let authorities = mirror.ca_file.as_ref().filter(|_| is_secure);
        upstreams.push(Upstream {
            url: Some(registries::api(&mirror.url)),
            authorization: header(&mirror.credentials)?,
            authorities: authorities.map(|_| registries::mirror_authorities(registry, index)),
            insecure: mirror.insecure && is_secure,
        });
    }
    if !registry.only_mirrors {
        upstreams.push(Upstream {
            url: None,
            authorization: header(&registry.credentials)?,
            authorities: registry.ca_file.as_ref().map(|_| registries::own_authorities(registry)),
            insecure: registry.insecure,
        });
    }
    Ok(upstreams)
}

/// The service of a node.
pub(super) fn service(layout: &Layout<'_>) -> Option<Service> {
    wanted(layout)?;
    let command = Command::at(paths::AGENT)
        .word("agent")
        .word("image-cache")
        .flag("listen", LISTEN)
        .flag("folder", paths::SHARED_CACHE)
        .flag("config", places::IMAGE_CACHE);
    let listens = Probe::new(Check::Tcp(LISTEN)).every(tuning::PROBE);
    let mut service = command.service(layout, IMAGE_CACHE, listens);
    service.environment = registries::environment(layout);
    // Its threads have little to remember: they share what there is.
    service.environment.insert("MALLOC_ARENA_MAX".to_owned(), "1".to_owned());
    Some(service)
}
