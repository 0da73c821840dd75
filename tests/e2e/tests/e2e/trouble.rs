//! Bad input and trouble: each has a clear error and an exit code of its own class, and loses nothing.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Mounted, OwnLink, Provider, SOON, case, free_ports,
};
use serde_json::Value;

pub(crate) const CASES: [Case; 8] = [
    case("trouble/invalid_cluster_files", About::Bivouac, invalid_cluster_files),
    case("trouble/unknown_names_and_wrong_arguments", About::Bivouac, unknown_names),
    case("trouble/doctor_tries_every_need", About::Grounds, doctor_tries_every_need),
    case("trouble/not_root", About::One(Provider::Linux), not_root),
    case("trouble/a_network_in_use", About::Grounds, a_network_in_use),
    case("trouble/a_port_in_use", About::Grounds, a_port_in_use),
    case("trouble/a_full_disk", About::One(Provider::Linux), a_full_disk),
    case("trouble/one_verb_at_a_time_and_a_broken_state", About::Grounds, one_verb_at_a_time),
];

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/invalid");
    let entries = std::fs::read_dir(&folder).expect("the fixtures are beside the tests");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    assert!(files.len() > 10, "fixtures are missing");
    files
}

fn invalid_cluster_files(ground: &Ground) {
    for file in fixtures() {
        let refused = ground.bivouac(["plan", "--file"]).args([&file]).outcome().expect_code(2);
        let place = format!("error: {}:", file.display());
        let _ = refused.expect_errors(&[&place, "hint:"]);
    }
    let everything = fixtures().into_iter().find(|file| file.ends_with("everything_at_once.yaml"));
    let everything = everything.expect("the fixture with several problems");
    let refused = ground.up(["--file"]).args([&everything]).outcome().expect_code(2);
    let errors: Vec<&str> =
        refused.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() >= 5, "all problems at once: {refused}");
    let place = everything.to_string_lossy();
    for error in errors {
        let rest = error.split_once(&*place).unwrap_or_else(|| panic!("no place in {error}")).1;
        let numbers: Vec<_> = rest.split(':').skip(1).take(2).map(str::parse::<u32>).collect();
        assert!(matches!(numbers[..], [Ok(1..), Ok(1..)]), "no line and column in `{error}`");
    }
    assert!(!ground.state().exists(), "a refused file made a state folder");
}

fn unknown_names(ground: &Ground) {
    let status = ground.bivouac(["status", "e2e-nobody"]).outcome().expect_code(2);
    let _ = status.expect_errors(&["no cluster `e2e-nobody`"]);
    let absent = ground.up(["--file", "no-such-file.yaml"]).outcome().expect_code(2);
    let _ = absent.expect_errors(&["no-such-file.yaml", "bivouac init"]);
    let _ = ground.up(["Not_A_Name"]).outcome().expect_code(2).expect_errors(&["Not_A_Name"]);
    let _ = ground.bivouac(["pu"]).outcome().expect_code(2).expect_errors(&["pu"]);
    let _ = ground.bivouac(["down", "e2e-nobody"]).success().expect_output(&["nothing"]);
}

fn doctor_tries_every_need(ground: &Ground) {
    let provider = ground.setting().provider.to_string();
    let doctor = ["doctor", "--provider", &provider];
    let survey = ground.bivouac(doctor).args(["--output", "json"]).success().json();
    let needs = survey["needs"].as_array().expect("a survey has needs");
    let text = ground.bivouac(doctor).success().stdout();
    for need in needs {
        let name = need["name"].as_str().expect("a need has a name");
        let line = text.lines().find(|line| line.contains(&format!(" {name}: ")));
        assert!(
            line.is_some_and(|line| line.starts_with("ok") || line.starts_with("limited")),
            "{name}:\n{text}"
        );
    }
    assert!(needs.len() >= 5, "{survey:#}");
}

fn not_root(ground: &Ground) {
    // As it is for a real user: the way to the state folder is open.
    let _ = bivouac_e2e::Run::new("chmod").args(["0755"]).args([ground.folder()]).success();
    let doctor = ground
        .bivouac(["doctor", "--provider", "linux", "--output", "json"])
        .as_nobody()
        .outcome()
        .expect_code(3);
    let survey = doctor.json();
    let needs = survey["needs"].as_array().into_iter().flatten();
    let unmet: Vec<&str> =
        needs.filter_map(|need| need.pointer("/outcome/unmet/message")?.as_str()).collect();
    assert!(!unmet.is_empty(), "{survey:#}");
    let refused = ground.up(["e2e-nobody"]).as_nobody().outcome().expect_code(3);
    let _ = refused.expect_errors(&unmet).expect_errors(&["root", "hint:"]);
    assert!(!ground.state().exists(), "a refused `up` made a state folder");
}

