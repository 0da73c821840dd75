//! What scripts ask of Incus, beside programs that answer what a test says.

use std::process::{Command, Output};

use super::{Applied, Bench, Change, command};

/// Nobody answers for the member, and the others know that.
const AWAY: &str = r#"
    "query /1.0/cluster/members/member-2") echo '{"status": "Offline", "groups": ["default"]}' ;;
    "query /1.0?target=member-2") exit 1 ;;"#;
const HOLDS: &str = r#"
    "admin sql global --format=csv SELECT"*) printf 'instance,c1\nvolume,v1\n' ;;"#;

/// A folder with an `incus` that keeps what it was asked.
struct Fake(tempfile::TempDir);

impl Fake {
    /// The answers are branches of a `case`; to anything else it says nothing, and succeeds.
    fn new(answers: &str) -> Self {
        let fake = Self(tempfile::tempdir().unwrap());
        fake.put("calls", "");
        let incus = format!(
            "echo \"$*\" >> '{}'\ncase \"$*\" in\n{answers}\n  *) ;;\nesac",
            fake.path("calls")
        );
        fake.program("incus", &incus);
        fake
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn has(&self, name: &str) -> bool {
        self.0.path().join(name).exists()
    }

    /// Made by another process: while this one has it open for writing, no thread of it could start it.
    fn program(&self, name: &str, text: &str) {
        self.put("program", &format!("#!/bin/sh\n{text}\n"));
        let (from, to) = (self.path("program"), self.path(name));
        let made = Command::new("install").args(["-m", "755", &from, &to]).status().unwrap();
        assert!(made.success());
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.path(""), std::env::var("PATH").unwrap());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "script"]).args(arguments).env("PATH", path);
        shell.output().unwrap()
    }

    fn was_asked(&self, what: &str) -> bool {
        let calls = std::fs::read_to_string(self.0.path().join("calls")).unwrap();
        calls.lines().any(|call| call.starts_with(what))
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A change of what is applied.
type Changes = fn(&Applied) -> Change<'_>;

/// The script of a change about `member-2`, with its arguments.
fn script(change: Changes) -> Vec<String> {
    let bench = Bench::new(3).joining(&["member-2"]);
    let applied = Applied::new(bench.cluster.clone(), bench.addresses.clone());
    let mut steps = bench.stack().steps(&bench.request(), &change(&applied)).unwrap();
    steps.remove(0).command.split_off(2)
}

fn leaves(applied: &Applied) -> Change<'_> {
    Change::Leaves(applied.members.values().next_back().unwrap())
}

fn is_lost(applied: &Applied) -> Change<'_> {
    Change::Lost(applied.members.values().next_back().unwrap())
}

fn joins(applied: &Applied) -> Change<'_> {
    Change::Joins(applied.members.keys().next_back().unwrap())
}

/// Runs the script of a change.
fn changed(fake: &Fake, change: Changes) -> Output {
    let script = script(change);
    let arguments: Vec<&str> = script[2..].iter().map(String::as_str).collect();
    fake.run(&script[0], &arguments)
}

const BY_FORCE: &str = "cluster remove member-2 --force";

#[test]
fn a_member_that_is_away_is_not_removed_with_what_it_has() {
    let fake = Fake::new(&format!("{AWAY}{HOLDS}"));
    let refused = changed(&fake, leaves);
    assert!(!refused.status.success());
    assert_eq!(
        said(&refused),
        "member-2 does not answer, and it alone has: instance c1, volume v1\n"
    );
    assert!(!fake.was_asked("cluster remove"));
    // Its node is gone, or it has nothing.
    let cases: [(String, Changes); 2] =
        [(format!("{AWAY}{HOLDS}"), is_lost), (AWAY.to_owned(), leaves)];
    for (answers, change) in cases {
        let fake = Fake::new(&answers);
        let removed = changed(&fake, change);
        assert!(removed.status.success(), "{removed:?}");
        assert!(fake.was_asked(BY_FORCE));
    }
}

#[test]
fn a_member_that_was_cut_short_is_removed_by_force_when_it_has_nothing() {
    let answers = r#"
    "query /1.0/cluster/members/member-2") echo '{"status": "Online", "groups": []}' ;;"#;
    let fake = Fake::new(answers);
    assert!(changed(&fake, leaves).status.success());
    assert!(fake.was_asked(BY_FORCE) && !fake.was_asked("cluster evacuate"));
    let fake = Fake::new(&format!("{answers}{HOLDS}"));
    assert!(changed(&fake, leaves).status.success());
    assert!(fake.was_asked("cluster group assign member-2 default"));
    assert!(fake.was_asked("cluster evacuate member-2") && !fake.was_asked(BY_FORCE));
}

