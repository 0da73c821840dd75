//! When memory runs out, one instance is stopped in each sweep: better one that is chosen than whatever the kernel finds first.

use std::convert::Infallible;
use std::fs;
use std::time::Duration;

use bivouac_spec::node::paths;
use camino::Utf8Path;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{GuardRequest, MemoryWatch, api};

/// How long incusd may take to say what runs.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an instance that is ended by force may take.
const FORCE: Duration = Duration::from_secs(30);
/// An instance with this option set to `true` is never stopped.
const SKIP: &str = "user.oomSkip";
/// What an operation that succeeded says.
const SUCCESS: u64 = 200;
const MEBIBYTE: u64 = 1 << 20;
/// Where the kernel says what it has, best first: what covers the second one does not follow the present.
const PROC: [&str; 2] = [paths::WHOLE_PROC, "/proc"];

/// As incusd lists it.
#[derive(Debug, Clone, Deserialize)]
struct Instance {
    name: String,
    #[serde(default)]
    project: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    status: String,
    /// When it was started last.
    #[serde(default)]
    last_used_at: Option<Timestamp>,
    #[serde(default)]
    expanded_config: serde_json::Map<String, Value>,
}

pub(super) fn watch(
    request: &GuardRequest,
    watch: MemoryWatch,
    say: &(dyn Fn(&str) + Sync),
) -> Infallible {
    // What hinders it is said once, for as long as it stays the same.
    let mut hindered = None;
    loop {
        let low = available("/".into()).filter(|available| *available < watch.minimum);
        let why = low.and_then(|available| sweep(request, watch, available, say).err());
        if let Some(why) = why.as_ref().filter(|_| hindered != why) {
            say(&format!("memory is low, but {why}"));
        }
        hindered = why;
        std::thread::sleep(watch.interval);
    }
}

/// Stops one instance.
///
/// # Errors
/// Why none was stopped.
fn sweep(
    request: &GuardRequest,
    watch: MemoryWatch,
    available: u64,
    say: &(dyn Fn(&str) + Sync),
) -> Result<(), String> {
    let (left, needed) = (available / MEBIBYTE, watch.minimum / MEBIBYTE);
    let list = ("GET", "/1.0/instances?recursion=1&all-projects=true");
    let listed = api::ask(&request.socket, list, None, PATIENCE)?;
    let instances = Vec::<Instance>::deserialize(listed)
        .map_err(|error| format!("incusd answered with no list of instances: {error}"))?;
    let victim = victim(&instances, &request.member)
        .ok_or_else(|| "no instance here may be stopped".to_owned())?;
    let name = &victim.name;
    say(&format!(
        "{left} MiB of memory are available, {needed} must be: stopping instance {name}, which has run longest"
    ));
    if let Err(why) = stop(request, victim, Some(watch.grace)) {
        say(&format!("instance {name} did not stop by itself: {why}"));
        stop(request, victim, None)
            .map_err(|why| format!("instance {name} did not stop by force: {why}"))?;
    }
    say(&format!("instance {name} is stopped"));
    Ok(())
}

/// The one of this member that has run longest and may be stopped.
fn victim<'a>(instances: &'a [Instance], member: &str) -> Option<&'a Instance> {
    let here = instances.iter().filter(|it| it.location == member && it.status == "Running");
    let may_be_stopped =
        |it: &&Instance| it.expanded_config.get(SKIP).and_then(Value::as_str) != Some("true");
    here.filter(may_be_stopped).min_by_key(|it| (it.last_used_at, &it.project, &it.name))
}

/// By itself within a grace, or by force.
fn stop(
    request: &GuardRequest,
    instance: &Instance,
    grace: Option<Duration>,
) -> Result<(), String> {
    let Instance { name, project, .. } = instance;
    let within = grace.unwrap_or(FORCE);
    let body = json!({"action": "stop", "force": grace.is_none(), "timeout": within.as_secs()});
    let path = format!("/1.0/instances/{name}/state?project={project}");
    let operation = api::ask(&request.socket, ("PUT", &path), Some(&body), PATIENCE)?;
    let operation = operation.as_str().ok_or("incusd began nothing")?;
    let path = format!("{operation}/wait?timeout={}", within.as_secs());
    let ended = api::ask(&request.socket, ("GET", &path), None, within + PATIENCE)?;
    if ended["status_code"].as_u64() == Some(SUCCESS) {
        return Ok(());
    }
    let error = ended["err"].as_str().filter(|error| !error.is_empty());
    Err(error.unwrap_or("it goes on").to_owned())
}

