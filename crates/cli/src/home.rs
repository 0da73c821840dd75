//! The user's environment: who asked, where their kubeconfig and their container engine are, and what options they set there. The
//! only place that reads it.

use std::env;
use std::io::IsTerminal as _;

use bivouac_engine::kubeconfig::{Owner, UserFile};
use bivouac_providers::docker::EngineEnvironment;
use bivouac_spec::Problem;
use camino::Utf8PathBuf;
use clap::ValueEnum as _;

use crate::args::{Global, GlobalOptions, ProgressStyle, folder};

/// The options of every command, completed from the environment.
///
/// # Errors
/// When a variable has a value that the option would not take.
pub fn global(options: &GlobalOptions) -> Result<Global, Problem> {
    let progress = |text: &str| {
        ProgressStyle::from_str(text, false).map_err(|_| "it is no style of progress".to_owned())
    };
    let default = || Utf8PathBuf::from("/var/lib/bivouac");
    let state_dir = options_or(options.state_dir.clone(), "BIVOUAC_STATE_DIR", folder)?;
    let state_dir = state_dir.unwrap_or_else(default);
    let store = options_or(options.store.clone(), "BIVOUAC_STORE", folder)?;
    let store = store.unwrap_or_else(|| state_dir.join("store"));
    let cache = options_or(options.image_cache.clone(), "BIVOUAC_IMAGE_CACHE", folder)?;
    Ok(Global {
        image_cache: cache.unwrap_or_else(|| store.join("cache")),
        store,
        state_dir,
        progress: options_or(options.progress, "BIVOUAC_PROGRESS", progress)?.unwrap_or_default(),
        color: color(),
        docker: engine_environment(),
    })
}

/// What was typed, or else the variable of this name.
fn options_or<T>(
    typed: Option<T>,
    name: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, Problem> {
    let value = match (typed, env::var_os(name)) {
        (Some(typed), _) => return Ok(Some(typed)),
        (None, None) => return Ok(None),
        (None, Some(value)) => value,
    };
    let text = value.to_string_lossy();
    parse(&text).map(Some).map_err(|why| {
        let mut problem = Problem::usage("cli.environment", format!("${name} is `{text}`"));
        problem.causes.push(why);
        problem.help(format!("correct the variable {name}, or unset it"))
    })
}

/// Whether standard error may be colored.
pub fn color() -> bool {
    std::io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none()
}

/// What the environment says of container engines, as the docker command reads it.
fn engine_environment() -> EngineEnvironment {
    let path = |name: &str| variable(name).map(Utf8PathBuf::from);
    EngineEnvironment {
        host: variable("DOCKER_HOST"),
        context: variable("DOCKER_CONTEXT"),
        cert_path: path("DOCKER_CERT_PATH"),
        tls_verify: variable("DOCKER_TLS_VERIFY").is_some(),
        api_version: variable("DOCKER_API_VERSION"),
        config: path("DOCKER_CONFIG")
            .or_else(|| Some(home(sudo_caller().as_ref())?.join(".docker"))),
        runtime: path("XDG_RUNTIME_DIR"),
    }
}

/// A variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The user's home folder. Under sudo it is that of the user who called sudo.
fn home(caller: Option<&Caller>) -> Option<Utf8PathBuf> {
    match caller {
        Some(caller) => Some(caller.home.clone()),
        None => variable("HOME").map(Utf8PathBuf::from),
    }
}

/// The user's kubeconfig file: the one named, the first of `$KUBECONFIG`, or ~/.kube/config. Under sudo it is that of the user
/// who called sudo, and stays theirs.
pub fn kubeconfig_file(named: Option<&Utf8PathBuf>) -> Option<UserFile> {
    let caller = sudo_caller();
    let owner = caller.as_ref().map(|caller| caller.owner);
    let from_environment = || {
        let list = env::var("KUBECONFIG").ok()?;
        list.split(':').find(|path| !path.is_empty()).map(Utf8PathBuf::from)
    };
    let path = named
        .cloned()
        .or_else(from_environment)
        .or_else(|| Some(home(caller.as_ref())?.join(".kube/config")))?;
    // It is remembered, and looked for from other folders. What cannot be made absolute fails when it is opened.
    let path = camino::absolute_utf8(&path).unwrap_or(path);
    Some(UserFile { path, owner })
}

/// Whose files are that are made for the user: under sudo, the user's who called it.
pub fn owner() -> Option<Owner> {
    sudo_caller().map(|caller| caller.owner)
}

/// The configuration of the user's `incus` client, unless there is neither a folder for it nor a client.
pub fn incus_file() -> Option<UserFile> {
    let caller = sudo_caller();
    let named = variable("INCUS_CONF").map(Utf8PathBuf::from);
    let folder = named.clone().or_else(|| Some(home(caller.as_ref())?.join(".config/incus")))?;
    let path = variable("PATH").unwrap_or_default();
    let has_client = || path.split(':').any(|part| Utf8PathBuf::from(part).join("incus").is_file());
    if named.is_none() && !folder.is_dir() && !has_client() {
        return None;
    }
    let path = folder.join("config.yml");
    let path = camino::absolute_utf8(&path).unwrap_or(path);
    Some(UserFile { path, owner: caller.map(|caller| caller.owner) })
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

/// The running binary, which is also the agent of every node.
///
/// # Errors
/// When it cannot be told.
pub fn own_binary() -> Result<Utf8PathBuf, Problem> {
    let unknown = |error: &dyn std::error::Error| Problem::from_error("cli.own_binary", error);
    let path = env::current_exe().map_err(|error| unknown(&error))?;
    Utf8PathBuf::try_from(path).map_err(|error| unknown(&error))
}
