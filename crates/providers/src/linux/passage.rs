//! Letting packets of clusters pass where chains of others, such as those of Docker, ufw and libvirt, drop what is forwarded.
//!
//! An `accept` ends only the chain that it is in, so that one in a table of ours would not help: two rules for the bridge of each
//! cluster go into every chain that drops. They are found again by the name of the bridge, which nobody else has. Their comment
//! is for people: it gets lost when `iptables-restore` brings them back.
//!
//! Not here: chains that `iptables-legacy` made, which `nft` does not see, and rules that reject. The survey tells of the former.

mod listing;

use bivouac_spec::{ClusterName, Problem};
use bivouac_sys::nft;

use super::folder::StateFolder;
use super::names::{self, Owner};
use super::parameters;
use super::problem::OrProblem as _;
pub(super) use listing::Chain;
use listing::Place;

/// What a packet of the cluster has: it comes from the bridge, or goes there.
const KEYS: [&str; 2] = ["iifname", "oifname"];

/// Families in which a bridge counts as the interface of what passes between its ports, too.
const FAMILIES: [&str; 3] = ["ip", "ip6", "inet"];

/// Rules that a chain lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Gap {
    chain: Chain,
    keys: Vec<&'static str>,
}

/// A chain that drops what is forwarded.
#[derive(Debug)]
pub(super) struct Dropping {
    pub(super) chain: Chain,
    /// Whether packets of clusters get through: rules can be put into it, or were by hand.
    pub(super) opens: bool,
    /// Whether nobody but the process that made it can change it.
    pub(super) owned: bool,
}

/// Puts the rules of a cluster where they are missing.
pub(super) fn ensure(state: &StateFolder, cluster: &ClusterName) -> Result<(), Problem> {
    // Where nothing can be listed, packets may pass all the same: the survey tells that nobody knows.
    if listing::read().map_or(true, |places| gaps(&places, cluster).is_empty()) {
        return Ok(());
    }
    // Another command may have found them missing, too.
    let _lock = parameters::lock(state, "let packets pass")?;
    for gap in gaps(&listing::read()?, cluster) {
        let Err(error) = nft::load(&gap.render(cluster)) else { continue };
        // The chain went away, or nobody but its owner may change it: then the survey says so.
        if gaps(&listing::read()?, cluster).contains(&gap) && !is_owned(&gap.chain)? {
            let chain = &gap.chain;
            let message = format!(
                "packets of cluster {cluster} cannot be let through the host's chain `{chain}`"
            );
            return Err(error).or_problem("passage", message);
        }
    }
    Ok(())
}

/// Takes the rules of a cluster away, wherever they are. Where nothing can be listed, nothing is known of any.
pub(super) fn remove(cluster: &ClusterName) -> Result<(), Problem> {
    for (chain, handle) in own(&listing::read().unwrap_or_default(), cluster) {
        let Err(error) = nft::load(&format!("delete rule {chain} handle {handle}\n")) else {
            continue;
        };
        if own(&listing::read()?, cluster).contains(&(chain.clone(), handle)) {
            let message = format!(
                "the rule of cluster {cluster} in the host's chain `{chain}` cannot be removed"
            );
            return Err(error).or_problem("passage", message);
        }
    }
    Ok(())
}

/// The clusters that have rules, and the chains that these are in.
pub(super) fn clusters() -> Result<Vec<(ClusterName, Chain)>, Problem> {
    let mut found = Vec::new();
    for place in listing::read()? {
        for comment in place.rules.iter().filter_map(|rule| rule.comment.as_deref()) {
            if let Some(Owner::Cluster(cluster)) = Owner::parse(comment) {
                let one = (cluster, place.chain.clone());
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
    }
    Ok(found)
}

/// The chains that drop what is forwarded.
pub(super) fn dropping() -> Result<Vec<Dropping>, Problem> {
    let places = listing::read()?;
    let dropping = places.iter().filter(|place| place.chain.drops());
    let look = |base: &Place| {
        let links = base.chain.links();
        let by_hand = base.rules.iter().filter(|rule| rule.accepts(links).is_some()).count() >= 2;
        let owned = is_owned(&base.chain)?;
        let opens = by_hand || (FAMILIES.contains(&&*base.chain.family) && !owned);
        Ok(Dropping { chain: base.chain.clone(), opens, owned })
    };
    dropping.map(look).collect()
}

impl Gap {
    fn render(&self, cluster: &ClusterName) -> String {
        let (chain, bridge) = (&self.chain, names::bridge(cluster));
        let comment = Owner::Cluster(cluster.clone()).alias();
        // With a counter, as the rules of `iptables` have it, which lists these beside its own.
        let rule = |key: &&str| {
            format!("insert rule {chain} {key} \"{bridge}\" counter accept comment \"{comment}\"\n")
        };
        self.keys.iter().map(rule).collect()
    }
}

fn gaps(places: &[Place], cluster: &ClusterName) -> Vec<Gap> {
    let bridge = names::bridge(cluster);
    let gap = |base: &Place| {
        let entrance = entrance(places, base);
        // In the chain itself, too, if Docker came later.
        let rules = || base.rules.iter().chain(&entrance.rules);
        let is_missing = |key: &&str| !rules().any(|rule| rule.accepts(&bridge) == Some(*key));
        Gap { chain: entrance.chain.clone(), keys: KEYS.into_iter().filter(is_missing).collect() }
    };
    let dropping = places
        .iter()
        .filter(|place| place.chain.drops() && FAMILIES.contains(&&*place.chain.family));
    dropping.map(gap).filter(|gap| !gap.keys.is_empty()).collect()
}

/// The chain that rules go into for them to count in a base chain.
fn entrance<'a>(places: &'a [Place], base: &'a Place) -> &'a Place {
    let leads = base.rules.iter().any(listing::Rule::leads_to_docker_user);
    let is_entrance =
        |place: &&Place| place.chain.is_docker_user() && place.chain.is_in_table_of(&base.chain);
    places.iter().filter(|_| leads).find(is_entrance).unwrap_or(base)
}

/// Chain and handle of each rule of a cluster.
fn own(places: &[Place], cluster: &ClusterName) -> Vec<(Chain, u64)> {
    let (bridge, label) = (names::bridge(cluster), Owner::Cluster(cluster.clone()).alias());
    let of_place = |place: &Place| {
        let own = place.rules.iter().filter(|rule| {
            let unsaid = rule.comment.is_none() && rule.accepts(&bridge).is_some();
            unsaid || rule.comment.as_deref() == Some(&label)
        });
        own.map(|rule| (place.chain.clone(), rule.handle)).collect::<Vec<_>>()
    };
    places.iter().flat_map(of_place).collect()
}

/// Whether the kernel lets nobody change the table but the process that made it.
fn is_owned(chain: &Chain) -> Result<bool, Problem> {
    let text = nft::read_table(&chain.family, &chain.table).or_problem(
        "passage",
        format_args!("the table of the host's chain `{chain}` cannot be read"),
    )?;
    let flags = text.unwrap_or_default().lines().take(3).any(|line| {
        line.trim().strip_prefix("flags ").is_some_and(|flags| flags.contains("owner"))
    });
    Ok(flags)
}

#[cfg(test)]
mod tests;
