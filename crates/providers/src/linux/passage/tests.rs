//! Decisions over listings.

use super::*;

const CLUSTER: &str = "demo";

/// What `iptables` and Docker made.
const DOCKER: &str = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
    {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1, "type": "filter",
      "hook": "forward", "prio": 0, "policy": "drop"}},
    {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 4,
      "expr": [{"xt": {"type": "match", "name": "conntrack"}}, {"counter": {"packets": 0, "bytes": 0}}, {"accept": null}]}},
    {"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "handle": 5,
      "expr": [{"counter": {"packets": 0, "bytes": 0}}, {"jump": {"target": "DOCKER-USER"}}]}}]}"#;

fn cluster() -> ClusterName {
    CLUSTER.parse().unwrap()
}

fn docker_user(rules: &str) -> String {
    format!(
        r#"{{"nftables": [{{"chain": {{"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}}}}{rules}]}}"#
    )
}

fn forward(family: &str, policy: &str, rules: &str) -> String {
    format!(
        r#"{{"nftables": [{{"chain": {{"family": "{family}", "table": "fw", "name": "forward", "handle": 1,
            "type": "filter", "hook": "forward", "prio": 0, "policy": "{policy}"}}}}{rules}]}}"#
    )
}

/// A rule that is like ours, with something before its verdict and beside its parts.
fn rule(handle: u64, key: &str, between: &str, beside: &str) -> String {
    let bridge = names::bridge(&cluster());
    format!(
        r#", {{"rule": {{"handle": {handle}{beside}, "expr": [{{"match": {{"op": "==", "left": {{"meta": {{"key": "{key}"}}}},
            "right": "{bridge}"}}}}, {between} {{"counter": {{"packets": 1, "bytes": 1}}}}, {{"accept": null}}]}}}}"#
    )
}

fn rendered(places: &[Place]) -> String {
    gaps(places, &cluster()).iter().map(|gap| gap.render(&cluster())).collect()
}

#[test]
fn rules_go_where_docker_keeps_them() {
    let places = listing::sample(&[DOCKER, &docker_user("")]);
    insta::assert_snapshot!(rendered(&places), @r#"
    insert rule ip filter DOCKER-USER iifname "bv-2a97516c" counter accept comment "bivouac:demo"
    insert rule ip filter DOCKER-USER oifname "bv-2a97516c" counter accept comment "bivouac:demo"
    "#);
    // Not if nothing leads there any more.
    let places = listing::sample(&[&DOCKER.replace("jump", "goto"), &docker_user("")]);
    assert!(rendered(&places).starts_with("insert rule ip filter FORWARD iifname"));
}

#[test]
fn only_what_drops_gets_them_and_only_once() {
    let both = rule(7, "iifname", "", "") + &rule(8, "oifname", "", "");
    for (text, missing) in [
        (forward("inet", "drop", ""), 2),
        (forward("ip6", "drop", &rule(7, "iifname", "", "")), 1),
        (forward("ip", "drop", &both), 0),
        (forward("inet", "accept", ""), 0),
        (forward("bridge", "drop", ""), 0),
    ] {
        assert_eq!(rendered(&listing::sample(&[&text])).lines().count(), missing, "{text}");
    }
    // Docker came after the cluster.
    let base = format!("{}{both}]}}", DOCKER.strip_suffix("]}").unwrap());
    assert_eq!(rendered(&listing::sample(&[&base, &docker_user("")])), "");
}

#[test]
fn own_rules_are_told_from_others() {
    let restored = r#"{"xt": {"type": "match", "name": "comment"}},"#;
    let narrower = r#"{"xt": {"type": "match", "name": "conntrack"}},"#;
    let rules = [
        rule(1, "iifname", "", r#", "comment": "bivouac:demo""#),
        rule(2, "oifname", restored, ""),
        rule(3, "oifname", "", ""),
        rule(4, "iifname", narrower, ""),
        rule(5, "iifname", "", r#", "comment": "of the administrator""#),
        rule(6, "iifname", "", "").replace(&names::bridge(&cluster()), "bv-*"),
        rule(7, "iifname", "", "").replace("accept", "drop"),
    ];
    let places = listing::sample(&[&forward("ip", "accept", &rules.concat())]);
    let handles: Vec<u64> =
        own(&places, &cluster()).into_iter().map(|(_, handle)| handle).collect();
    assert_eq!(handles, [1, 2, 3]);
    assert!(own(&places, &"other".parse().unwrap()).is_empty());
}
