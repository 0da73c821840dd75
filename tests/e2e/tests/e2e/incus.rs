//! Clusters of Incus: instances on all members in one network, members that die, come and go, and memory that runs out.

use std::path::{Path, PathBuf};

use bivouac_e2e::{About, Case, Cluster, Ground, HostSnapshot, Run, SOON, case, wait_until};
use serde_json::Value;

pub(crate) const CASES: [Case; 3] = [
    case("incus/instances_on_all_members", About::Grounds, instances_on_all_members),
    case("incus/members_come_and_go", About::Grounds, members_come_and_go),
    case("incus/memory_runs_out", About::Grounds, memory_runs_out),
];

/// What `examples/` shows: three members.
const EXAMPLE: &str = "../../examples/incus-cluster/cluster.yaml";

/// A member and the instance on it.
const PAIRS: [(&str, &str); 3] = [("member-0", "c0"), ("member-1", "c1"), ("member-2", "c2")];

/// The cluster file: these settings of the stack, and these of its only group of nodes.
fn file(cluster: &Cluster<'_>, settings: &str, members: &str) -> PathBuf {
    let nodes = format!("  nodes: [{{role: member, {members}}}]\n");
    cluster.file(&format!("  stack: {{incus: {{{settings}}}}}\n{nodes}"))
}

/// Launches all of these instances at the same moment, each on its member.
fn launch(cluster: &Cluster<'_>, instances: &[(&str, &str)]) {
    let launch = |(member, name): &(&str, &str)| {
        cluster.incus(["launch", "debian", name, "--target", member, "--quiet"]).start()
    };
    let launches: Vec<_> = instances.iter().map(launch).collect();
    for launch in launches {
        let _ = launch.finish(SOON).expect_code(0);
    }
}

/// `incus exec INSTANCE -- COMMAND`
fn within<'a>(
    cluster: &Cluster<'_>,
    instance: &'a str,
    command: impl IntoIterator<Item = &'a str>,
) -> Run {
    cluster.incus(["exec", instance, "--"]).args(command)
}

/// What incusd says of an instance.
fn instance(cluster: &Cluster<'_>, name: &str) -> Result<Value, String> {
    let asked = cluster.incus(["query", &format!("/1.0/instances/{name}")]).outcome();
    if asked.code == 0 { Ok(asked.json()) } else { Err(asked.to_string()) }
}

/// The first process of an instance as its member numbers it: another one when it was started again.
#[track_caller]
fn first_process(cluster: &Cluster<'_>, name: &str) -> u64 {
    asked_first_process(cluster, name).unwrap_or_else(|why| panic!("{name} does not run: {why}"))
}

fn asked_first_process(cluster: &Cluster<'_>, name: &str) -> Result<u64, String> {
    let asked = cluster.incus(["query", &format!("/1.0/instances/{name}/state")]).outcome();
    if asked.code != 0 {
        return Err(asked.to_string());
    }
    asked.json()["pid"].as_u64().filter(|pid| *pid > 0).ok_or_else(|| asked.to_string())
}

/// Waits until one instance reaches another by its name.
#[track_caller]
fn reaches(cluster: &Cluster<'_>, from: &str, to: &str) {
    wait_until(&format!("{from} reaches {to}"), SOON, || {
        let ping = within(cluster, from, ["ping", "-c", "1", "-W", "1", to]).outcome();
        if ping.code == 0 { Ok(()) } else { Err(ping.to_string()) }
    });
}

/// Waits until these are the members, each with whether it is online. Who has not heard of one for 20 s says that it is not, and on a
/// machine that is slow enough that happens to those that are well.
fn members_become(cluster: &Cluster<'_>, wanted: &str) {
    let list = ["cluster", "list", "--format=csv", "--columns=ns"];
    wait_until("the members are online", SOON, || {
        let seen = cluster.incus(list).success().stdout();
        if seen == wanted { Ok(()) } else { Err(seen) }
    });
}

fn instances_on_all_members(ground: &Ground) {
    let cluster = ground.cluster("incus");
    let before = HostSnapshot::take(ground);
    let settings = ground.path("incus");
    let _ = up_the_example(&cluster).env("INCUS_CONF", &settings).success();
    members_become(&cluster, "member-0,ONLINE\nmember-1,ONLINE\nmember-2,ONLINE\n");
    launch(&cluster, &PAIRS);
    instances_have_what_the_example_says(&cluster);
    they_know_each_other(&cluster);
    files_and_commands(&cluster);
    with_a_client_on_the_host(&cluster, &settings);
    nothing_changes(&cluster);
    a_killed_daemon(&cluster);
    lost_members(&cluster);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
    let left = std::fs::read_dir(&settings).into_iter().flatten().flatten();
    let mut left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    // The client makes that itself.
    left.retain(|name| name != "oidctokens");
    assert!(left.is_empty(), "the client's settings are not as they were: {left:?}");
}

