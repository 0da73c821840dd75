//! `bivouac bench` measures what it says that it measures, and leaves nothing behind.

use bivouac_e2e::{About, Case, Ground, HostSnapshot, case};
use serde_json::Value;

pub(crate) const CASES: [Case; 1] =
    [case("bench/measures_one_node", About::Grounds, measures_one_node)];

fn measures_one_node(ground: &Ground) {
    let cluster = ground.cluster("bench");
    let provider = ground.setting().provider.to_string();
    let bench = ["bench", "-n", "1", "-p", &provider, "--name", cluster.name(), "--output", "json"];
    let before = HostSnapshot::take(ground);
    let report = ground.bivouac(bench).success().json();
    assert_eq!(report["provider"], provider, "{report:#}");
    assert_eq!((&report["nodes"], &report["problems"]), (&1.into(), &Value::Null), "{report:#}");
    let runs = report["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let [run] = runs else { panic!("one run was asked for: {report:#}") };
    let seconds = |pointer: &str| {
        let value = run.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {pointer} in {report:#}"))
    };
    // Each of them comes after the one before.
    let order = ["/commandReturns", "/answers/app", "/answers/dns"].map(seconds);
    assert!(order[0] > 0.0 && order.is_sorted(), "{report:#}");
    assert!(seconds("/cpuSeconds") > 0.0 && seconds("/down") > 0.0, "{report:#}");
    assert_eq!(run["memory"].as_array().map(Vec::len), Some(1), "{report:#}");
    before.expect_nothing_left(ground);
}
