//! Every need of nodes, tried by doing it where that is quick: this runs on every `up`.

use bivouac_spec::Problem;
use bivouac_spec::facts::{CgroupVersion, Facts, Need, Outcome, Survey};
use bivouac_spec::quantity::Bytes;
use bollard::models::{SystemInfo, SystemVersion};

use super::engine::Engine;
use super::facts::{facts, is_rootless};
use super::problem::{OrProblem as _, unfit};

/// The oldest API that knows private control group namespaces: Docker 20.10, podman 3.
const API: (u32, u32) = (1, 41);

/// Enough for a cluster of one node and its images.
const DISK: Bytes = Bytes(2 << 30);

/// Below this, a kubelet and a container runtime run out of open files with few pods.
const OPEN_FILES: u64 = 4096;

/// Facts and needs.
pub(super) async fn survey(engine: &Engine) -> Result<Survey, Problem> {
    let message = || format!("the container engine at {} cannot be asked", engine.endpoint);
    let (version, info) = futures::join!(engine.docker.version(), engine.info());
    let version = version.or_problem("survey", message())?;
    let info = info.or_problem("survey", message())?;
    let facts = facts(engine, info).await?;
    let mut needs = vec![
        met("talk to a container engine", described(engine, &version)),
        need("speak an API that knows private control groups", new_enough(&version)),
        need("run Linux containers", is_linux(info)),
        cgroups(&facts),
        rights(info),
        limits(&facts),
    ];
    if engine.local.is_some() {
        needs.push(disk(&facts));
    }
    Ok(Survey { facts, needs })
}

fn described(engine: &Engine, version: &SystemVersion) -> String {
    let name = version.components.iter().flatten().next().map_or("Engine", |part| &part.name);
    let number = version.version.as_deref().unwrap_or("?");
    let place =
        if engine.local.is_some() { "" } else { ", whose files are not those of this machine" };
    format!("{name} {number} at {}{place}", engine.endpoint)
}

fn new_enough(version: &SystemVersion) -> Result<String, Problem> {
    let text = version.api_version.as_deref().unwrap_or_default();
    let parts = text
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
    if parts.is_some_and(|parts| parts >= API) {
        return Ok(text.to_owned());
    }
    let (major, minor) = API;
    let message =
        format!("the container engine speaks API `{text}`, and {major}.{minor} or newer is needed");
    Err(unfit("too_old", message).help("install Docker 20.10 or newer"))
}

fn is_linux(info: &SystemInfo) -> Result<String, Problem> {
    let system = info.os_type.as_deref().unwrap_or("linux");
    if system.eq_ignore_ascii_case("linux") {
        return Ok(info.operating_system.clone().unwrap_or_else(|| system.to_owned()));
    }
    Err(unfit("not_linux", format_args!("the container engine runs containers of {system}"))
        .help("switch it to Linux containers"))
}

fn cgroups(facts: &Facts) -> Need {
    let version = match facts.cgroup {
        CgroupVersion::V1 => "version 1",
        CgroupVersion::V2 => "version 2",
    };
    met("have control groups", version.to_owned())
}

fn rights(info: &SystemInfo) -> Need {
    let name = "run containers with all rights";
    if !is_rootless(info) {
        return met(name, "the engine is root's".to_owned());
    }
    let problem = unfit(
        "rootless",
        "the container engine is run without root's rights, and its nodes lack them",
    )
    .help(
        "use the engine of root: name it with `DOCKER_HOST`, or with `context` in the cluster file",
    );
    Need { name: name.to_owned(), outcome: Outcome::Limited(problem) }
}

fn limits(facts: &Facts) -> Need {
    let name = "have enough open files";
    if facts.open_files >= OPEN_FILES {
        return met(name, facts.open_files.to_string());
    }
    let message = format!(
        "containers can have only {} files open, {OPEN_FILES} are recommended",
        facts.open_files
    );
    let problem = unfit("limit", message).help("raise the engine's own limit of open files");
    Need { name: name.to_owned(), outcome: Outcome::Limited(problem) }
}

fn disk(facts: &Facts) -> Need {
    let name = "have free disk space";
    if facts.disk_free >= DISK {
        return met(name, format!("{} GiB", facts.disk_free.0 >> 30));
    }
    let message =
        format!("only {} MiB are free where the engine keeps its data", facts.disk_free.0 >> 20);
    let problem =
        unfit("disk", message).help("free at least 2 GiB, for example with `docker system prune`");
    Need { name: name.to_owned(), outcome: Outcome::Limited(problem) }
}

fn met(name: &str, seen: String) -> Need {
    Need { name: name.to_owned(), outcome: Outcome::Met(seen) }
}

fn need(name: &str, tried: Result<String, Problem>) -> Need {
    let outcome = tried.map_or_else(Outcome::Unmet, Outcome::Met);
    Need { name: name.to_owned(), outcome }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_engines_are_told() {
        let version = |api: &str| SystemVersion {
            api_version: Some(api.to_owned()),
            ..SystemVersion::default()
        };
        for new in ["1.41", "1.100", "2.0"] {
            assert_eq!(new_enough(&version(new)).unwrap(), new);
        }
        for old in ["1.40", "1.9", "", "x"] {
            assert_eq!(new_enough(&version(old)).unwrap_err().code, "provider.docker.too_old");
        }
    }
}
