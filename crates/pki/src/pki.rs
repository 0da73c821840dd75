//! All keys and certificates of a cluster as one value that its state keeps.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::authority::Authorities;
use crate::error::Result;
use crate::leaf::{Issued, LeafRequest, expires};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Clocks differ: certificates are valid from a little before they are made, as with kubeadm.
const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// For how long certificates are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The time it is now.
    pub now: SystemTime,
    /// Of an authority.
    pub authority: Duration,
    /// Of what an authority issues.
    pub leaf: Duration,
    /// A certificate with less left than this is issued anew.
    pub renew_before: Duration,
}

impl Validity {
    /// Ten years for authorities, one year for the rest, as kubeadm does; renewed in the last 30 days.
    pub fn starting(now: SystemTime) -> Self {
        Self { now, authority: 3650 * DAY, leaf: 365 * DAY, renew_before: 30 * DAY }
    }

    pub(crate) fn not_before(&self) -> OffsetDateTime {
        (self.now - BACKDATE).into()
    }

    pub(crate) fn authority_end(&self) -> OffsetDateTime {
        (self.now + self.authority).into()
    }

    pub(crate) fn leaf_end(&self) -> OffsetDateTime {
        (self.now + self.leaf).into()
    }
}

/// A certificate that was issued, and for what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Leaf {
    /// What it was issued for.
    pub request: LeafRequest,
    /// Certificate and key.
    pub issued: Issued,
}

/// Authorities and everything that they have issued, by a name that the caller chooses, such as `node/apiserver`.
///
/// Asking twice gives the same certificate, so what is rendered from it does not change from one run to the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pki {
    /// What signs.
    pub authorities: Authorities,
    /// What was issued, by name.
    #[serde(default)]
    pub leaves: BTreeMap<String, Leaf>,
}

impl Pki {
    /// New authorities that have issued nothing.
    pub fn generate(validity: &Validity) -> Result<Self> {
        Ok(Self { authorities: Authorities::generate(validity)?, leaves: BTreeMap::new() })
    }

    /// The certificate of this name. Issued if there is none, if it was for another request, or if it expires soon.
    pub fn ensure(
        &mut self,
        name: impl Into<String>,
        request: &LeafRequest,
        validity: &Validity,
    ) -> Result<Issued> {
        let name = name.into();
        if let Some(leaf) = self.leaves.get(&name)
            && leaf.request == *request
            && expires(&leaf.issued.certificate)? > validity.now + validity.renew_before
        {
            return Ok(leaf.issued.clone());
        }
        let issued = self.authorities.issue(request, validity)?;
        self.leaves.insert(name, Leaf { request: request.clone(), issued: issued.clone() });
        Ok(issued)
    }

    /// Forgets what was issued under names that begin so, such as those of a node that is gone.
    pub fn forget(&mut self, prefix: &str) {
        self.leaves.retain(|name, _| !name.starts_with(prefix));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{admin, scheduler};

    #[test]
    fn asking_twice_issues_once_until_it_expires_or_changes() {
        let validity = Validity::starting(SystemTime::now());
        let mut pki = Pki::generate(&validity).unwrap();
        let first = pki.ensure("a/admin", &admin(), &validity).unwrap();
        assert_eq!(pki.ensure("a/admin", &admin(), &validity).unwrap(), first);
        let later = Validity { now: validity.now + 340 * DAY, ..validity };
        let renewed = pki.ensure("a/admin", &admin(), &later).unwrap();
        assert_ne!(renewed, first);
        assert_ne!(pki.ensure("a/admin", &scheduler(), &later).unwrap(), renewed);
        pki.ensure("b/admin", &admin(), &later).unwrap();
        pki.forget("a/");
        assert_eq!(pki.leaves.keys().collect::<Vec<_>>(), ["b/admin"]);
    }

    #[test]
    fn survives_its_file() {
        let validity = Validity::starting(SystemTime::now());
        let mut pki = Pki::generate(&validity).unwrap();
        let issued = pki.ensure("admin", &admin(), &validity).unwrap();
        let text = serde_json::to_string(&pki).unwrap();
        let mut read: Pki = serde_json::from_str(&text).unwrap();
        assert_eq!(read, pki);
        assert_eq!(read.ensure("admin", &admin(), &validity).unwrap(), issued);
        assert!(!format!("{pki:?}").contains("PRIVATE"));
    }
}