/// `bivouac up` of the example as it stands, but for its name: a cluster of the example's own may be there.
fn up_the_example(cluster: &Cluster<'_>) -> Run {
    let provider = cluster.setting().provider.to_string();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(EXAMPLE);
    cluster.ground().up([cluster.name(), "--provider", &provider, "--file"]).args([&file])
}

fn instances_have_what_the_example_says(cluster: &Cluster<'_>) {
    for (_, name) in PAIRS {
        let told = instance(cluster, name).unwrap_or_else(|why| panic!("{name} is lost: {why}"));
        let config = &told["expanded_config"];
        assert_eq!(config["limits.cpu"], "1", "{told:#}");
        assert_eq!(config["limits.memory"], "256MiB", "{told:#}");
    }
}

fn they_know_each_other(cluster: &Cluster<'_>) {
    for ((_, from), (_, to)) in PAIRS.into_iter().zip(PAIRS.into_iter().cycle().skip(1)) {
        reaches(cluster, from, to);
        let hosts = |name: &str| {
            let known = within(cluster, from, ["getent", "hosts", name]).success().stdout();
            known.split_whitespace().next().unwrap_or_default().to_owned()
        };
        let address = hosts(to);
        assert_eq!(address, hosts(&format!("{to}.incus")));
        let own = within(cluster, to, ["ip", "-oneline", "-4", "address", "show", "eth0"]);
        let _ = own.success().expect_output(&[&format!(" {address}/")]);
    }
    let list = ["list", "--format=csv", "--columns=nLs"];
    let list = cluster.incus(list).success().stdout();
    assert_eq!(list, "c0,member-0,RUNNING\nc1,member-1,RUNNING\nc2,member-2,RUNNING\n");
}

fn files_and_commands(cluster: &Cluster<'_>) {
    // More than a pipe holds, with every byte in it.
    let content: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let push = ["file", "push", "-", "c2/root/pushed"];
    let _ = cluster.incus(push).input(content.clone()).success();
    let read = within(cluster, "c2", ["cat", "/root/pushed"]).success();
    assert!(read.output == content, "{} of {} bytes", read.output.len(), content.len());
    let name = within(cluster, "c1", ["hostname"]).success();
    assert_eq!(name.stdout(), "c1\n");
    let _ = within(cluster, "c1", ["sh", "-c", "exit 7"]).outcome().expect_code(7);
    let absent = within(cluster, "c7", ["true"]).outcome().expect_code(1);
    let _ = absent.expect_errors(&["not found"]);
}

/// The client of a member, taken to the host, with what `up` wrote for it.
fn with_a_client_on_the_host(cluster: &Cluster<'_>, settings: &Path) {
    let (ground, name) = (cluster.ground(), cluster.name());
    let client = ground.path("incus-client");
    let copy = cluster.exec("member-0", ["cat", "/usr/bin/incus"]).success();
    std::fs::write(&client, copy.output).expect("the folder of the test can be written");
    let _ = Run::new("chmod").args(["0755"]).args([&client]).success();
    let remote = format!("bivouac-{name}:");
    let ask = |arguments: &[&str]| {
        let run = Run::new(&client).args(arguments).env("INCUS_CONF", settings);
        run.env("HOME", ground.folder()).success()
    };
    let list = ask(&["list", &remote, "--format=csv", "--columns=n"]);
    assert_eq!(list.stdout(), "c0\nc1\nc2\n");
    let said = ask(&["exec", &format!("{remote}c2"), "--", "hostname"]);
    assert_eq!(said.stdout(), "c2\n");
}

fn nothing_changes(cluster: &Cluster<'_>) {
    let running = PAIRS.map(|(_, name)| first_process(cluster, name));
    let same = up_the_example(cluster).args(["--output", "json"]).success().json();
    assert_eq!(same["changed"], false, "{same:#}");
    assert_eq!(PAIRS.map(|(_, name)| first_process(cluster, name)), running);
    let status = cluster.status();
    assert_eq!(status["usable"], true, "{status:#}");
    for (member, _) in PAIRS {
        let units = status["nodes"][member]["status"]["units"].as_array().expect("it has units");
        assert!(units.iter().all(|unit| unit["restarts"] == 0), "something fell over: {units:#?}");
    }
}

