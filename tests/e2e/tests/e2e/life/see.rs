//! What can be seen of a cluster: how it is, what was done to it, all of it in one file, what a shell offers, and what starts it with the
//! machine.

use std::path::Path;

use bivouac_e2e::{Cluster, Ground, Run, say};
use serde_json::Value;

use super::{NODES, WORKERS};

pub(super) fn how_it_is(cluster: &Cluster<'_>) {
    let versions = cluster.ground().bivouac(["version", "--output", "json"]).success().json();
    let status = cluster.status();
    let about = &status["about"];
    assert_eq!(about["bivouac"], versions["bivouac"], "{status:#}");
    let stack = about["stack"].as_str().unwrap_or_default();
    assert!(stack.starts_with("Kubernetes v"), "{status:#}");
    assert!(about["certificatesEnd"].is_string(), "{status:#}");
    for node in NODES {
        let usage = &status["nodes"][node]["status"]["usage"];
        for what in ["memory", "cpu"] {
            assert!(usage[what].as_u64().is_some_and(|used| used > 0), "{what}: {status:#}");
        }
    }
}

/// Nothing but `up` was done yet.
pub(super) fn what_was_done(cluster: &Cluster<'_>) {
    let events = |options: &[&str]| {
        let events = ["events", "--cluster", cluster.name()];
        cluster.ground().bivouac(events).args(options).success().stdout()
    };
    let told = events(&["--output", "json"]);
    let parse = |line: &str| {
        let parsed: Result<Value, _> = serde_json::from_str(line);
        parsed.unwrap_or_else(|error| panic!("no JSON ({error}): {line}"))
    };
    let entries: Vec<Value> = told.lines().map(parse).collect();
    for entry in &entries {
        assert!(entry["time"].is_string() && entry["bivouac"].is_string(), "{entry:#}");
        assert_eq!(entry["verb"], "up", "{entry:#}");
    }
    let all = |wanted: &str| {
        let found = entries.iter().map(|entry| &entry["event"]);
        found.filter(|event| event["event"] == wanted).collect::<Vec<_>>()
    };
    assert!(
        matches!(all("started")[..], [started] if started["cluster"] == cluster.name()),
        "{told}"
    );
    let planned = all("planned");
    let planned = planned.iter().filter_map(|event| event["actions"].as_array()).flatten();
    let planned: Vec<&str> = planned.filter_map(Value::as_str).collect();
    let usable = all("node-usable");
    for node in NODES {
        let made = format!("create node {node} ");
        assert!(planned.iter().any(|action| action.starts_with(&made)), "{planned:#?}");
        assert!(usable.iter().any(|event| event["node"] == node), "{told}");
    }
    let last = told.lines().last().unwrap_or_default();
    assert_eq!(parse(last)["event"]["event"], "ended", "{last}");
    assert!(parse(last)["event"]["problems"].is_null(), "{last}");
    assert_eq!(events(&["--output", "json", "--tail", "1"]).trim_end(), last);
    assert!(events(&[]).contains("began, by bivouac"), "what people read begins with the making");
}

/// For a bug report, without any key.
pub(super) fn all_in_one_file(cluster: &Cluster<'_>) {
    let (ground, name) = (cluster.ground(), cluster.name());
    let file = ground.path("report.tar.gz");
    let archive = || cluster.logs(["--archive"]).args([&file]);
    let _ = archive().success().expect_output(&[name, " logs"]);
    let _ = archive().outcome().expect_code(1).expect_errors(&["report.tar.gz", "--force"]);
    let _ = archive().args(["--force"]).success();

    let folder = ground.path("report");
    std::fs::create_dir(&folder).expect("the folder of the test can be written");
    let _ = Run::new("tar").args(["-xzf"]).args([&file]).args(["-C"]).args([&folder]).success();
    let top = folder.join(format!("bivouac-{name}"));
    let read = |file: &str| {
        let text = std::fs::read_to_string(top.join(file));
        text.unwrap_or_else(|error| panic!("no {file} in the archive: {error}"))
    };
    let status: Value = serde_json::from_str(&read("status.json")).expect("a status is JSON");
    assert_eq!(status["usable"], true, "{status:#}");
    assert!(read("events.jsonl").contains("node-usable"));
    for node in NODES {
        for log in ["agent", "kubelet", "containerd"] {
            assert!(!read(&format!("nodes/{node}/{log}.log")).is_empty(), "{node}: {log}");
        }
    }

    let keys = ground.state().join("clusters").join(name).join("keys.json");
    let keys = std::fs::read(keys).expect("a cluster has keys");
    let keys: Value = serde_json::from_slice(&keys).expect("keys are JSON");
    let mut secrets = vec!["PRIVATE KEY-----".to_owned(), "LS0tLS1CRUdJTi".to_owned()];
    let known = secrets.len();
    lines_of_keys(&keys, &mut secrets);
    assert!(secrets.len() > known, "keys are not kept as they were");
    expect_without(&top, &secrets);
}