#[test]
fn who_answers_is_not_forgotten_for_a_new_one() {
    let listed = r#"
    "cluster list"*) printf 'member-1\nmember-2\n' ;;"#;
    let fake = Fake::new(listed);
    let refused = changed(&fake, joins);
    assert!(!refused.status.success());
    assert!(said(&refused).contains("member-2 answers the other members"), "{refused:?}");
    assert!(!fake.was_asked("cluster remove"));
    let fake = Fake::new(&format!("{listed}{AWAY}"));
    let come = changed(&fake, joins);
    assert!(fake.was_asked(BY_FORCE), "{come:?}");
}

/// A member that joins, whose join was begun at that second of the machine's life; none for one that was cut short.
fn joining(begun: Option<&str>, answers: &str) -> (Fake, Output) {
    let config = Bench::new(3).joining(&["member-2"]).config("member-2");
    let fake = Fake::new(&format!(
        r#"{answers}
    "query member-1:/1.0/cluster/members/member-2") echo 'Error: Cluster member not found' >&2; exit 1 ;;
    "query -X POST -d "*"SELECT"*) echo '{{"rows": null}}' ;;
    "query /1.0/cluster") exit 1 ;;"#
    ));
    // incusd starts, forgets what it has, and takes the marker away.
    let (marker, wipe) = (fake.path("marker"), fake.path("marker.wipe"));
    fake.program(
        "bivouac",
        &format!("echo \"$*\" >> '{}'\nrm '{marker}' '{wipe}'", fake.path("calls")),
    );
    fake.program("incusd", "");
    fake.put("marker", begun.unwrap_or_default());
    fake.put("own.json", "{}");
    std::fs::create_dir(fake.path("join")).unwrap();
    fake.put("join/member-1.json", "{}");
    let script = command(&config, "cluster")[2]
        .replace("/usr/libexec/incus/incusd", "incusd")
        .replace("/usr/local/bin/bivouac", "bivouac");
    let arguments =
        [&*fake.path("join"), "member-2", "", &marker, &fake.path("own.json"), "incusd"];
    let output = fake.run(&script, &arguments);
    (fake, output)
}

#[test]
fn a_join_that_is_only_slow_is_waited_for_and_one_that_was_cut_short_begins_anew() {
    let now = std::fs::read_to_string("/proc/uptime").unwrap();
    let now = now.split('.').next().unwrap().to_owned();
    let (fake, waits) = joining(Some(&now), "");
    assert!(!waits.status.success());
    assert_eq!(said(&waits), "incusd is still joining\n");
    assert!(!fake.was_asked("query -X DELETE") && !fake.was_asked("agent restart"));
    for begun in [Some("-1000"), None] {
        let (fake, joined) = joining(begun, "");
        assert!(joined.status.success(), "{begun:?}: {joined:?}");
        assert!(fake.was_asked("query -X DELETE member-1:/1.0/cluster/members/member-2?force=1"));
        assert!(fake.was_asked("agent restart incusd"));
        assert!(fake.was_asked("query --wait -X PUT"));
        assert!(!fake.has("marker"));
    }
}

#[test]
fn a_join_that_was_cut_short_keeps_what_is_there() {
    let holds = r#"
    "query -X POST -d "*"storage_volumes"*) echo '{"rows": [["v1"]]}' ;;"#;
    let (fake, _) = joining(None, holds);
    assert!(fake.was_asked("cluster group assign --quiet member-1:member-2 default"));
    assert!(!fake.was_asked("query -X DELETE"));
}

#[test]
fn who_does_not_answer_is_named() {
    let fake = Fake::new(
        r#"
    "query member-1:"*) exec sleep 60 ;;"#,
    );
    let config = Bench::new(3).joining(&["member-2"]).config("member-2");
    let script = command(&config, "cluster")[2].clone();
    let (begin, _) = script.split_once("ready() {").unwrap();
    let asked = "ask 1 query member-1:/1.0/cluster/members/member-1";
    let output =
        fake.run(&format!("{begin}{asked}"), &["join", "member-2", "", "marker", "own", "incusd"]);
    assert_eq!(said(&output), "no answer within 1 s: member-1:/1.0/cluster/members/member-1\n");
}
