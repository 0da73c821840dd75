//! From which version of Kubernetes a cluster may go to which.
//!
//! API servers stand between etcd and everything else, and answer others of the minor version before their own. So a cluster goes up one
//! minor version at a time, its control planes before its workers, and never down: what a newer version wrote, an older one may not read.
//! (<https://kubernetes.io/releases/version-skew-policy/>)

use std::fmt;
use std::str::FromStr;

use bivouac_spec::facts::Applied;
use bivouac_spec::{Cluster, Problem};

/// A version: `v1.36.3`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.strip_prefix('v').ok_or(())?.split('.').map(str::parse);
        let mut next = || parts.next().and_then(Result::ok).ok_or(());
        let version = Self { major: next()?, minor: next()?, patch: next()? };
        if parts.next().is_some() { Err(()) } else { Ok(version) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { major, minor, patch } = self;
        write!(f, "v{major}.{minor}.{patch}")
    }
}

/// The version that a cluster asks for, where its stack has several.
fn version(cluster: &Cluster) -> Option<Version> {
    cluster.spec.stack.version()?.parse().ok()
}

/// Why a cluster cannot get the version that it asks for.
pub(crate) fn refusal(applied: &Applied, wanted: &Cluster) -> Option<Problem> {
    let reached = version(applied.completed.as_deref().unwrap_or(&applied.cluster))?;
    let asked = version(&applied.cluster)?;
    check(wanted.name().as_str(), reached, asked, version(wanted)?)
}

/// `reached` is what all of the cluster ran last; what is not there yet is on its way to `asked`.
fn check(name: &str, reached: Version, asked: Version, wanted: Version) -> Option<Problem> {
    // An upgrade that was not finished is taken back.
    if wanted == reached {
        return None;
    }
    let highest = reached.max(asked);
    if wanted < highest {
        let message = format!(
            "Kubernetes of cluster `{name}` would go back from {highest} to {wanted}, which may not read what {highest} wrote"
        );
        let back = if asked == reached {
            String::new()
        } else {
            format!(" Or take the upgrade back with `bivouac upgrade {name} --to {reached}`.")
        };
        let help = format!(
            "Write `version: {highest}`.{back} Or run `bivouac down {name}`, which removes all of its data, and then `bivouac up`."
        );
        return Some(Problem::usage("plan.downgrade", message).help(help));
    }
    let next = reached.minor.saturating_add(1);
    if wanted.major != reached.major || wanted.minor > next {
        let Version { major, .. } = reached;
        let message = format!(
            "Kubernetes of cluster `{name}` would go from {reached} to {wanted} and skip v{major}.{next}"
        );
        let help = format!(
            "Go up one minor version at a time: run `bivouac upgrade {name} --to v{major}.{next}.PATCH` with a bivouac that has it."
        );
        return Some(Problem::usage("plan.skips_minor", message).help(help));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reached: &str, asked: &str, wanted: &str) -> Option<String> {
        let [reached, asked, wanted] = [reached, asked, wanted].map(|text| text.parse().unwrap());
        check("demo", reached, asked, wanted).map(|problem| problem.code)
    }

    #[test]
    fn versions_are_read_and_written() {
        for text in ["v1.36.3", "v2.0.10"] {
            assert_eq!(text.parse::<Version>().unwrap().to_string(), text);
        }
        for text in ["", "1.36.3", "v1.36", "v1.36.3.1", "v1.36.x", "v1.36.3-rc.1"] {
            text.parse::<Version>().unwrap_err();
        }
        let ordered =
            ["v1.9.9", "v1.36.3", "v1.36.10", "v2.0.0"].map(|text| text.parse::<Version>());
        assert!(ordered.is_sorted());
    }

    #[test]
    fn a_cluster_goes_up_by_one_minor_and_never_down() {
        for (from, to, expected) in [
            ("v1.36.1", "v1.36.1", None),
            ("v1.36.1", "v1.36.3", None),
            ("v1.36.9", "v1.37.0", None),
            ("v1.36.1", "v1.38.0", Some("plan.skips_minor")),
            ("v1.36.1", "v2.36.1", Some("plan.skips_minor")),
            ("v1.36.3", "v1.36.1", Some("plan.downgrade")),
            ("v1.37.0", "v1.36.9", Some("plan.downgrade")),
        ] {
            assert_eq!(told(from, from, to).as_deref(), expected, "{from} to {to}");
        }
    }

    #[test]
    fn an_upgrade_that_is_not_finished_goes_on_or_back() {
        for (wanted, expected) in [
            ("v1.36.1", None),
            ("v1.36.3", None),
            ("v1.37.1", None),
            ("v1.36.2", Some("plan.downgrade")),
            ("v1.38.0", Some("plan.skips_minor")),
        ] {
            assert_eq!(told("v1.36.1", "v1.36.3", wanted).as_deref(), expected, "{wanted}");
        }
    }
}
