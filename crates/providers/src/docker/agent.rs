//! The digest of the agent. Reading a binary of tens of megabytes on every `up` would cost more than asking the engine: it is
//! remembered as long as the file is the same.

use std::os::unix::fs::MetadataExt as _;

use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::problem::OrProblem as _;

/// A digest, and the file that it was taken of.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    file: Identity,
    digest: String,
}

/// What changes when the content of a file does.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: Utf8PathBuf,
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The digest of the agent: `sha256:HEX`. `memory` is where it is remembered; not being able to is no failure.
///
/// # Errors
/// When the agent cannot be read.
pub(super) fn digest(agent: &Utf8Path, memory: &Utf8Path) -> Result<String, Problem> {
    let message = || format!("the agent {agent} cannot be read");
    let metadata = fs_err::metadata(agent).or_problem("agent", message())?;
    let file = Identity {
        path: agent.to_owned(),
        device: metadata.dev(),
        inode: metadata.ino(),
        length: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    let text = std::fs::read(memory).unwrap_or_default();
    if let Ok(known) = serde_json::from_slice::<Remembered>(&text)
        && known.file == file
    {
        return Ok(known.digest);
    }
    let mut hash = Sha256::new();
    let mut content = fs_err::File::open(agent).or_problem("agent", message())?;
    std::io::copy(&mut content, &mut hash).or_problem("agent", message())?;
    let remembered =
        Remembered { file, digest: format!("sha256:{}", hex::encode(hash.finalize())) };
    let _ = remember(memory, &remembered);
    Ok(remembered.digest)
}

fn remember(memory: &Utf8Path, remembered: &Remembered) -> std::io::Result<()> {
    let new = memory.with_extension(format!("new-{}", std::process::id()));
    std::fs::create_dir_all(memory.parent().unwrap_or(Utf8Path::new("/")))?;
    std::fs::write(&new, serde_json::to_vec(remembered)?)?;
    std::fs::rename(&new, memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_agent_has_another_digest() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(dir.path()).unwrap();
        let (agent, memory) = (folder.join("agent"), folder.join("state/agent.json"));
        assert_eq!(digest(&agent, &memory).unwrap_err().code, "provider.docker.agent");
        std::fs::write(&agent, "one").unwrap();
        let one = digest(&agent, &memory).unwrap();
        assert_eq!(one, format!("sha256:{}", hex::encode(Sha256::digest("one"))));
        assert!(memory.exists());
        assert_eq!(digest(&agent, &memory).unwrap(), one);
        std::fs::write(&agent, "other").unwrap();
        assert_ne!(digest(&agent, &memory).unwrap(), one);
        std::fs::write(&memory, "{").unwrap();
        assert_ne!(digest(&agent, &memory).unwrap(), one);
    }
}
