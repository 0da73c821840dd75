//! Clusters of Incus in trouble: what is asked for and cannot be, instances that cannot be moved, members that are lost with their data or
//! while they join, and a daemon that hangs.

use bivouac_e2e::{
    About, Case, Cluster, Ground, HostSnapshot, Provider, Run, SOON, case, wait_until,
};

pub(crate) const CASES: [Case; 4] = [
    case("incus_trouble/refused_before_anything_is_made", About::Grounds, refused),
    case("incus_trouble/a_pool_in_a_file", About::One(Provider::Linux), a_pool_in_a_file),
    case("incus_trouble/members_are_lost", About::Grounds, members_are_lost),
    case("incus_trouble/a_daemon_hangs", About::Grounds, a_daemon_hangs),
];

/// The cluster file: these settings of the stack, so many members, and this beside them.
fn file(cluster: &Cluster<'_>, settings: &str, count: u32, rest: &str) -> std::path::PathBuf {
    let nodes = format!("  nodes: [{{role: member, count: {count}}}]\n");
    cluster.file(&format!("  stack: {{incus: {{{settings}}}}}\n{nodes}{rest}"))
}

fn refused(ground: &Ground) {
    let cluster = ground.cluster("incus-refused");
    let before = HostSnapshot::take(ground);
    let refuse = |settings: &str, rest: &str, code: i32, errors: &[&str]| {
        for verb in ["plan", "up"] {
            let asked = ground.bivouac([verb, "--file"]).args([file(&cluster, settings, 3, rest)]);
            let _ = asked.outcome().expect_code(code).expect_errors(errors);
        }
        before.expect_nothing_left(ground);
    };
    refuse("storage: {driver: zfs}", "", 2, &["no tools for `zfs`", "driver: dir"]);
    if ground.setting().provider != Provider::Linux {
        // Containers get no loop devices.
        refuse("storage: {driver: btrfs}", "", 3, &["cannot have `btrfs`", "driver: dir"]);
    }
    let one = "  network: {podCIDR: [10.77.0.0/16], nodeCIDR: [10.77.1.0/24]}\n";
    refuse("", one, 2, &["10.77.0.0/16", "10.77.1.0/24"]);
    let small = "  network: {podCIDR: [10.77.0.0/23]}\n";
    refuse("", small, 2, &["podCIDR", "room for 2 nodes"]);
    refuse("", "  network: {ipFamilies: [IPv6]}\n", 2, &["IPv4"]);

    // Instances of another cluster are where these would be.
    let other = ground.cluster("incus-other");
    let network = "  network: {podCIDR: [10.77.0.0/16]}\n";
    let _ = other.up(&file(&other, "", 1, network)).success();
    let taken = cluster.up(&file(&cluster, "", 1, network)).outcome().expect_code(2);
    let _ = taken.expect_errors(&["10.77.0.0/16", other.name()]);
    // The number of its VXLAN is its own: clusters do not see each other's.
    let elsewhere = "  network: {podCIDR: [10.78.0.0/16]}\n";
    let _ = cluster.up(&file(&cluster, "", 1, elsewhere)).success();
    for cluster in [&cluster, &other] {
        let _ = cluster.down().success();
    }
    before.expect_nothing_left(ground);
}

/// Where the kernel has btrfs; elsewhere it is refused.
fn a_pool_in_a_file(ground: &Ground) {
    let cluster = ground.cluster("incus-btrfs");
    let before = HostSnapshot::take(ground);
    let file = file(&cluster, "storage: {driver: btrfs, size: 1GiB}", 2, "");
    let loops = || {
        let used = Run::new("losetup").args(["--noheadings", "--output=BACK-FILE"]).success();
        used.stdout().lines().filter(|line| line.contains("/incus/disks/")).count()
    };
    let others = loops();
    let planned = ground.bivouac(["plan", "--file"]).args([&file]).outcome();
    if planned.code != 0 {
        let _ = planned.expect_code(3).expect_errors(&["cannot have `btrfs`"]);
        return before.expect_nothing_left(ground);
    }
    let _ = cluster.up(&file).success();
    for name in ["member-0", "member-1"] {
        let _ = cluster.incus(["launch", "debian", name, "--target", name, "--quiet"]).success();
    }
    let pool = cluster.incus(["storage", "show", "default"]).success();
    let _ = pool.expect_output(&["driver: btrfs", "status: Created"]);
    assert_eq!(loops(), others + 2, "each member has a file");
    let _ = cluster.down().success();
    wait_until("no file is used any more", SOON, || {
        let left = loops();
        if left == others { Ok(()) } else { Err(left.to_string()) }
    });
    before.expect_nothing_left(ground);
}

