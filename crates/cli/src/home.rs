//! The user's environment: who asked, and where their kubeconfig is. The only place that reads it besides [`crate::args`].

use std::env;

use bivouac_engine::kubeconfig::{Owner, UserFile};
use bivouac_spec::Problem;
use camino::Utf8PathBuf;

/// The user's kubeconfig file: the one named, the first of `$KUBECONFIG`, or ~/.kube/config. Under sudo it is that of the user
/// who called sudo, and stays theirs.
pub fn kubeconfig_file(named: Option<&Utf8PathBuf>) -> Option<UserFile> {
    let caller = sudo_caller();
    let owner = caller.as_ref().map(|caller| caller.owner);
    let from_environment = || {
        let list = env::var("KUBECONFIG").ok()?;
        list.split(':').find(|path| !path.is_empty()).map(Utf8PathBuf::from)
    };
    let home = || match &caller {
        Some(caller) => Some(caller.home.clone()),
        None => env::var("HOME").ok().filter(|home| !home.is_empty()).map(Utf8PathBuf::from),
    };
    let path = named
        .cloned()
        .or_else(from_environment)
        .or_else(|| home().map(|home| home.join(".kube/config")))?;
    // It is remembered, and looked for from other folders. What cannot be made absolute fails when it is opened.
    let path = camino::absolute_utf8(&path).unwrap_or(path);
    Some(UserFile { path, owner })
}

struct Caller {
    owner: Owner,
    home: Utf8PathBuf,
}

fn sudo_caller() -> Option<Caller> {
    let number = |name: &str| env::var(name).ok()?.parse::<u32>().ok();
    let owner = Owner { uid: number("SUDO_UID")?, gid: number("SUDO_GID")? };
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let uid = owner.uid.to_string();
    let home = users
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|user| user.get(2) == Some(&&*uid));
    Some(Caller { owner, home: Utf8PathBuf::from(*home?.get(5)?) })
}

/// Where the user's Docker engine is, if they say so (`$DOCKER_HOST`).
pub fn docker_host() -> Option<String> {
    env::var("DOCKER_HOST").ok()
}

/// The running binary, which is also the agent of every node.
///
/// # Errors
/// When it cannot be told.
pub fn own_binary() -> Result<Utf8PathBuf, Problem> {
    let unknown = |error: &dyn std::error::Error| Problem::from_error("cli.own_binary", error);
    let path = env::current_exe().map_err(|error| unknown(&error))?;
    Utf8PathBuf::try_from(path).map_err(|error| unknown(&error))
}
