//! What makes sure that who answers for a registry is the one that its name means.

use std::fs;

use bivouac_spec::ClusterName;
use bivouac_spec::node::Upstream;
use serde::Serialize;

use super::question::Digest;

/// What two clusters must have in common, so that a name means the same registry to both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Trust {
    /// Nothing: it has a certificate of an authority that all nodes trust.
    Everybody,
    /// The certificates of the authority that it is trusted for, here by their SHA-256. Where the file lies says nothing of what is in it.
    Authorities(String),
    /// The cluster: nothing is verified, and who is reached by the name is up to its network and its DNS.
    Cluster(ClusterName),
}

impl Trust {
    /// Of an API at this URL; without one, of the registry itself.
    pub(super) fn of(upstream: &Upstream, url: Option<&str>, cluster: &ClusterName) -> Self {
        let is_plain = url.is_some_and(|url| !url.starts_with("https:"));
        if upstream.insecure || is_plain {
            return Self::Cluster(cluster.clone());
        }
        match upstream.authorities.as_ref().map(fs::read) {
            None => Self::Everybody,
            Some(Ok(certificates)) => {
                Self::Authorities(Digest::of(&certificates).digits().to_owned())
            }
            // It is asked of nobody then.
            Some(Err(_)) => Self::Cluster(cluster.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::folder::{Key, Origin};
    use super::super::question::Question;
    use super::*;

    /// Whether two clusters with these settings have the same right, and believe the same registry.
    fn is_shared(one: &Upstream, two: &Upstream) -> bool {
        let question = Question::parse("/v2/team/a/manifests/1?ns=a.test").unwrap();
        let of = |upstream: &Upstream, cluster: &str| {
            let cluster: ClusterName = cluster.parse().unwrap();
            let trust = Trust::of(upstream, upstream.url.as_deref(), &cluster);
            let key = Key::of(&question, std::slice::from_ref(upstream), &cluster);
            (key, Origin::of(upstream.url.as_deref().unwrap_or_default(), "a.test", &trust))
        };
        let ((key, origin), (other_key, other_origin)) = (of(one, "one"), of(two, "two"));
        assert_eq!(key == other_key, origin == other_origin);
        key == other_key
    }

    #[test]
    fn clusters_share_only_what_was_verified() {
        let temporary = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = temporary.path().join(name);
            fs::write(&path, text).unwrap();
            camino::Utf8PathBuf::from_path_buf(path).unwrap()
        };
        let own = Upstream { url: None, authorization: None, authorities: None, insecure: false };
        let at = |url: &str| Upstream { url: Some(url.to_owned()), ..own.clone() };
        assert!(is_shared(&own, &own));
        assert!(is_shared(&at("https://m.test/v2"), &at("https://m.test/v2")));
        assert!(!is_shared(&at("http://m.test/v2"), &at("http://m.test/v2")));
        let insecure = Upstream { insecure: true, ..own.clone() };
        assert!(!is_shared(&insecure, &insecure));

        let with = |path| Upstream { authorities: Some(path), ..own.clone() };
        let company = with(file("ca.pem", "of the company"));
        assert!(is_shared(&company, &company), "both verify the same");
        assert!(!is_shared(&company, &own));
        assert!(!is_shared(&with("/nowhere".into()), &with("/nowhere".into())));
    }

    #[test]
    fn another_authority_in_the_same_place_is_another() {
        let temporary = tempfile::tempdir().unwrap();
        let path = camino::Utf8PathBuf::from_path_buf(temporary.path().join("ca.pem")).unwrap();
        let authorities = Some(path.clone());
        let upstream = Upstream { url: None, authorization: None, authorities, insecure: false };
        let trust = |text: &str| {
            fs::write(&path, text).unwrap();
            Trust::of(&upstream, None, &"one".parse().unwrap())
        };
        assert_ne!(trust("of the company"), trust("of somebody"));
        assert_eq!(trust("of the company"), trust("of the company"));
    }
}