fn members_are_lost(ground: &Ground) {
    let cluster = ground.cluster("incus-lost");
    let before = HostSnapshot::take(ground);
    let _ = cluster.up(&file(&cluster, "", 2, "")).success();
    lost_while_it_joins(&cluster);
    half_of_a_member(&cluster);
    half_of_a_member_with_instances(&cluster);
    lost_with_its_data(&cluster);
    cannot_be_moved(&cluster);
    let _ = cluster.down().success();
    before.expect_nothing_left(ground);
}

fn node<'a>(cluster: &Cluster<'a>, verb: &str) -> Run {
    cluster.ground().bivouac(["node", verb, "--cluster", cluster.name()])
}

fn members(cluster: &Cluster<'_>) -> String {
    cluster.incus(["cluster", "list", "--format=csv", "--columns=ns"]).success().stdout()
}

const TWO: &str = "member-0,ONLINE\nmember-1,ONLINE\n";
const THREE: &str = "member-0,ONLINE\nmember-1,ONLINE\nmember-2,ONLINE\n";

/// A member is seen as offline for a moment when those who keep the database had no leader just now.
#[track_caller]
fn expect_members(cluster: &Cluster<'_>, expected: &str) {
    wait_until("the members are online", SOON, || {
        let seen = members(cluster);
        if seen == expected { Ok(()) } else { Err(seen) }
    });
}

/// What others were told of it is used up by then, whole or in part: it is told again.
fn lost_while_it_joins(cluster: &Cluster<'_>) {
    let begun = "test -e /var/lib/bivouac/incus.joining || test -e /var/lib/incus/cluster.crt";
    let adding = node(cluster, "add").start();
    wait_until("member-2 begins to join", SOON, || {
        let there = cluster.exec("member-2", ["sh", "-c", begun]).outcome();
        if there.code == 0 { Ok(()) } else { Err(there.to_string()) }
    });
    adding.kill_group();
    end(cluster, "member-2");
    // One that had come to its end already would add another one.
    let _ = match adding.finish(SOON).code {
        0 => cluster.up_by_name().success(),
        _ => node(cluster, "add").success(),
    };
    expect_members(cluster, THREE);
}

/// What a member has that was cut short before it was put into a group of the cluster.
const NO_GROUP: &str = "DELETE FROM nodes_cluster_groups WHERE node_id = (SELECT id FROM nodes WHERE name = 'member-2')";
const MARKER: &str = "/var/lib/bivouac/incus.joining";

/// Ends member-2 in the midst of joining, as the database and it itself remember it.
fn cut_short(cluster: &Cluster<'_>, database: &str) {
    let _ = cluster.incus(["admin", "sql", "global", database]).success();
    let _ = cluster.exec("member-2", ["touch", MARKER]).success();
    end(cluster, "member-2");
    let _ = cluster.up_by_name().success();
    expect_members(cluster, THREE);
    let _ = cluster.exec("member-2", ["test", "!", "-e", MARKER]).success();
}

/// The database counts it, the cluster does not list it, and nothing of it is used again.
fn half_of_a_member(cluster: &Cluster<'_>) {
    let number = || {
        let asked = "SELECT id FROM nodes WHERE name = 'member-2'";
        let asked = ["admin", "sql", "global", asked, "--format=csv"];
        cluster.incus(asked).success().stdout().trim().to_owned()
    };
    let left = "/var/lib/bivouac/incus/disks/left";
    let _ = cluster.exec("member-2", ["touch", left]).success();
    let before = number();
    let half = format!("UPDATE nodes SET state = 1 WHERE name = 'member-2'; {NO_GROUP}");
    cut_short(cluster, &half);
    let _ = cluster.exec("member-2", ["test", "!", "-e", left]).success();
    assert_ne!(number(), before, "the cluster forgot it");
}

/// Instances come to whoever is listed, in a group or not.
fn half_of_a_member_with_instances(cluster: &Cluster<'_>) {
    let _ =
        cluster.incus(["launch", "debian", "kept", "--target", "member-2", "--quiet"]).success();
    cut_short(cluster, NO_GROUP);
    let list = cluster.incus(["list", "--format=csv", "--columns=nL"]).success().stdout();
    assert_eq!(list, "kept,member-2\n");
    // The others hear of a member that came back a moment later.
    wait_until("its member is asked for the instance", SOON, || {
        let deleted = cluster.incus(["delete", "kept", "--force"]).outcome();
        if deleted.code == 0 { Ok(()) } else { Err(deleted.to_string()) }
    });
}

