//! Whether the units of a node config can be brought up at all: names, order, commands. Pure, so that stacks test with it what
//! the agent would refuse.

use std::collections::{BTreeMap, BTreeSet};

use camino::Utf8PathBuf;

use super::config::{FORMAT, NodeConfig};
use super::unit::{Run, Service, Task};
use super::{Check, Probe};

/// Everything that is wrong with the units, as sentences; empty when they can be brought up.
#[must_use]
pub fn check_units(config: &NodeConfig) -> Vec<String> {
    let mut faults = Vec::new();
    if config.format != FORMAT {
        faults.push(format!(
            "the node config has format {}, and this version reads format {FORMAT}",
            config.format
        ));
    }
    let units = units(config);
    let mut known: BTreeMap<&str, &[String]> = BTreeMap::new();
    for (name, after) in &units {
        if name.is_empty() {
            faults.push("a unit has no name".to_owned());
        }
        if known.insert(name, after).is_some() {
            faults.push(format!("two units have the name `{name}`"));
        }
    }
    for (name, after) in &units {
        for missing in after.iter().filter(|after| !known.contains_key(after.as_str())) {
            faults.push(format!("`{name}` waits for `{missing}`, which is no unit of this node"));
        }
    }
    faults.extend(
        cycle(&known).map(|names| format!("units wait for each other: {}", names.join(" > "))),
    );
    config.services.iter().for_each(|service| check_service(service, &mut faults));
    config.tasks.iter().for_each(|task| check_task(task, &mut faults));
    for condition in &config.conditions {
        check_probe(&condition.name, &condition.probe, &mut faults);
    }
    faults
}

/// Name and `after` of services, tasks and conditions, in the order of the config.
fn units(config: &NodeConfig) -> Vec<(&str, &[String])> {
    let services = config.services.iter().map(|unit| (unit.name.as_str(), unit.after.as_slice()));
    let tasks = config.tasks.iter().map(|unit| (unit.name.as_str(), unit.after.as_slice()));
    let conditions =
        config.conditions.iter().map(|unit| (unit.name.as_str(), unit.after.as_slice()));
    services.chain(tasks).chain(conditions).collect()
}

/// One cycle, its first unit repeated at the end.
fn cycle<'a>(units: &BTreeMap<&'a str, &'a [String]>) -> Option<Vec<&'a str>> {
    let mut done = BTreeSet::new();
    units.keys().find_map(|name| visit(name, units, &mut Vec::new(), &mut done))
}

fn visit<'a>(
    name: &'a str,
    units: &BTreeMap<&'a str, &'a [String]>,
    path: &mut Vec<&'a str>,
    done: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(start) = path.iter().position(|one| *one == name) {
        return Some(path[start..].iter().copied().chain([name]).collect());
    }
    let after = units.get(name).filter(|_| !done.contains(name))?;
    path.push(name);
    let found = after.iter().find_map(|next| visit(next, units, path, done));
    path.pop();
    done.insert(name);
    found
}

fn check_service(service: &Service, faults: &mut Vec<String>) {
    let name = &service.name;
    // It is the name of a log file too.
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.chars().all(plain) || name.starts_with('.') || name == "agent" {
        faults.push(format!(
            "`{name}` cannot be the name of a service: its log needs that file name"
        ));
    }
    check_command(name, &service.command, faults);
    check_watch(name, &service.watch, faults);
    if let Some(probe) = &service.ready {
        check_probe(name, probe, faults);
    }
}

fn check_task(task: &Task, faults: &mut Vec<String>) {
    check_watch(&task.name, &task.watch, faults);
    if let Run::Command(command) = &task.run {
        check_command(&task.name, command, faults);
    }
}

fn check_probe(name: &str, probe: &Probe, faults: &mut Vec<String>) {
    if let Check::Exec(command) = &probe.check {
        check_command(name, command, faults);
    }
}

fn check_watch(name: &str, watch: &[Utf8PathBuf], faults: &mut Vec<String>) {
    for path in watch.iter().filter(|path| !path.is_absolute()) {
        faults.push(format!("`{name}` watches `{path}`, which is no absolute path"));
    }
}

fn check_command(name: &str, command: &[String], faults: &mut Vec<String>) {
    if command.first().is_none_or(|program| !program.starts_with('/')) {
        faults.push(format!("`{name}` has no program with an absolute path"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &serde_json::Value) -> NodeConfig {
        let mut whole = serde_json::json!({"format": FORMAT, "cluster": "c", "node": "n"});
        let parts = json.as_object().unwrap().clone();
        whole.as_object_mut().unwrap().extend(parts);
        serde_json::from_value(whole).unwrap()
    }

    #[test]
    fn a_good_graph_has_no_faults() {
        let json = serde_json::json!({
            "services": [
                {"name": "a", "command": ["/bin/a"]},
                {"name": "b", "command": ["/bin/b"], "after": ["a", "t"]}],
            "tasks": [{"name": "t", "after": ["a"], "run": {"command": ["/bin/t"]}}],
            "conditions": [{"name": "it holds", "after": ["b"], "probe": {"check": {"file": "/x"}}}]});
        assert_eq!(check_units(&config(&json)), Vec::<String>::new());
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let json = serde_json::json!({
            "format": 9,
            "services": [
                {"name": "a", "command": ["a"], "after": ["b"]},
                {"name": "b", "command": ["/b"], "after": ["c"]},
                {"name": "c", "command": ["/c"], "after": ["a", "gone"]},
                {"name": "c", "command": ["/c"], "watch": ["etc/x"]},
                {"name": "../x", "command": ["/c"]}],
            "tasks": [{"name": "c", "run": {"command": []}}]});
        let faults = check_units(&config(&json)).join("\n");
        assert!(faults.contains("has format 9"), "{faults}");
        assert!(faults.contains("two units have the name `c`"), "{faults}");
        assert!(faults.contains("`c` waits for `gone`"), "{faults}");
        assert!(faults.contains("`../x` cannot be the name"), "{faults}");
        assert!(faults.contains("`c` watches `etc/x`, which is no absolute path"), "{faults}");
        assert!(faults.contains("`a` has no program with an absolute path"), "{faults}");
    }

    #[test]
    fn a_cycle_is_spelled_out() {
        let json = serde_json::json!({"services": [
            {"name": "a", "command": ["/a"], "after": ["b"]},
            {"name": "b", "command": ["/b"], "after": ["a"]},
            {"name": "z", "command": ["/z"], "after": ["z"]}]});
        assert_eq!(check_units(&config(&json)), ["units wait for each other: a > b > a"]);
    }
}
