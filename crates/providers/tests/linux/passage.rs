//! Chains of others that drop what is forwarded.

use std::process::Command;

use bivouac_provider::{Provider, Stdio};
use bivouac_providers::linux::{LinuxRequest, open};
use bivouac_spec::facts::Outcome;
use bivouac_sys::nft;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::cases::{Cleanup, exec, output};
use crate::ground::{Ground, traces};

/// A table that drops what these clusters forward, and nothing of anybody else, whether or not with a chain as Docker has it.
struct Firewall {
    table: String,
    docker: bool,
}

impl Firewall {
    fn make(name: &str, docker: bool, clusters: &[&Ground]) -> Self {
        let table = format!("firewall-{name}-{}", std::process::id());
        let bridges: Vec<String> =
            clusters.iter().map(|one| format!("\"{}\"", bridge(one))).collect();
        let bridges = bridges.join(", ");
        let jump = if docker { "jump DOCKER-USER" } else { "" };
        nft::load(&format!(
            "table inet {table} {{\n chain DOCKER-USER {{\n  return\n }}\n chain forward {{\n\
             type filter hook forward priority 0; policy drop;\n {jump}\n\
             iifname != {{ {bridges} }} oifname != {{ {bridges} }} accept\n }}\n}}\n"
        ))
        .unwrap();
        Self { table, docker }
    }

    fn rules(&self, chain: &str, ground: &Ground) -> Vec<String> {
        let command = format!("nft list chain inet {} {chain}", self.table);
        let listed = Command::new("sh").args(["-c", &command]).output().unwrap();
        let label = format!("accept comment \"bivouac:{}\"", ground.cluster);
        let text = String::from_utf8(listed.stdout).unwrap();
        let own = text.lines().filter(|line| line.ends_with(&label));
        own.map(|line| line.trim().split(' ').next().unwrap().to_owned()).collect()
    }

    fn assert_open(&self, ground: &Ground) {
        let (taken, other) =
            if self.docker { ("DOCKER-USER", "forward") } else { ("forward", "DOCKER-USER") };
        let mut rules = self.rules(taken, ground);
        rules.sort();
        assert_eq!(rules, ["iifname", "oifname"], "{}", self.table);
        assert_eq!(self.rules(other, ground), [""; 0]);
    }
}

impl Drop for Firewall {
    fn drop(&mut self) {
        let _ = nft::destroy_table("inet", &self.table);
    }
}

/// Its name is a part of what others may rely on.
fn bridge(ground: &Ground) -> String {
    use sha2::{Digest as _, Sha256};
    format!("bv-{}", hex::encode(&Sha256::digest(ground.cluster.as_str())[..4]))
}

pub(crate) async fn opened() {
    let (ground, mut other) = (Ground::new(15), Ground::new(16));
    other.share_state(&ground);
    let firewalls = [true, false].map(|docker| {
        Firewall::make(if docker { "docker" } else { "plain" }, docker, &[&ground, &other])
    });
    let _cleanup = (Cleanup(&ground), Cleanup(&other));
    let (own, others) = (ground.network(), other.network());
    let ensure = || ground.provider.ensure_network(&own);
    let (one, two, three) =
        futures::join!(ensure(), ensure(), other.provider.ensure_network(&others),);
    one.and(two).and(three).unwrap();
    ensure().await.unwrap();
    for firewall in &firewalls {
        firewall.assert_open(&ground);
        firewall.assert_open(&other);
    }

    // What goes from one cluster to the other is always forwarded, however the machine treats bridges.
    let server = ground.provider.ensure_node(&ground.request(0)).await.unwrap();
    let client = other.provider.ensure_node(&other.request(0)).await.unwrap();
    let address = format!("{}:8080", server.address());
    let mut serving = exec(&*server, Stdio::NoInput, &["serve", &address]).await;
    let mut lines = BufReader::new(serving.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().as_deref(), Some("listening"));
    assert_eq!(output(&*client, &["greet", &address]).await, "hello");

    // As after a restart of the host.
    for firewall in &firewalls {
        let chain = if firewall.docker { "DOCKER-USER" } else { "forward" };
        nft::load(&format!("flush chain inet {} {chain}\n", firewall.table)).unwrap();
    }
    ensure().await.unwrap();
    firewalls.iter().for_each(|one| one.assert_open(&ground));

    let survey = ground.provider.survey().await.unwrap();
    let need = survey.needs.iter().find(|need| need.name == "forward packets of nodes").unwrap();
    let seen = format!("{:?}", need.outcome);
    assert!(!matches!(need.outcome, Outcome::Unmet(_)), "{seen}");
    assert!(!seen.contains("nobody drops them"), "{seen}");
}

pub(crate) async fn left_behind() {
    let ground = Ground::new(17);
    let firewall = Firewall::make("left", true, &[&ground]);
    let _cleanup = Cleanup(&ground);
    ground.provider.ensure_network(&ground.network()).await.unwrap();
    // All else is gone, also the reason for the rules.
    let (table, bridge) = (format!("bivouac-{}", ground.cluster), bridge(&ground));
    nft::destroy_table("inet", &table).unwrap();
    bivouac_sys::netlink::Route::open().unwrap().destroy_link(&bridge).unwrap();
    std::fs::remove_dir_all(&ground.state).unwrap();
    nft::load(&format!("chain inet {} forward {{ policy accept; }}\n", firewall.table)).unwrap();
    // One more, as `iptables-restore` brings it back.
    nft::load(&format!(
        "insert rule inet {} forward iifname \"{bridge}\" counter accept\n",
        firewall.table
    ))
    .unwrap();

    let elsewhere = Ground::new(18);
    let provider = open(LinuxRequest { state: elsewhere.state.clone() });
    let found = provider.observe().await.unwrap();
    let found = found.into_iter().find(|cluster| cluster.name == ground.cluster).unwrap();
    // The machine may have chains of its own that drop.
    let told = format!("nftables rules in inet {} DOCKER-USER", firewall.table);
    assert!(found.remains.contains(&told), "{found:#?}");
    provider.destroy_cluster(&ground.cluster).await.unwrap();
    let left = traces(&ground);
    assert!(left.is_empty(), "{left:#?}");
    let listed = Command::new("nft").args(["list", "table", "inet", &firewall.table]).output();
    let listed = String::from_utf8(listed.unwrap().stdout).unwrap();
    assert!(!listed.contains("counter"), "{listed}");
}
