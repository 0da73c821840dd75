//! The chains that packets pass on their way through the host, and their rules, as `nft` lists them in JSON.

use std::io::ErrorKind;
use std::process::{Command, Stdio};

use bivouac_spec::Problem;
use serde::Deserialize;
use serde_json::Value;

use super::super::problem::{OrProblem as _, failed};

/// Where Docker leaves room for the rules of others: it keeps what is in there when it starts again.
const DOCKER_USER: &str = "DOCKER-USER";

/// How often chains are listed that come and go meanwhile.
const ATTEMPTS: u32 = 10;

/// A chain of somebody's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in super::super) struct Chain {
    pub(super) family: String,
    pub(super) table: String,
    pub(super) name: String,
    /// Only base chains have these two.
    hook: Option<String>,
    policy: Option<String>,
}

/// A rule of a chain.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Rule {
    pub(super) handle: u64,
    pub(super) comment: Option<String>,
    #[serde(rename = "expr", default)]
    parts: Vec<Value>,
}

/// A chain with its rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) chain: Chain,
    pub(super) rules: Vec<Rule>,
}

impl Chain {
    /// Whether it drops what none of its rules accepts.
    pub(super) fn drops(&self) -> bool {
        self.forwards() && self.policy.as_deref() == Some("drop")
    }

    fn forwards(&self) -> bool {
        self.hook.as_deref() == Some("forward")
    }

    /// The interfaces of all clusters, as packets have them here: in the family `bridge` they are the ports of bridges.
    pub(in super::super) fn links(&self) -> &'static str {
        if self.family == "bridge" { "bv*" } else { "bv-*" }
    }

    pub(super) fn is_docker_user(&self) -> bool {
        self.name == DOCKER_USER
    }

    pub(super) fn is_in_table_of(&self, other: &Self) -> bool {
        self.family == other.family && self.table == other.table
    }
}

/// `ip filter FORWARD`, as `nft` wants it.
impl std::fmt::Display for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.name)
    }
}

impl Rule {
    /// The key of the interface (`iifname`, `oifname`) by whose name alone it accepts packets. `None` if it does anything else.
    pub(super) fn accepts(&self, interface: &str) -> Option<&str> {
        // `iptables-restore` makes of a comment an expression, of which `nft` shows no more than that.
        let is_plain = |part: &&Value| {
            part.get("counter").is_none() && part["xt"]["name"].as_str() != Some("comment")
        };
        let parts: Vec<&Value> = self.parts.iter().filter(is_plain).collect();
        let [condition, verdict] = parts[..] else { return None };
        let condition = &condition["match"];
        let is_own = condition["op"] == "==" && condition["right"] == interface;
        (is_own && verdict.get("accept").is_some())
            .then(|| condition["left"]["meta"]["key"].as_str())?
    }

    pub(super) fn leads_to_docker_user(&self) -> bool {
        self.parts.iter().any(|part| part["jump"]["target"] == DOCKER_USER)
    }
}

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    chain: Option<Chain>,
    rule: Option<Rule>,
}

/// Every chain at the forward hook, and those that Docker leaves to others.
pub(super) fn read() -> Result<Vec<Place>, Problem> {
    let mut attempts = 1;
    loop {
        let chains = chains()?;
        let places = chains.iter().map(|chain| {
            let rules = list(&["chain", &chain.family, &chain.table, &chain.name])?;
            let rules = rules.into_iter().filter_map(|entry| entry.rule).collect();
            Ok(Place { chain: chain.clone(), rules })
        });
        match places.collect::<Result<_, Problem>>() {
            // One of them went away meanwhile.
            Err(_) if attempts < ATTEMPTS && self::chains()? != chains => attempts += 1,
            other => return other,
        }
    }
}

fn chains() -> Result<Vec<Chain>, Problem> {
    let all = list(&["chains"])?.into_iter().filter_map(|entry| entry.chain);
    Ok(all.filter(|chain| chain.forwards() || chain.is_docker_user()).collect())
}

fn list(what: &[&str]) -> Result<Vec<Entry>, Problem> {
    let message =
        format!("what the host forwards cannot be listed (`nft list {}`)", what.join(" "));
    let output = Command::new("nft")
        .args(["-j", "-a", "list"])
        .args(what)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output();
    let output = match output {
        // Without the command nobody made a rule that it could list.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.or_problem("passage", &message)?,
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let mut problem = failed("passage", message)
            .help("install an `nft` that writes JSON with `apt-get install nftables`");
        problem.causes.push(format!("{}: {}", output.status, stderr.trim()));
        return Err(problem);
    }
    parse(&output.stdout).or_problem("passage", message)
}

fn parse(text: &[u8]) -> serde_json::Result<Vec<Entry>> {
    serde_json::from_slice::<Listing>(text).map(|listing| listing.nftables)
}

/// Places as if `nft` had listed them.
#[cfg(test)]
pub(super) fn sample(texts: &[&str]) -> Vec<Place> {
    let place = |text: &&str| {
        let entries = parse(text.as_bytes()).unwrap();
        let chain = entries.iter().find_map(|entry| entry.chain.clone()).unwrap();
        Place { chain, rules: entries.into_iter().filter_map(|entry| entry.rule).collect() }
    };
    texts.iter().map(place).collect()
}
