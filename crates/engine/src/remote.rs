//! The way of a cluster's access into the configuration of the user's `incus` client, and out of it again.
//!
//! ```text
//! config.yml                        remotes: bivouac-NAME
//! clientcerts/bivouac-NAME.{crt,key} who the user is to this cluster, whoever they are to others
//! servercerts/bivouac-NAME.crt      what the cluster shows
//! ```

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;

use bivouac_pki::entry_name;
use bivouac_spec::{ClusterName, Problem};
use bivouac_stacks::IncusAccess;
use camino::{Utf8Path, Utf8PathBuf};

use crate::kubeconfig::{Owner, UserFile};
use crate::state::write_atomically;

/// The files of a remote beside the configuration itself.
fn files(config: &Utf8Path, name: &str) -> [Utf8PathBuf; 3] {
    let folder = config.parent().unwrap_or(Utf8Path::new("."));
    [
        folder.join("clientcerts").join(format!("{name}.crt")),
        folder.join("clientcerts").join(format!("{name}.key")),
        folder.join("servercerts").join(format!("{name}.crt")),
    ]
}

/// Enters the access, reached at this address, into the user's configuration.
pub(crate) fn merge_remote(
    config: &UserFile,
    access: &IncusAccess,
    at: std::net::SocketAddr,
) -> Result<(), Problem> {
    let name = entry_name(access.cluster.as_str());
    let [certificate, key, server] = files(&config.path, &name);
    let owner = config.owner;
    write(&certificate, &access.client.certificate, 0o644, owner)?;
    write(&key, access.client.key.expose(), 0o600, owner)?;
    write(&server, &access.certificate, 0o644, owner)?;
    edit(config, |text| bivouac_pki::merge_remote(text, &name, &format!("https://{at}")))
}

/// Takes the remote of a cluster out of a user's configuration. Files that are gone already are success.
pub(crate) fn remove_remote(cluster: &ClusterName, config: &UserFile) -> Result<(), Problem> {
    let name = entry_name(cluster.as_str());
    if config.path.exists() {
        edit(config, |text| bivouac_pki::remove_remote(text.unwrap_or_default(), &name))?;
    }
    for file in files(&config.path, &name) {
        match std::fs::remove_file(&file) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(unwritable(&file, &error));
            }
            _ => {}
        }
        // A folder that is not empty stays: that is the question asked.
        let _ = file.parent().map(std::fs::remove_dir);
    }
    Ok(())
}

/// The client writes this file without a lock, so there is none to take.
fn edit(
    config: &UserFile,
    change: impl FnOnce(Option<&str>) -> bivouac_pki::Result<String>,
) -> Result<(), Problem> {
    let path = &config.path;
    let before = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            let message = format!("cannot read {path}");
            return Err(Problem::failed("remote.unreadable", message).because(&error));
        }
    };
    let after = change(before.as_deref()).map_err(|error| Problem::from(&error))?;
    let says_nothing =
        bivouac_pki::has_no_remotes(&after).map_err(|error| Problem::from(&error))?;
    match before {
        Some(before) if before == after => Ok(()),
        Some(_) if says_nothing => std::fs::remove_file(path).map_err(|e| unwritable(path, &e)),
        _ => write(path, &after, 0o600, config.owner),
    }
}

fn write(path: &Utf8Path, text: &str, mode: u32, owner: Option<Owner>) -> Result<(), Problem> {
    let place = path.canonicalize_utf8().unwrap_or_else(|_| path.to_owned());
    let existing = std::fs::metadata(&place).ok();
    let owner = existing.map(|it| Owner { uid: it.uid(), gid: it.gid() }).or(owner);
    let make = || -> std::io::Result<()> {
        let folder = place.parent().filter(|folder| !folder.exists());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)?;
            if let Some(owner) = owner {
                std::os::unix::fs::chown(folder, Some(owner.uid), Some(owner.gid))?;
            }
        }
        write_atomically(&place, text.as_bytes(), mode, owner)
    };
    make().map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Utf8Path, error: &std::io::Error) -> Problem {
    Problem::failed("remote.unwritable", format!("cannot write {path}"))
        .because(error)
        .help("name another folder for the incus client with $INCUS_CONF")
}

#[cfg(test)]
mod tests {
    use bivouac_pki::{Issued, Secret};

    use super::*;

    fn access() -> IncusAccess {
        IncusAccess {
            cluster: "demo".parse().unwrap(),
            node: "member-0".parse().unwrap(),
            address: "10.89.0.2:8443".parse().unwrap(),
            certificate: "cluster".to_owned(),
            client: Issued { certificate: "user".to_owned(), key: Secret::new("key") },
        }
    }

    #[test]
    fn what_comes_in_goes_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let mine = "default-remote: mine\nremotes:\n  mine:\n    addr: https://a:8443\n";
        for before in [None, Some(mine)] {
            let config = UserFile { path: folder.join("incus/config.yml"), owner: None };
            if let Some(text) = before {
                write(&config.path, text, 0o644, None).unwrap();
            }
            let access = access();
            merge_remote(&config, &access, access.address).unwrap();
            merge_remote(&config, &access, access.address).unwrap();
            let text = std::fs::read_to_string(&config.path).unwrap();
            assert!(text.contains("bivouac-demo") && text.contains("https://10.89.0.2:8443"));
            let key = config.path.with_file_name("clientcerts/bivouac-demo.key");
            assert_eq!(std::fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
            let cluster = "demo".parse().unwrap();
            remove_remote(&cluster, &config).unwrap();
            remove_remote(&cluster, &config).unwrap();
            assert!(!key.exists());
            let after = std::fs::read_to_string(&config.path).ok();
            assert_eq!(after.is_some(), before.is_some());
            assert!(after.is_none_or(|text| text.contains("mine") && !text.contains("bivouac")));
            let left = std::fs::read_dir(config.path.parent().unwrap()).unwrap().count();
            assert_eq!(left, usize::from(before.is_some()));
        }
    }
}
