use super::*;
use crate::leaf::Issued;
use crate::secret::Secret;
use proptest::prelude::*;

const OWN: &str = "\
# my clusters
apiVersion: v1
clusters:
- cluster:
    server: https://a.example   # the old one
    unknown: [1, {x: y}]
  name: a

# the new one
- name: \"on\"
  cluster: {server: https://b.example}
contexts:
- {name: work, context: {cluster: a, user: me}}
current-context: work
kind: Config
preferences: {}
users:
  # indented
  - name: me
    user:
      token: 1_000
";

fn ours(server: &str) -> Kubeconfig {
    let client = Issued { certificate: "CERT".into(), key: Secret::new("KEY") };
    Kubeconfig::named("bivouac-demo", server, "AUTHORITY", &client)
}

#[test]
fn a_file_of_somebody_keeps_every_line() {
    let merged = merge(Some(OWN), &ours("https://10.0.0.2:6443"), true).unwrap();
    insta::assert_snapshot!(merged);
    assert_eq!(remove(&merged, "bivouac-demo").unwrap(), OWN);
}

#[test]
fn the_current_context_is_touched_only_where_asked_and_ours() {
    let beside = merge(Some(OWN), &ours("https://x"), false).unwrap();
    assert!(beside.contains("\ncurrent-context: work\n"));
    assert_eq!(remove(&beside, "bivouac-demo").unwrap(), OWN);
    let merged = merge(Some(OWN), &ours("https://x"), true).unwrap();
    let moved_on = merged.replace("current-context: bivouac-demo", "current-context: a");
    assert!(remove(&moved_on, "bivouac-demo").unwrap().contains("\ncurrent-context: a\n"));
    let forgotten = merged.replace("{name: work,", "{name: play,");
    assert!(remove(&forgotten, "bivouac-demo").unwrap().contains("\ncurrent-context: \"\"\n"));
}

#[test]
fn two_of_ours_go_in_any_order() {
    let named = |name| {
        let client = Issued { certificate: "CERT".into(), key: Secret::new("KEY") };
        Kubeconfig::named(name, "https://x", "AUTHORITY", &client)
    };
    let one = merge(Some(OWN), &named("bivouac-one"), true).unwrap();
    let both = merge(Some(&one), &named("bivouac-two"), true).unwrap();
    let again = merge(Some(&both), &named("bivouac-one"), true).unwrap();
    let back = merge(Some(&again), &named("bivouac-two"), true).unwrap();
    assert_eq!(parse(&back).unwrap()["contexts"].as_array().unwrap().len(), 3);
    for text in [both, again, back] {
        for [first, second] in [["bivouac-one", "bivouac-two"], ["bivouac-two", "bivouac-one"]] {
            assert_eq!(remove(&remove(&text, first).unwrap(), second).unwrap(), OWN);
        }
    }
}

#[test]
fn merging_again_changes_nothing_and_replaces_what_changed() {
    let once = merge(Some(OWN), &ours("https://x"), true).unwrap();
    assert_eq!(merge(Some(&once), &ours("https://x"), true).unwrap(), once);
    let moved = merge(Some(&once), &ours("https://y"), true).unwrap();
    assert_eq!(moved.matches("name: bivouac-demo\n").count(), 3);
    assert!(moved.contains("https://y") && !moved.contains("https://x\n"));
    assert_eq!(remove(&moved, "bivouac-demo").unwrap(), OWN);
}

#[test]
fn new_empty_and_foreign_files() {
    let fresh = merge(None, &ours("https://x"), true).unwrap();
    assert_eq!(fresh, ours("https://x").render().expose());
    let emptied = remove(&fresh, "bivouac-demo").unwrap();
    assert!(is_empty(&emptied).unwrap() && !is_empty(&fresh).unwrap());
    let commented = merge(Some("# mine"), &ours("https://x"), false).unwrap();
    assert!(commented.starts_with("# mine\napiVersion: v1\n"));
    assert!(commented.ends_with("current-context: ''\n"));
    let nulls = "apiVersion: v1\nclusters: null\ncontexts: []\nusers:\ncurrent-context: \"\"\nkind: Config\n";
    let merged = merge(Some(nulls), &ours("https://x"), true).unwrap();
    assert!(merged.contains("users:\n- name: bivouac-demo"));
    assert_eq!(remove(nulls, "bivouac-demo").unwrap(), nulls);
}

#[test]
fn a_server_reached_elsewhere_is_verified_by_name() {
    let elsewhere = ours("https://192.0.2.7:36443").verified_as("control-plane-0");
    let merged = merge(Some(OWN), &elsewhere, true).unwrap();
    let ours_at = |text: &str| parse(text).unwrap()["clusters"].as_array().unwrap().last().cloned();
    let cluster = ours_at(&merged).unwrap();
    assert_eq!(cluster["cluster"]["tls-server-name"], "control-plane-0");
    let moved = merge(Some(&merged), &ours("https://10.0.0.2:6443"), true).unwrap();
    assert!(!moved.contains("tls-server-name"), "{moved}");
    assert_eq!(remove(&merged, "bivouac-demo").unwrap(), OWN);
}

#[test]
fn json_stays_json() {
    let text =
        r#"{"kind": "Config", "users": [{"name": "no", "user": {"token": "1_000"}}], "x": 1}"#;
    let merged = merge(Some(text), &ours("https://x"), true).unwrap();
    let tree: Value = serde_json::from_str(&merged).unwrap();
    assert_eq!(tree["users"][0]["user"]["token"], "1_000");
    assert_eq!(tree["current-context"], "bivouac-demo");
    let removed: Value = serde_json::from_str(&remove(&merged, "bivouac-demo").unwrap()).unwrap();
    assert_eq!(removed["users"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_no_kubeconfig_is_refused() {
    for text in ["- a\n", "a: [", "clusters: 3\n", "a: 1\n---\nb: 2\n", "a: 1\na: 2\n"] {
        let error = merge(Some(text), &ours("https://x"), true).unwrap_err();
        assert!(error.code().starts_with("pki.kubeconfig."), "{text}");
    }
}

/// Kubeconfigs as people and programs write them.
fn files() -> impl Strategy<Value = String> {
    let name =
        prop_oneof!["[a-z][a-z0-9@._-]{0,12}", Just("on".to_owned()), Just("1_0".to_owned())];
    let names = prop::collection::vec(name, 0..4);
    let noise = prop_oneof![Just(""), Just("# note\n"), Just("\n"), Just("  # deep\n")];
    (names, noise, 0..2usize, any::<bool>()).prop_map(|(names, noise, depth, first)| {
        let pad = "  ".repeat(depth);
        let mut text = String::from("apiVersion: v1\n");
        for (section, inner) in
            [("clusters", "cluster"), ("users", "user"), ("contexts", "context")]
        {
            if names.is_empty() {
                text += &format!("{section}: []\n{noise}");
                continue;
            }
            text += &format!("{section}:\n");
            for name in &names {
                let quoted = Value::from(name.as_str());
                text += noise;
                text += &if first {
                    format!(
                        "{pad}- name: {quoted}\n{pad}  {inner}:\n{pad}    data: |\n{pad}      - a\n"
                    )
                } else {
                    format!(
                        "{pad}- {inner}:\n{pad}    own: {quoted} # why\n{pad}  name: {quoted}\n"
                    )
                };
            }
        }
        if let Some(name) = names.first() {
            text += &format!("current-context: {name}\n");
        }
        text + "kind: Config\n" + noise
    })
}

proptest! {
    #[test]
    fn removing_after_merging_gives_the_file_back(text in files(), set_current: bool) {
        let merged = merge(Some(&text), &ours("https://x"), set_current).unwrap();
        for line in text.lines().filter(|line| !line.starts_with("current-context") && !line.ends_with("[]")) {
            prop_assert!(merged.lines().any(|kept| kept == line), "lost `{line}`");
        }
        let again = merge(Some(&merged), &ours("https://x"), set_current).unwrap();
        prop_assert_eq!(&again, &merged);
        let removed = remove(&merged, "bivouac-demo").unwrap();
        let (mut before, mut after) = (parse(&text).unwrap(), parse(&removed).unwrap());
        for tree in [&mut before, &mut after] {
            tree.entry("current-context").or_insert(json!(""));
        }
        prop_assert_eq!(before, after);
        prop_assert_eq!(remove(&removed, "bivouac-demo").unwrap(), removed);
    }
}