/// Memory that instances can still have, in bytes: what the kernel has, and what the node's own limit leaves. Where neither can be
/// read, nothing is known. `root` is the node's `/`.
fn available(root: &Utf8Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path.trim_start_matches('/'))).ok();
    let kernel = PROC.iter().find_map(|proc| {
        let meminfo = read(&format!("{proc}/meminfo"))?;
        field(&meminfo, "MemAvailable:").map(|kib| kib * 1024)
    });
    let v1 = |name: &str| read(&format!("/sys/fs/cgroup/memory/memory.{name}"));
    let v2 = |name: &str| read(&format!("/sys/fs/cgroup/memory.{name}"));
    let limit_v1 = || {
        let stat = v1("stat")?;
        let limit = field(&stat, "hierarchical_memory_limit")?;
        let idle = field(&stat, "total_inactive_file").unwrap_or_default();
        Some(left(limit, v1("usage_in_bytes")?.trim().parse().ok()?, idle))
    };
    let limit_v2 = || {
        let idle = field(&v2("stat")?, "inactive_file").unwrap_or_default();
        // It says `max` without a limit.
        let limit = v2("max")?.trim().parse().ok()?;
        Some(left(limit, v2("current")?.trim().parse().ok()?, idle))
    };
    [kernel, limit_v1(), limit_v2()].into_iter().flatten().min()
}

/// What a limit leaves; files that nobody uses are given back when memory is needed.
const fn left(limit: u64, used: u64, idle: u64) -> u64 {
    limit.saturating_sub(used.saturating_sub(idle))
}

/// The number behind a word at the start of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next()?.parse().ok())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(name: &str, location: &str, status: &str, started: u32) -> Instance {
        serde_json::from_value(json!({
            "name": name, "location": location, "status": status, "project": "default",
            "last_used_at": format!("2026-11-21T10:00:{started:02}.5Z"),
            "expanded_config": {"image.os": "debian"}, "type": "container",
        }))
        .unwrap()
    }

    fn with_skip(mut instance: Instance, value: &str) -> Instance {
        instance.expanded_config.insert(SKIP.to_owned(), json!(value));
        instance
    }

    #[test]
    fn the_longest_running_instance_of_this_member_goes_first() {
        let instances = [
            instance("young", "m0", "Running", 30),
            instance("old", "m0", "Running", 10),
            instance("elsewhere", "m1", "Running", 1),
            instance("stopped", "m0", "Stopped", 2),
            with_skip(instance("kept", "m0", "Running", 3), "true"),
        ];
        let name =
            |instances: &[Instance], member| victim(instances, member).map(|it| it.name.clone());
        assert_eq!(name(&instances, "m0").as_deref(), Some("old"));
        assert_eq!(name(&instances[4..], "m0"), None);
        assert_eq!(
            name(&[with_skip(instances[0].clone(), "false")], "m0").as_deref(),
            Some("young")
        );
        assert_eq!(name(&instances, "m2"), None);
    }

    #[test]
    fn what_covers_the_kernels_word_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(folder.path()).unwrap();
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        assert_eq!(available(root), None);
        write("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:     8 kB\n");
        assert_eq!(available(root), Some(8 << 10));
        write("run/pristine/proc/meminfo", "MemTotal: 9 kB\nMemAvailable:     3 kB\n");
        assert_eq!(available(root), Some(3 << 10));
        write("sys/fs/cgroup/memory.stat", "inactive_file 0\n");
        write("sys/fs/cgroup/memory.max", "4096\n");
        write("sys/fs/cgroup/memory.current", "1024\n");
        assert_eq!(available(root), Some(3 << 10), "the lesser of two");
        write("sys/fs/cgroup/memory.current", "4000\n");
        assert_eq!(available(root), Some(96));
    }

    #[test]
    fn what_is_available_is_read() {
        assert!(available("/".into()).unwrap() > 0);
        let stat = "cache 1\nhierarchical_memory_limit 100\ntotal_inactive_file 30\n";
        assert_eq!(field(stat, "hierarchical_memory_limit"), Some(100));
        assert_eq!(field(stat, "inactive_file"), None);
        assert_eq!((left(100, 90, 30), left(100, 200, 30), left(100, 10, 30)), (40, 0, 100));
    }
}