/// `status` says what brings it back, and that does.
fn lost_with_its_data(cluster: &Cluster<'_>) {
    let _ = cluster.incus(["launch", "debian", "c0", "--target", "member-0", "--quiet"]).success();
    let _ = cluster.incus(["launch", "debian", "c2", "--target", "member-2", "--quiet"]).success();
    cluster.lose_node("member-2");
    let status = cluster.ground().bivouac(["status", cluster.name()]).outcome().expect_code(1);
    let _ = status.expect_output(&["member-2", &format!("bivouac up {}", cluster.name())]);
    let _ = cluster.up_by_name().success();
    expect_members(cluster, THREE);
    let list = cluster.incus(["list", "--format=csv", "--columns=nLs"]).success().stdout();
    assert_eq!(list, "c0,member-0,RUNNING\n", "what was on it went with it");
    let again = cluster.up_by_name().args(["--output", "json"]).success().json();
    assert_eq!(again["changed"], false, "{again:#}");
}

/// A folder of one member is nowhere else.
fn cannot_be_moved(cluster: &Cluster<'_>) {
    let _ = cluster.exec("member-2", ["mkdir", "--parents", "/srv/only-here"]).success();
    let _ =
        cluster.incus(["launch", "debian", "fixed", "--target", "member-2", "--quiet"]).success();
    let device = ["device", "add", "fixed", "here", "disk", "source=/srv/only-here", "path=/mnt"];
    let _ = cluster.incus(["config"].into_iter().chain(device)).success();
    let _ = cluster.incus(["exec", "fixed", "--", "touch", "/root/kept"]).success();
    let refused = node(cluster, "remove").args(["member-2"]).outcome().expect_code(1);
    let list = format!("bivouac incus --cluster {} -- list", cluster.name());
    let _ = refused.expect_errors(&["/srv/only-here", "cannot be moved", &list]);
    expect_members(cluster, THREE);

    let _ = cluster.incus(["config", "device", "remove", "fixed", "here"]).success();
    let _ = node(cluster, "remove").args(["member-2"]).success();
    expect_members(cluster, TWO);
    let running =
        cluster.incus(["list", "fixed", "--format=csv", "--columns=s"]).success().stdout();
    if running.trim() != "RUNNING" {
        let _ = cluster.incus(["start", "fixed"]).success();
    }
    let _ = cluster.incus(["exec", "fixed", "--", "test", "-e", "/root/kept"]).success();
}

/// Ends a member from outside, whatever it has become by then. It keeps its data.
fn end(cluster: &Cluster<'_>, member: &str) {
    match cluster.setting().provider {
        Provider::Linux => cluster.end_agent(member),
        Provider::Docker | Provider::Compose => {
            let container = cluster.container(member);
            let _ = cluster.ground().engine().docker(["kill", &container]).success();
        }
    }
}

/// It answers nothing and does not end: the guard starts it anew, and instances run on.
fn a_daemon_hangs(ground: &Ground) {
    let cluster = ground.cluster("incus-hangs");
    let health = "guard: {health: {interval: 1s, timeout: 5s, failures: 2}}";
    let _ = cluster.up(&file(&cluster, health, 1, "")).success();
    let _ = cluster.incus(["launch", "debian", "c0", "--quiet"]).success();
    let first = || {
        let asked = cluster.incus(["query", "/1.0/instances/c0/state"]).outcome();
        if asked.code == 0 { Ok(asked.json()["pid"].clone()) } else { Err(asked.to_string()) }
    };
    let running = first().expect("the instance runs");
    let pid = cluster.unit("member-0", "incusd")["pid"].clone();
    let _ = cluster.exec("member-0", ["kill", "-STOP", &pid.to_string()]).success();
    wait_until("incusd runs again", SOON, || {
        let unit = cluster.unit("member-0", "incusd");
        let again = unit["state"] == "ready" && unit["pid"] != pid;
        if again { Ok(()) } else { Err(format!("{unit:#}")) }
    });
    let now = wait_until("it answers", SOON, first);
    assert_eq!(now, running, "the instance ran on");
    let said = cluster.logs(["member-0", "guard"]).success().stdout();
    assert!(said.contains("incusd"), "{said}");
    let _ = cluster.down().success();
}
