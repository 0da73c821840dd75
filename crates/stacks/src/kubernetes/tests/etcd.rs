//! Who founds etcd's cluster, and who joins it.

use std::process::Output;

use super::several::{content, service};
use super::*;

const MEMBERS: &str = "/etc/bivouac/etcd-members.sh";
/// The list of a cluster that knows the one who joins, as a learner that never ran.
const LISTED: &str = "1, started, control-plane-0, https://10.89.0.2:2380, , false\n\
                      2, unstarted, , https://10.89.0.4:2380, , true\n";
/// The one who joins was taken out.
const OUT: &str = "1, started, control-plane-0, https://10.89.0.2:2380, , false\n";

#[test]
fn who_joins_asks_who_the_members_are() {
    let configs = Bench::several().joining(&["control-plane-2"]).configs();
    let members = |node: &str| content(&configs[&name(node)], MEMBERS);
    insta::assert_snapshot!("etcd_members_of_one_who_joins", members("control-plane-2"));
    for node in ["control-plane-0", "control-plane-2"] {
        let config = &configs[&name(node)];
        assert_eq!(service(config, "kube-apiserver").after, ["etcd-votes"]);
        // The list of members may change without etcd being started again.
        assert!(service(config, "etcd").watch.is_empty());
    }
}

#[test]
fn founders_know_each_other_as_long_as_nobody_has_joined() {
    let founders = "begin() {\n  export ETCD_INITIAL_CLUSTER='control-plane-0=https://10.89.0.2:2380,\
                    control-plane-1=https://10.89.0.3:2380,control-plane-2=https://10.89.0.4:2380' \
                    ETCD_INITIAL_CLUSTER_STATE=new\n}\n";
    let configs = Bench::several().joining(&["worker-0", "balancer"]).configs();
    for node in ["control-plane-0", "control-plane-1", "control-plane-2"] {
        assert_eq!(content(&configs[&name(node)], MEMBERS), founders);
        assert_eq!(service(&configs[&name(node)], "kube-apiserver").after, ["etcd"]);
    }
    // Whoever it was that joined: one that is made anew without its data must not found a cluster of its own.
    let configs = Bench::several().joining(&["control-plane-1"]).configs();
    for node in ["control-plane-0", "control-plane-1", "control-plane-2"] {
        let members = content(&configs[&name(node)], MEMBERS);
        assert!(!members.contains("STATE=new"), "{node}: {members}");
    }
}

/// The file of members of one who joins, in a folder in place of a node, beside an etcdctl that answers from a list and keeps what it was
/// asked.
struct Etcd {
    folder: tempfile::TempDir,
    members: String,
}

impl Etcd {
    /// Nobody answers without a list. These files are in etcd's folder.
    fn new(listed: Option<&str>, files: &[&str]) -> Self {
        let configs = Bench::several().joining(&["control-plane-2"]).configs();
        let members = content(&configs[&name("control-plane-2")], MEMBERS);
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let members = members
            .replace("etcdctl='/usr/local/bin/etcdctl'", "etcdctl=fake")
            .replace("data='/var/lib/etcd'", &format!("data='{}'", at("data")))
            .replace("run='/run/etcd'", &format!("run='{}'", at("run")));
        let etcd = Self { folder, members };
        etcd.put("calls", "");
        std::fs::create_dir(etcd.folder.path().join("run")).unwrap();
        listed.into_iter().for_each(|listed| etcd.put("list", listed));
        files.iter().for_each(|file| etcd.put(&format!("data/{file}"), ""));
        etcd
    }