/// Instances run on without the daemon that started them.
fn a_killed_daemon(cluster: &Cluster<'_>) {
    let (member, name) = PAIRS[1];
    let running = first_process(cluster, name);
    let before = cluster.unit(member, "incusd");
    let pid = before["pid"].as_u64().unwrap_or_else(|| panic!("incusd has no pid: {before:#}"));
    let _ = cluster.exec(member, ["kill", "-9", &pid.to_string()]).success();
    reaches(cluster, PAIRS[0].1, name);
    let after = wait_until("incusd runs again", SOON, || {
        let unit = cluster.unit(member, "incusd");
        let again = unit["state"] == "ready" && unit["pid"].as_u64().is_some_and(|now| now != pid);
        if again { Ok(unit) } else { Err(format!("{unit:#}")) }
    });
    // On a busy machine the guard may find it unwell once more.
    assert!(after["restarts"].as_u64().is_some_and(|count| count > 0), "{after:#}");
    wait_until("it knows its instance", SOON, || {
        let now = asked_first_process(cluster, name)?;
        if now == running { Ok(()) } else { Err(format!("{now} is another than {running}")) }
    });
    let _ = within(cluster, name, ["true"]).success();
}

/// With one member lost the others go on; with the one that they joined lost too there is no majority, and `up` makes all whole again.
fn lost_members(cluster: &Cluster<'_>) {
    let [(first, first_name), (_, kept_name), (last, last_name)] = PAIRS;
    let _ = within(cluster, first_name, ["touch", "/root/kept"]).success();
    let address = cluster.address(last);
    cluster.stop_node(last);
    wait_until("the others take a change", SOON, || {
        let change = cluster.incus(["config", "set", kept_name, "user.word=kept"]).outcome();
        if change.code == 0 { Ok(()) } else { Err(change.to_string()) }
    });
    reaches(cluster, kept_name, first_name);
    cluster.stop_node(first);
    let status = cluster.ground().bivouac(["status", cluster.name()]).outcome().expect_code(1);
    let _ = status.expect_output(&["stopped", &format!("bivouac up {}", cluster.name())]);

    let again = cluster.up_by_name().args(["--output", "json"]).success().json();
    let actions = again["actions"].as_array().expect("`up` says what it did");
    let starts = actions.iter().filter(|action| action["action"] == "start-node");
    let started: Vec<_> = starts.filter_map(|action| action["node"].as_str()).collect();
    assert_eq!((started, actions.len()), (vec![first, last], 2), "{again:#}");
    assert_eq!(cluster.address(last), address);
    for (from, to) in [(kept_name, first_name), (first_name, last_name), (last_name, kept_name)] {
        reaches(cluster, from, to);
    }
    let _ = within(cluster, first_name, ["test", "-e", "/root/kept"]).success();
    let word = cluster.incus(["config", "get", kept_name, "user.word"]).success();
    assert_eq!(word.stdout(), "kept\n");
    let _ = cluster.ground().bivouac(["status", cluster.name()]).success();
}

