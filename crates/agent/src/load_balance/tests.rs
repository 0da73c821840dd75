use proptest::prelude::*;
use serde_json::{Value, json};

use super::book::{Book, Pool, Refusal};
use super::holder::{Standing, line, standing};
use super::object::{Node, Object as _, Service, Slice, key};
use super::peers::Peers;
use super::watch::News;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn pool(ranges: &[&str]) -> Pool {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Pool { ranges, except: BTreeSet::new() }
}

fn small() -> Pool {
    pool(&["10.0.0.1-10.0.0.3", "fd00::1-fd00::3"])
}

fn service(created: u32, families: &[bool], asked: &[&str], has: &[&str]) -> Service {
    Service {
        uid: created.to_string(),
        created: format!("2026-01-01T00:00:{created:02}Z"),
        families: families.to_vec(),
        asked: asked.iter().map(|text| text.parse().map_err(|_| (*text).to_owned())).collect(),
        has: has.iter().map(|text| ip(text)).collect(),
        local: false,
    }
}

fn named(services: &[(&str, Service)]) -> BTreeMap<String, Service> {
    services.iter().map(|(name, service)| ((*name).to_owned(), service.clone())).collect()
}

/// What each gets, as text.
fn give(pool: &Pool, book: &Book, services: &[(&str, Service)]) -> Vec<String> {
    let given = pool.give(book, &named(services));
    let text = |(name, answer): (String, Result<Vec<IpAddr>, Refusal>)| match answer {
        Ok(addresses) => {
            let words: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("{name}: {}", words.join(" "))
        }
        Err(refusal) => format!("{name}: {refusal}"),
    };
    given.services.into_iter().map(text).collect()
}

fn book(entries: &[(&str, &str)]) -> Book {
    entries.iter().map(|(address, owner)| (ip(address), (*owner).to_owned())).collect()
}

#[test]
fn each_gets_the_lowest_that_is_free_in_the_order_of_their_making() {
    let services = [
        ("a/late", service(9, &[true], &[], &[])),
        ("b/early", service(1, &[true], &[], &[])),
        ("c/both", service(5, &[false, true], &[], &[])),
        ("d/none-left", service(20, &[true], &[], &[])),
    ];
    assert_eq!(
        give(&small(), &Book::new(), &services),
        [
            "a/late: 10.0.0.3",
            "b/early: 10.0.0.1",
            "c/both: fd00::1 10.0.0.2",
            "d/none-left: all addresses of 10.0.0.1-10.0.0.3 are taken"
        ]
    );
}

#[test]
fn what_one_has_one_keeps() {
    let old = service(1, &[true], &[], &[]);
    let new = service(9, &[true], &[], &["10.0.0.1"]);
    // The book says it, or without a book the status.
    let known = book(&[("10.0.0.2", "a/old")]);
    let services = [("a/old", old), ("a/new", new.clone())];
    assert_eq!(give(&small(), &known, &services), ["a/new: 10.0.0.1", "a/old: 10.0.0.2"]);
    // Both say that they have it: the older one does.
    let old = service(1, &[true], &[], &["10.0.0.1"]);
    let services = [("a/old", old), ("a/new", new)];
    assert_eq!(give(&small(), &Book::new(), &services), ["a/new: 10.0.0.2", "a/old: 10.0.0.1"]);
    // An address of another network, as after a copy of the cluster, is not kept.
    let moved = service(1, &[true], &[], &["10.7.0.1"]);
    assert_eq!(give(&small(), &book(&[("10.7.0.1", "a/x")]), &[("a/x", moved)]), ["a/x: 10.0.0.1"]);
    // Of whom we have not heard yet keeps the address too.
    let services = [("a/x", service(1, &[true], &[], &[]))];
    assert_eq!(give(&small(), &book(&[("10.0.0.1", "a/unseen")]), &services), ["a/x: 10.0.0.2"]);
}