    fn put(&self, file: &str, text: &str) {
        let path = self.folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn has(&self, file: &str) -> bool {
        self.folder.path().join(file).exists()
    }

    /// What etcdctl was asked.
    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.folder.path().join("calls")).unwrap();
        calls.lines().map(str::to_owned).collect()
    }

    fn run(&self, script: &str) -> Output {
        let folder = self.folder.path().display();
        let script = format!(
            r#"folder='{folder}'
fake() {{
  echo "$*" >> "$folder/calls"
  case "$*" in
    *'member list') cat "$folder/list" ;;
    'member add '*) echo '3, unstarted, , https://10.89.0.4:2380, , true' >> "$folder/list" ;;
    'member remove '*) sed -i "/^$3, /d" "$folder/list" ;;
    *'endpoint status'*) cat "$folder/status" ;;
  esac
}}
{}
{script}"#,
            self.members
        );
        std::process::Command::new("sh").args(["-euc", &script]).output().unwrap()
    }

    /// What etcd would begin with.
    fn begins(&self) -> String {
        let output =
            self.run(r#"begin; echo "${ETCD_INITIAL_CLUSTER-} $ETCD_INITIAL_CLUSTER_STATE""#);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

const JOINS: &str = "1=https://10.89.0.2:2380,control-plane-2=https://10.89.0.4:2380 existing\n";
const LOG: &str = "member/wal/0.wal";

#[test]
fn who_joins_never_founds_a_cluster() {
    assert_eq!(Etcd::new(Some(LISTED), &[]).begins(), JOINS);
    assert_eq!(Etcd::new(Some(LISTED), &["member/snap/db", LOG]).begins(), " existing\n");
    // An attempt that failed left its folders.
    let failed = Etcd::new(Some(LISTED), &["member/snap/db", "member/wal.tmp/0.wal"]);
    assert_eq!(failed.begins(), JOINS);
    assert!(!failed.has("data/member"));
    assert!(failed.has("data"));
    let nobody = Etcd::new(None, &["member/snap/db"]).run("begin");
    assert!(!nobody.status.success(), "{nobody:?}");
}

#[test]
fn who_joins_enters_itself_as_a_learner() {
    let etcd = Etcd::new(Some(OUT), &[]);
    assert_eq!(etcd.begins(), JOINS);
    let add = "member add control-plane-2 --learner --peer-urls=https://10.89.0.4:2380";
    assert_eq!(etcd.calls(), ["member list", add, "member list"]);
    // What it had is lost: it is another member now.
    let lost = format!("{OUT}2, started, control-plane-2, https://10.89.0.4:2380, , false\n");
    let etcd = Etcd::new(Some(&lost), &[]);
    assert_eq!(etcd.begins(), JOINS);
    let calls = ["member list", "member remove 2", "member list", add, "member list"];
    assert_eq!(etcd.calls(), calls);
}

#[test]
fn who_was_taken_out_and_stays_joins_anew() {
    let etcd = Etcd::new(Some(OUT), &[LOG]);
    etcd.put("status", r#"[{"Status":{"isLearner":true}}]"#);
    // etcd says so itself, and ends.
    assert_eq!(etcd.begins(), " existing\n");
    assert_eq!(etcd.calls(), Vec::<String>::new());
    // Its node may be about to be removed.
    let waits = etcd.run("begin");
    let said = String::from_utf8(waits.stderr).unwrap();
    assert!(!waits.status.success() && said.contains("have taken control-plane-2 out"), "{said}");
    assert!(etcd.has("data/member/wal/0.wal"));
    etcd.put("run/out", "-60\n");
    let promoted = r#"begin
        tries=0
        until grep -q promote "$folder/calls"; do
          [ $tries -lt 1000 ]
          tries=$((tries + 1))
          sleep 0.01
        done
        echo "$ETCD_INITIAL_CLUSTER""#;
    let joined = etcd.run(promoted);
    assert!(joined.status.success(), "{joined:?}");
    assert!(!etcd.has("data/member"));
    let calls = etcd.calls();
    assert!(calls.iter().any(|call| call.starts_with("member add")), "{calls:?}");
    assert!(calls.contains(&"member promote 3".to_owned()), "{calls:?}");
}

#[test]
fn only_who_is_known_to_be_out_forgets_its_data() {
    let renamed = "1, started, control-plane-2, https://10.89.0.9:2380, , false\n";
    for listed in [Some(LISTED), Some(renamed), Some(""), None] {
        let etcd = Etcd::new(listed, &[LOG]);
        etcd.put("run/begun", "");
        etcd.put("run/out", "-60\n");
        assert_eq!(etcd.begins(), " existing\n", "{listed:?}");
        assert_eq!(etcd.calls(), ["--command-timeout=1s member list"]);
        assert!(etcd.has("data/member/wal/0.wal"));
        assert!(!etcd.has("run/out"));
    }
    // Who is alone has nobody to ask.
    let mut alone = Etcd::new(Some(OUT), &[LOG]);
    alone.put("run/begun", "");
    alone.put("run/out", "-60\n");
    alone.members.push_str("ETCDCTL_ENDPOINTS=\n");
    assert_eq!(alone.begins(), " existing\n");
    assert_eq!(alone.calls(), Vec::<String>::new());
}

#[test]
fn a_learner_becomes_one_who_decides_and_nobody_else() {
    let configs = Bench::several().joining(&["control-plane-2"]).configs();
    let task = configs[&name("control-plane-0")].tasks.iter().find(|it| it.name == "etcd-votes");
    let Run::Command(command) = &task.unwrap().run else { panic!("no command") };
    let [.., script, _, members] = &command[..] else { panic!("{command:?}") };
    assert_eq!((script.as_str(), members.as_str()), ("set -eu\n. \"$1\"\nvote", MEMBERS));
    let status = "--command-timeout=1s endpoint status --write-out=json";
    let etcd = Etcd::new(Some(LISTED), &[LOG]);
    etcd.put("status", r#"[{"Status":{"isLearner":true}}]"#);
    assert!(etcd.run("vote").status.success());
    assert_eq!(etcd.calls(), [status, "member list", "member promote 2"]);
    etcd.put("calls", "");
    etcd.put("status", r#"[{"Status":{"leader":1}}]"#);
    assert!(etcd.run("vote").status.success());
    assert_eq!(etcd.calls(), [status]);
    std::fs::remove_file(etcd.folder.path().join("status")).unwrap();
    assert!(!etcd.run("vote").status.success());
}