/// Somebody else listens where the cluster file wants a port.
fn a_port_in_use(ground: &Ground) {
    let cluster = ground.cluster("port");
    let [port] = free_ports();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free");
    let file = cluster.file(&format!("  ports: [{{hostPort: {port}, port: 30080}}]\n"));
    let before = HostSnapshot::take(ground);
    let refused = cluster.up(&file).outcome().expect_code(3);
    let _ = refused.expect_errors(&[&port.to_string(), "port_taken", "hint:"]);
    before.expect_nothing_left(ground);
    drop(listener);
    let _ = cluster.up(&file).success();
}

fn a_network_in_use(ground: &Ground) {
    let cluster = ground.cluster("in-use");
    let _link = OwnLink::new("e2e-in-use", "198.51.100.1/24");
    let file = cluster.file("  network: {podCIDR: [198.51.0.0/16]}\n");
    let refused = cluster.up(&file).outcome();
    assert!([1, 2, 3].contains(&refused.code), "{refused}");
    let _ = refused.expect_errors(&["198.51.0.0/16", "198.51.100", "e2e-in-use"]);
    nothing_was_made(&cluster);
}

fn nothing_was_made(cluster: &Cluster<'_>) {
    let list = cluster.ground().bivouac(["list", "--output", "json"]).success().json();
    let found =
        list.as_array().into_iter().flatten().find(|listed| listed["name"] == cluster.name());
    assert!(found.is_none(), "{list:#}");
}

fn a_full_disk(ground: &Ground) {
    let cluster = ground.cluster("full");
    let disk = ground.path("disk");
    let _disk = Mounted::new(disk.clone(), 4);
    let up = || ground.up([cluster.name()]).env("BIVOUAC_STATE_DIR", disk.join("state")).outcome();
    let small = up().expect_code(3);
    let _ = small.expect_errors(&["disk", "hint:"]);
    let fill = Command::new("dd")
        .args(["if=/dev/zero", "bs=64k"])
        .arg(format!("of={}/filler", disk.display()))
        .output();
    assert!(!fill.expect("dd can be run").status.success(), "the disk has no end");
    let full = up();
    assert_ne!(full.code, 0, "{full}");
    assert!(["disk", "space"].iter().any(|word| full.stderr.contains(word)), "{full}");
    nothing_was_made(&cluster);
}

fn one_verb_at_a_time(ground: &Ground) {
    let cluster = ground.cluster("trouble");
    let up = cluster.up_single().env("BIVOUAC_PROGRESS", "json").start();
    let _ = up.wait_for_error_line("the start", |line| line.contains("\"event\":\"planned\""));
    for second in [cluster.down(), cluster.up_by_name()] {
        let refused = second.outcome();
        assert_ne!(refused.code, 0, "{refused}");
        let _ = refused.expect_errors(&[cluster.name(), "`bivouac up`"]);
    }
    let _ = up.finish(5 * SOON).expect_code(0);
    a_state_of_another_format(&cluster);
    a_damaged_state(&cluster);
    // Whole again, nothing is lost.
    let _ = cluster.up_by_name().success().expect_output(&["nothing changed"]);
}

fn state_file(cluster: &Cluster<'_>) -> PathBuf {
    cluster.ground().state().join("clusters").join(cluster.name()).join("cluster.json")
}

/// With other content in the cluster's state, every one of these fails, says why, and leaves it alone.
fn fails_with(cluster: &Cluster<'_>, content: &str, code: i32, wanted: &[&str]) {
    let file = state_file(cluster);
    let original = std::fs::read(&file).expect("a cluster has a state");
    std::fs::write(&file, content).expect("root can write it");
    for verb in ["up", "plan", "status", "kubeconfig"] {
        let refused = cluster.ground().bivouac([verb, cluster.name()]).outcome().expect_code(code);
        let _ = refused.expect_errors(wanted);
    }
    assert_eq!(std::fs::read_to_string(&file).expect("it is still there"), content);
    std::fs::write(&file, original).expect("root can write it");
}

fn a_state_of_another_format(cluster: &Cluster<'_>) {
    let text = std::fs::read(state_file(cluster)).expect("a cluster has a state");
    let mut state: Value = serde_json::from_slice(&text).expect("the state is JSON");
    state["format"] = 99.into();
    state["bivouac"] = "9.9.9".into();
    fails_with(cluster, &state.to_string(), 2, &["format 99", "9.9.9", cluster.name()]);
}

fn a_damaged_state(cluster: &Cluster<'_>) {
    fails_with(cluster, "{\"format\": 1, \"bivou", 1, &["cluster.json", "hint:"]);
}