#[test]
fn what_is_asked_for_is_given_or_the_reason_said() {
    let first = ("a/first", service(1, &[true], &[], &[]));
    let both = [true, false];
    for (asked, families, expected) in [
        (&["10.0.0.1"][..], &[true][..], "10.0.0.1"),
        (&["10.0.0.3"], &both, "10.0.0.3 fd00::1"),
        (&["fd00::2"], &both, "10.0.0.1 fd00::2"),
        (&["10.0.0.2", "fd00::3"], &both, "10.0.0.2 fd00::3"),
        (&["fd00::2"], &[true], "fd00::2 is of a family that the Service does not have"),
        (
            &["10.0.0.9"],
            &[true],
            "10.0.0.9 is not for Services: choose one of 10.0.0.1-10.0.0.3, fd00::1-fd00::3, or none",
        ),
        (&["here"], &[true], "`here` is no IP address"),
    ] {
        let services = [first.clone(), ("a/x", service(9, families, asked, &[]))];
        let given = give(&small(), &Book::new(), &services);
        assert_eq!(given[1], format!("a/x: {expected}"));
    }
    let holder = book(&[("10.0.0.2", "a/first")]);
    let services = [first, ("a/x", service(9, &[true], &["10.0.0.2"], &[]))];
    assert_eq!(
        give(&small(), &holder, &services)[1],
        "a/x: 10.0.0.2 is that of Service a/first: an address is for one Service alone"
    );
    // Who asks for another one gives the old one back.
    let services = named(&[("a/x", service(9, &[true], &["10.0.0.3"], &["10.0.0.1"]))]);
    let given = small().give(&book(&[("10.0.0.1", "a/x")]), &services);
    assert_eq!(given.book, book(&[("10.0.0.3", "a/x")]));
}

#[test]
fn an_address_of_a_node_is_nobodys() {
    let pool = Pool { except: [ip("10.0.0.1")].into(), ..small() };
    let services = [("a/x", service(1, &[true], &[], &["10.0.0.1"]))];
    assert_eq!(give(&pool, &book(&[("10.0.0.1", "a/x")]), &services), ["a/x: 10.0.0.2"]);
}

fn services() -> impl Strategy<Value = BTreeMap<String, Service>> {
    let family = prop_oneof![
        Just(vec![true]),
        Just(vec![false]),
        Just(vec![true, false]),
        Just(vec![false, true])
    ];
    let address = |last: u8| IpAddr::from([10, 0, 0, last]);
    let addresses = prop::collection::vec((0_u8..9).prop_map(address), 0..2);
    let one = (0_u32..5, family, addresses.clone(), addresses).prop_map(
        |(created, families, asked, has)| Service {
            asked: asked.into_iter().map(Ok).collect(),
            has,
            ..service(created, &families, &[], &[])
        },
    );
    prop::collection::btree_map("[a-h]", one, 0..8)
}

proptest! {
    #[test]
    fn no_address_is_given_twice_and_what_is_given_stays(first in services(), second in services()) {
        let pool = small();
        let mut book = Book::new();
        for services in [first, second] {
            book.retain(|_, owner| services.contains_key(owner));
            let given = pool.give(&book, &services);
            let mut seen = BTreeSet::new();
            for (key, answer) in &given.services {
                let service = &services[key];
                let Ok(addresses) = answer else { continue };
                prop_assert_eq!(addresses.len(), service.families.len());
                for (address, is_v4) in addresses.iter().zip(&service.families) {
                    prop_assert!(seen.insert(*address) && address.is_ipv4() == *is_v4);
                    prop_assert!(pool.contains(*address));
                    prop_assert_eq!(&given.book[address], key);
                }
            }
            prop_assert_eq!(seen.len(), given.book.len());
            // With the status that follows, nothing changes any more.
            let mut settled = services.clone();
            for (key, answer) in &given.services {
                settled.get_mut(key).unwrap().has = answer.clone().unwrap_or_default();
            }
            prop_assert_eq!(&pool.give(&given.book, &settled), &given);
            // Whoever has lost the book finds the same in the status, unless somebody was refused.
            if given.services.values().all(Result::is_ok) {
                prop_assert_eq!(&pool.give(&Book::new(), &settled), &given);
            }
            book = given.book;
        }
    }
}

