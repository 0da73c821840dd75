//! What a node was made from, or made to be since, and its first process. Both are looked at, never trusted: a process counts only while its start
//! time and the boot agree, and whatever is missing here is found in the kernel.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;

use bivouac_spec::network::Families;
use bivouac_spec::{ClusterName, NodeName, Problem};
use bivouac_sys::process::ProcessId;
use camino::Utf8Path;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::folder::NodeFolder;
use super::group;
use super::problem::OrProblem as _;

/// What a node was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeRecord {
    /// The format of this file.
    pub(super) format: u32,
    /// Random, made once: the node's machine id.
    pub(super) machine_id: String,
    /// Its addresses.
    pub(super) addresses: Families<IpAddr>,
    /// The networks of its pods.
    pub(super) pod_networks: Vec<IpNet>,
    /// What plans compare.
    pub(super) made: bivouac_spec::NodeRecord,
    /// The digest of its image.
    pub(super) image_digest: String,
    /// The folders of its control group: where it is depends on who started the node. None yet: not known.
    #[serde(default)]
    pub(super) groups: Vec<PathBuf>,
}

impl NodeRecord {
    /// The format that this version writes and reads.
    pub(super) const FORMAT: u32 = 2;

    /// Reads it; `None` if there is none, or it is damaged. One of another format is an error.
    pub(super) fn read(folder: &NodeFolder) -> Result<Option<Self>, Problem> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let text = std::fs::read(folder.record()).unwrap_or_default();
        let head = serde_json::from_slice::<Head>(&text).ok();
        match head.map(|head| head.format).filter(|format| *format != Self::FORMAT) {
            Some(other) => Err(other_format(folder, other)),
            None => Ok(serde_json::from_slice(&text).ok()),
        }
    }

    /// Writes it.
    pub(super) fn write(&self, folder: &NodeFolder) -> Result<(), Problem> {
        let text = serde_json::to_vec_pretty(self)
            .or_problem("record", format_args!("{} cannot be written", folder.record()))?;
        write_secret(&folder.record(), &text)
    }

    /// Waits until it is on the disk: a power failure must not leave an empty file in its place.
    pub(super) fn sync(folder: &NodeFolder) -> Result<(), Problem> {
        let path = folder.record();
        fs_err::File::open(&path)
            .and_then(|file| file.sync_data())
            .or_problem("record", format_args!("{path} cannot be written"))
    }
}

fn other_format(folder: &NodeFolder, format: u32) -> Problem {
    let (path, own, version) = (folder.record(), NodeRecord::FORMAT, env!("CARGO_PKG_VERSION"));
    let message = format!("{path} has format {format}, and bivouac {version} reads format {own}");
    Problem::usage("provider.linux.format", message).help(format!(
        "use the version of bivouac that made the node, or remove the cluster with `bivouac down` of version {version}"
    ))
}

/// A fresh machine id: 32 hexadecimal digits, as machine-id(5) wants it.
pub(super) fn new_machine_id() -> Result<String, Problem> {
    let path = "/proc/sys/kernel/random/uuid";
    let text =
        fs_err::read_to_string(path).or_problem("machine_id", "no machine id can be made")?;
    Ok(text.trim().replace('-', ""))
}

/// Writes a file that only root may read, whole or not at all.
pub(super) fn write_secret(path: &Utf8Path, content: &[u8]) -> Result<(), Problem> {
    let write = || -> io::Result<()> {
        let new = path.with_extension(format!("new-{}", std::process::id()));
        let mut options = fs_err::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&new)?;
        file.write_all(content)?;
        fs_err::rename(&new, path)
    };
    write().or_problem("write", format_args!("{path} cannot be written"))
}

/// The first process of a node, if it runs: as the folder says, or else found by looking.
pub(super) fn find_process(
    folder: &NodeFolder,
    cluster: &ClusterName,
    node: &NodeName,
) -> Result<Option<ProcessId>, Problem> {
    if let Some(process) = noted_process(folder) {
        return Ok(Some(process));
    }
    let Some(group) = group::find(folder, cluster, node)? else { return Ok(None) };
    group::first_process(&group, cluster, node).or_problem(
        "find_process",
        format_args!("the processes of node {node} of cluster {cluster} cannot be listed"),
    )
}

/// The first process of a node, if the folder says it and it runs.
pub(super) fn noted_process(folder: &NodeFolder) -> Option<ProcessId> {
    let noted = std::fs::read_to_string(folder.process()).ok()?;
    let noted = noted.trim().parse::<ProcessId>().ok()?;
    noted.is_alive().unwrap_or(false).then_some(noted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_spec::Class;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_record_reads_back_and_a_damaged_one_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let folder = NodeFolder(dir.path().to_owned().try_into().unwrap());
        assert_eq!(NodeRecord::read(&folder), Ok(None));
        let record = NodeRecord {
            format: NodeRecord::FORMAT,
            machine_id: new_machine_id().unwrap(),
            addresses: Families::single("10.89.0.2".parse().unwrap()),
            pod_networks: vec!["10.244.0.0/24".parse().unwrap()],
            made: bivouac_spec::NodeRecord {
                config: "sha256:1".into(),
                image: "key".into(),
                resources: bivouac_spec::cluster::Resources::default(),
                ports: Vec::new(),
                neighbours: "sha256:3".into(),
            },
            image_digest: "sha256:2".into(),
            groups: vec!["/sys/fs/cgroup/bivouac/a/b".into()],
        };
        assert_eq!(record.machine_id.len(), 32);
        record.write(&folder).unwrap();
        NodeRecord::sync(&folder).unwrap();
        assert_eq!(NodeRecord::read(&folder), Ok(Some(record)));
        let mode = std::fs::metadata(folder.record()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for other in
            ["{\"format\": 1, \"address\": \"10.89.0.2\"}", "{\"format\": 99, \"new\": true}"]
        {
            std::fs::write(folder.record(), other).unwrap();
            let problem = NodeRecord::read(&folder).unwrap_err();
            assert_eq!(problem.code, "provider.linux.format");
            assert_eq!(problem.class, Class::Usage);
            assert!(problem.help.unwrap().contains(env!("CARGO_PKG_VERSION")));
        }
        for damaged in ["{", "{\"format\": 2}", ""] {
            std::fs::write(folder.record(), damaged).unwrap();
            assert_eq!(NodeRecord::read(&folder), Ok(None));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