/// The lines of all private keys in a document, which have them as PEM.
fn lines_of_keys(document: &Value, lines: &mut Vec<String>) {
    match document {
        Value::String(text) if text.contains("PRIVATE KEY-----") => {
            let body = text.lines().filter(|line| !line.is_empty() && !line.starts_with("-----"));
            lines.extend(body.map(str::to_owned));
        }
        Value::Array(items) => items.iter().for_each(|item| lines_of_keys(item, lines)),
        Value::Object(fields) => fields.values().for_each(|field| lines_of_keys(field, lines)),
        _ => {}
    }
}

fn expect_without(folder: &Path, secrets: &[String]) {
    let entries = std::fs::read_dir(folder).expect("what was unpacked can be read");
    for path in entries.map(|entry| entry.expect("it can be read").path()) {
        if path.is_dir() {
            expect_without(&path, secrets);
            continue;
        }
        let content = std::fs::read(&path).expect("what was unpacked can be read");
        let content = String::from_utf8_lossy(&content);
        // The secret itself is not told.
        assert!(!secrets.iter().any(|secret| content.contains(secret)), "{}", path.display());
    }
}

pub(super) fn what_a_shell_offers(cluster: &Cluster<'_>) {
    let name = cluster.name();
    assert_eq!(offered(cluster, &["status", name.split_at(name.len() - 1).0]), [name]);
    assert_eq!(offered(cluster, &["exec", "--cluster", name, "worker"]), WORKERS);
    let service = ["logs", "--cluster", name, NODES[0], "kubel"];
    assert_eq!(offered(cluster, &service), ["kubelet"]);
    assert_eq!(offered(cluster, &["exec", "--cluster", "e2e-nobody", "worker"]), [""; 0]);
}

/// What bash gets for the last of these words: it asks as the script of `bivouac completion bash` does.
fn offered(cluster: &Cluster<'_>, words: &[&str]) -> Vec<String> {
    let asked = cluster.ground().bivouac(["--", "bivouac"]).args(words);
    let asked = asked.env("COMPLETE", "bash").env("_CLAP_IFS", "\n");
    let answer = asked.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).success();
    answer.stdout().lines().map(str::to_owned).collect()
}

/// Each shell parses its script, where it is on this machine.
pub(super) fn shells_read_what_completes(ground: &Ground) {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ground.bivouac(["completion", shell]).success();
        let script = script.expect_output(&["bivouac", "COMPLETE"]);
        let file = ground.write(shell, &script.output);
        if ["bash", "zsh", "fish"].contains(&shell) && is_installed(shell) {
            let _ = Run::new(shell).args(["-n"]).args([file]).success();
        } else {
            say(&format!("no {shell} reads it here"));
        }
    }
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Where nothing is installed, too.
pub(super) fn what_starts_it(cluster: &Cluster<'_>) {
    let ground = cluster.ground();
    let unit = ground.bivouac(["service", "install", "--dry-run"]).success().stdout();
    let state = format!(" --state-dir {} ", ground.state().display());
    for (line, verb) in [("ExecStart=", " start --all "), ("ExecStop=", " stop --all")] {
        let command = unit.lines().find(|found| found.starts_with(line)).unwrap_or_default();
        assert!(command.contains(&state) && command.contains(verb), "{unit}");
    }
}