fn nodes(names: &[&str]) -> BTreeMap<String, Node> {
    let node = |name: &&str| {
        let ready = !name.ends_with('!');
        let node = Node { ready, reluctant: name.starts_with("control"), address: None };
        (name.trim_end_matches('!').to_owned(), node)
    };
    names.iter().map(node).collect()
}

#[test]
fn ready_nodes_stand_in_line_and_those_who_are_marked_at_its_end() {
    let address = ip("10.0.0.1");
    let all = line(address, &nodes(&["a", "b", "control", "c!"]), None);
    assert_eq!(all.len(), 3);
    assert_eq!(all[2], "control");
    assert_eq!(line(address, &nodes(&["control"]), None), ["control"]);
    let only = ["b".to_owned(), "c".to_owned()].into();
    assert_eq!(line(address, &nodes(&["a", "b", "control", "c!"]), Some(&only)), ["b"]);
    // Addresses spread, and one who goes moves only what it had.
    let names = ["a", "b", "c", "d"];
    let mut firsts = BTreeMap::<String, u32>::new();
    for last in 0..=255 {
        let address = IpAddr::from([10, 0, 0, last]);
        let before = line(address, &nodes(&names), None);
        let after = line(address, &nodes(&["a", "b", "c"]), None);
        let without: Vec<_> = before.iter().filter(|name| *name != "d").cloned().collect();
        assert_eq!(after, without);
        *firsts.entry(before[0].clone()).or_default() += 1;
    }
    assert!(firsts.len() == 4 && firsts.values().all(|count| *count > 30), "{firsts:?}");
}

#[test]
fn the_next_in_line_takes_over_and_nobody_else_does() {
    let all: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).into();
    let lost = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let holders = |gone: &[&str]| -> Vec<String> {
        let gone: BTreeSet<String> = lost(gone);
        let holds = |name: &&String| {
            // A node sees only those that it follows.
            let follows = standing(&all, name, &BTreeSet::new()).follows;
            let seen = gone.iter().filter(|one| follows.contains(one)).cloned().collect();
            !gone.contains(*name) && standing(&all, name, &seen).holds
        };
        all.iter().filter(holds).cloned().collect()
    };
    assert_eq!(holders(&[]), ["a"]);
    assert_eq!(holders(&["a"]), ["b"]);
    assert_eq!(holders(&["b", "d"]), ["a"]);
    assert_eq!(holders(&["a", "b"]), ["c"]);
    // Then the API must say so.
    assert_eq!(holders(&["a", "b", "c"]), [""; 0]);
    assert_eq!(standing(&all, "d", &BTreeSet::new()), Standing::default());
    assert_eq!(standing(&all, "stranger", &BTreeSet::new()), Standing::default());
    assert_eq!(standing(&all, "c", &BTreeSet::new()).follows, ["a", "b"]);
}

fn object(spec: &Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "default", "uid": "u", "creationTimestamp": "t", "annotations": {}},
        "spec": spec, "status": {"loadBalancer": {}},
    })
}

