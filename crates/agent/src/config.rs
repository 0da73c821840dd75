//! Reading the node config, and what can be said of a node whose config cannot be read.

use std::fs;

use bivouac_spec::node::check_units;
use bivouac_spec::{ClusterName, NodeConfig, NodeName, Problem};
use camino::Utf8Path;

/// Who the node is, as far as it is known.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) cluster: ClusterName,
    pub(crate) node: NodeName,
    /// The digest of the config.
    pub(crate) config: String,
}

/// A config that cannot be used.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) identity: Identity,
    pub(crate) problems: Vec<Problem>,
}

/// Reads and checks a node config.
pub(crate) fn open_config(path: &Utf8Path) -> Result<(NodeConfig, Identity), Refused> {
    let text = fs::read_to_string(path).map_err(|error| {
        let problem = Problem::failed("agent.config.unreadable", format!("cannot read {path}"));
        let problems = vec![problem.because(&error)];
        Refused { identity: guess(""), problems }
    })?;
    let config: NodeConfig = serde_json::from_str(&text).map_err(|error| {
        let message = format!("{path} is no node config of this version");
        let problem = Problem::failed("agent.config.malformed", message).because(&error);
        Refused { identity: guess(&text), problems: vec![problem] }
    })?;
    let identity = Identity {
        cluster: config.cluster.clone(),
        node: config.node.clone(),
        config: config.digest(),
    };
    let faults = check_units(&config);
    if faults.is_empty() {
        return Ok((config, identity));
    }
    let problems =
        faults.into_iter().map(|fault| Problem::failed("agent.config.units", fault)).collect();
    Err(Refused { identity, problems })
}

/// Names from whatever the file holds, else from the host name: a status needs some.
fn guess(text: &str) -> Identity {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let named = |field: &str| json.get(field).and_then(|name| name.as_str()?.parse().ok());
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let node = json.get("node").and_then(|name| name.as_str()?.parse().ok());
    Identity {
        cluster: named("cluster").unwrap_or_else(|| known("unknown")),
        node: node.or_else(|| host.parse().ok()).unwrap_or_else(|| known("unknown")),
        config: String::new(),
    }
}

fn known<T: std::str::FromStr>(name: &str) -> T
where
    T::Err: std::fmt::Debug,
{
    name.parse().expect("a DNS label")
}