fn members_come_and_go(ground: &Ground) {
    let cluster = ground.cluster("members");
    let before = HostSnapshot::take(ground);
    let other = "  stack: {incus: {}}\n  nodes: [{role: member}, {role: worker}]\n";
    let refused = cluster.up(&cluster.file(other)).outcome().expect_code(2);
    let _ = refused.expect_errors(&["spec.nodes[1].role", "`worker`", "Write `member`"]);

    let two = cluster.up(&file(&cluster, "", "count: 2")).success();
    let _ = two.expect_errors(&["2 members bear no more failures than 1"]);
    let name = cluster.name();
    let node = |verb: &str| ground.bivouac(["node", verb, "--cluster", name]);
    let _ = node("add").args(["--role", "worker"]).outcome().expect_code(2);
    let _ = node("add").success();
    members_become(&cluster, "member-0,ONLINE\nmember-1,ONLINE\nmember-2,ONLINE\n");
    launch(&cluster, &PAIRS);
    let _ = within(&cluster, "c1", ["touch", "/root/kept"]).success();
    whoever_is_away_keeps_what_it_has(&cluster);

    let _ = node("remove").args(["member-1"]).success();
    members_become(&cluster, "member-0,ONLINE\nmember-2,ONLINE\n");
    lives_elsewhere(&cluster, "c1", &["member-0", "member-2"]);
    let _ = node("remove").args(["member-2"]).success();
    members_become(&cluster, "member-0,ONLINE\n");
    for name in ["c1", "c2"] {
        lives_elsewhere(&cluster, name, &["member-0"]);
    }
    let _ = within(&cluster, "c1", ["test", "-e", "/root/kept"]).success();
    let _ = node("remove").args(["member-0"]).outcome().expect_code(2);
    let _ = ground.bivouac(["status", name]).success();
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

/// A member that does not run, and one of which only its data is there.
fn whoever_is_away_keeps_what_it_has(cluster: &Cluster<'_>) {
    let up = || {
        let _ = cluster.up(&file(cluster, "", "count: 3")).success();
        members_become(cluster, "member-0,ONLINE\nmember-1,ONLINE\nmember-2,ONLINE\n");
        let kept = instance(cluster, "c2").unwrap_or_else(|why| panic!("c2 is lost: {why}"));
        assert_eq!(kept["location"], "member-2", "{kept:#}");
        reaches(cluster, "c0", "c2");
    };
    cluster.stop_node("member-2");
    let remove = ["node", "remove", "member-2", "--cluster", cluster.name()];
    let refused = cluster.ground().bivouac(remove).outcome().expect_code(1);
    let _ = refused.expect_errors(&["member-2 does not answer, and it alone has: instance c2"]);
    up();
    cluster.lose_all_but_data("member-2");
    up();
}

/// It runs on one of these members, and is found by its name there.
fn lives_elsewhere(cluster: &Cluster<'_>, name: &str, members: &[&str]) {
    let moved = instance(cluster, name).unwrap_or_else(|error| panic!("{name} is lost: {error}"));
    let location = moved["location"].as_str().unwrap_or_default();
    assert!(members.contains(&location), "{moved:#}");
    assert_eq!(moved["status"], "Running", "{moved:#}");
    reaches(cluster, "c0", name);
}

/// What a member may have, and what of it must be left, in MiB.
const LIMIT: u32 = 1536;
const MINIMUM: u32 = 384;
/// What an instance takes: less is left, whatever else the member has.
const HOG: u32 = LIMIT - MINIMUM;

fn memory_runs_out(ground: &Ground) {
    let cluster = ground.cluster("memory");
    let memory = format!("guard: {{memory: {{minimum: {MINIMUM}MiB, interval: 1s, grace: 1s}}}}");
    let limit = format!("resources: {{memory: {LIMIT}MiB}}");
    let _ = cluster.up(&file(&cluster, &memory, &limit)).success();
    // The first runs longest.
    for name in ["spared", "stubborn", "hog", "young"] {
        launch(&cluster, &[("member-0", name)]);
    }
    let _ = cluster.incus(["config", "set", "spared", "user.oomSkip=true"]).success();
    // What does not go on does not end when it is asked to, and its first process waits for it.
    let _ = within(&cluster, "stubborn", ["pkill", "-STOP", "-f", "udhcpc"]).success();
    let running = ["spared", "young"].map(|name| first_process(&cluster, name));
    let hog = format!("(head -c {HOG}M /dev/zero; exec sleep infinity) | tail & exit");
    let hog = format!("exec setsid sh -c '{hog}' < /dev/null > /dev/null 2>&1");
    let _ = within(&cluster, "hog", ["sh", "-c", &hog]).success();

    wait_until("the hog is stopped", SOON, || {
        let hog = instance(&cluster, "hog")?;
        if hog["status"] == "Stopped" { Ok(()) } else { Err(format!("{hog:#}")) }
    });
    wait_until("the guard says so", SOON, || {
        let said = cluster.logs(["member-0", "guard"]).success().stdout();
        if said.contains("instance hog is stopped") { Ok(()) } else { Err(said) }
    });
    let said = cluster.logs(["member-0", "guard"]).success().stdout();
    let victims = ["stubborn", "hog"];
    let mut sweeps = said.lines().filter(|line| line.contains("stopping instance"));
    for name in victims {
        let sweep = sweeps.next().unwrap_or_default();
        assert!(sweep.contains(&format!("instance {name},")), "{said}");
        assert!(sweep.contains(&format!("{MINIMUM} must be")), "{said}");
    }
    assert_eq!(sweeps.next(), None, "there is enough memory: {said}");
    assert!(said.contains("instance stubborn did not stop by itself"), "{said}");
    assert_eq!(["spared", "young"].map(|name| first_process(&cluster, name)), running);
    let _ = ground.bivouac(["status", cluster.name()]).success();
}