#[test]
fn only_services_of_ours_are_read() {
    let mut web = object(&json!({
        "type": "LoadBalancer", "ipFamilies": ["IPv4", "IPv6"], "externalTrafficPolicy": "Local",
        "loadBalancerIP": "10.0.0.2",
    }));
    web["status"]["loadBalancer"] =
        json!({"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}, {"hostname": "x"}]});
    let read = Service::read(&web).unwrap();
    assert_eq!(key(&web), "default/web");
    assert_eq!(read.families, [true, false]);
    assert_eq!(read.asked, [Ok(ip("10.0.0.2"))]);
    assert_eq!(read.has, [ip("10.0.0.1")]);
    assert!(read.local);
    web["metadata"]["annotations"] =
        json!({"bivouac.dev/load-balancer-addresses": "10.0.0.3, fd00::1,x"});
    let read = Service::read(&web).unwrap();
    assert_eq!(read.asked, [Ok(ip("10.0.0.3")), Ok(ip("fd00::1")), Err("x".to_owned())]);
    let of_class = |class: &str| {
        let spec = json!({"type": "LoadBalancer", "loadBalancerClass": class});
        Service::read(&object(&spec)).is_some()
    };
    assert!(of_class("bivouac.dev/load-balancer") && !of_class("example.com/other"));
    assert!(Service::read(&object(&json!({"type": "ClusterIP"}))).is_none());
}

#[test]
fn nodes_and_endpoints_are_read() {
    let mut node = json!({
        "metadata": {"name": "worker-0", "labels": {}},
        "spec": {},
        "status": {
            "conditions": [{"type": "DiskPressure", "status": "False"}, {"type": "Ready", "status": "True"}],
            "addresses": [{"type": "Hostname", "address": "worker-0"}, {"type": "InternalIP", "address": "10.0.0.2"}],
        },
    });
    let address = Some(ip("10.0.0.2"));
    assert_eq!(Node::read(&node), Some(Node { ready: true, reluctant: false, address }));
    node["spec"]["unschedulable"] = json!(true);
    node["status"]["conditions"][1]["status"] = json!("Unknown");
    assert_eq!(Node::read(&node), Some(Node { ready: false, reluctant: true, address }));
    let slice = json!({"metadata": {"name": "web-1"}, "endpoints": [
        {"addresses": ["10.1.0.1"], "nodeName": "a", "conditions": {"ready": true}},
        {"addresses": ["10.1.0.2"], "nodeName": "b", "conditions": {"ready": false}},
        {"addresses": ["10.1.0.3"], "conditions": {}},
        {"addresses": ["10.1.0.4"], "nodeName": "c"},
    ]});
    assert_eq!(Slice::read(&slice), Some(Slice(vec!["a".to_owned(), "c".to_owned()])));
    assert_eq!(Slice::read(&json!({"metadata": {}, "endpoints": null})), Some(Slice(Vec::new())));
}

#[test]
fn news_tell_whether_anything_is_different() {
    let mut known = None;
    let one = |name: &str, value| News::One(name.to_owned(), value);
    assert!(News::All([("a".to_owned(), 1)].into()).apply(&mut known));
    assert!(!News::All([("a".to_owned(), 1)].into()).apply(&mut known));
    assert!(!one("a", Some(1)).apply(&mut known));
    assert!(one("a", Some(2)).apply(&mut known) && one("b", Some(2)).apply(&mut known));
    assert!(one("a", None).apply(&mut known) && !one("a", None).apply(&mut known));
    assert_eq!(known.unwrap().len(), 1);
    assert!(News::<u8>::All(BTreeMap::new()).apply(&mut None));
}

#[test]
fn a_node_is_lost_when_its_connection_ends_and_back_with_a_new_one() {
    // Of an address that nobody else uses: its port stays free in between.
    let listener = TcpListener::bind((crate::testing::loopback(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = channel();
    let mut peers = Peers::new(move |name, up| sender.send((name.to_owned(), up)).unwrap());
    let follow = |address: SocketAddr| BTreeMap::from([("a".to_owned(), address)]);
    assert!(peers.follow(&follow(address)).unwrap().is_empty());
    // Whoever comes back at once was not lost.
    drop(listener.accept().unwrap());
    let (stream, _) = listener.accept().unwrap();
    drop((stream, listener));
    let soon = Duration::from_secs(120);
    assert_eq!(receiver.recv_timeout(soon).unwrap(), ("a".to_owned(), true));
    assert_eq!(receiver.recv_timeout(soon).unwrap(), ("a".to_owned(), false));
    let listener = TcpListener::bind(address).unwrap();
    assert_eq!(receiver.recv_timeout(soon).unwrap(), ("a".to_owned(), true));
    // Nothing is told of those who are not followed any more, and they learn of that.
    let (mut stream, _) = listener.accept().unwrap();
    assert!(peers.follows("a"));
    assert_eq!(peers.follow(&BTreeMap::new()).unwrap(), ["a"]);
    assert!(!peers.follows("a"));
    assert_eq!(std::io::Read::read(&mut stream, &mut [0]).unwrap(), 0);
    drop((stream, listener, peers));
    // The thread that followed it has ended without another word.
    assert_eq!(receiver.recv_timeout(soon), Err(RecvTimeoutError::Disconnected));
}
