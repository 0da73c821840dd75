//! What is secret of an Incus cluster. Each certificate is signed by itself alone: members and users are trusted by the certificate that
//! they show, and all members show one and the same to users. They live as long as a cluster may: who renews one must tell everybody
//! who trusts it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use bivouac_pki::{Issued, LeafRequest, Signer, Usage, Validity, entry_name, self_signed};
use bivouac_spec::{NodeName, Problem};
use serde::{Deserialize, Serialize};

use super::layout::{Layout, Member};
use crate::stack::Keys;

/// Everything secret.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Secrets {
    /// What every member shows.
    pub(super) cluster: Issued,
    /// Who the user is.
    pub(super) client: Issued,
    /// Who somebody is that joins.
    pub(super) joiner: Issued,
    /// Who each member is to the others.
    pub(super) members: BTreeMap<NodeName, Issued>,
}

impl Secrets {
    pub(super) fn of(keys: &Keys) -> Result<Self, Problem> {
        serde_json::from_value(keys.0.clone()).map_err(|error| {
            // Only the place: the text around it may be a key.
            let (line, column) = (error.line(), error.column());
            let message = format!("the keys cannot be read (line {line}, column {column})");
            Problem::failed("stack.incus.keys_unreadable", message)
        })
    }

    /// Of one member.
    pub(super) fn member(&self, member: &Member) -> Result<&Issued, Problem> {
        self.members.get(member.name()).ok_or_else(|| {
            let message = "the keys were not made for this cluster as it is now";
            Problem::failed("stack.incus.stale_keys", message)
        })
    }
}

/// Makes what is missing. Who is gone is not forgotten: it may be a member as long as its node is there, and the others trust this certificate.
pub(super) fn ensure(
    existing: Option<Keys>,
    layout: &Layout<'_>,
    now: SystemTime,
) -> Result<Keys, Problem> {
    let validity = Validity::starting(now);
    let make = |request: &LeafRequest| {
        self_signed(request, &validity)
            .map_err(|error| Problem::from_error("stack.incus.keys", &error))
    };
    let name = entry_name(layout.cluster.as_str());
    let (cluster, client, joiner, mut known) = match existing {
        Some(keys) => {
            let Secrets { cluster, client, joiner, members } = Secrets::of(&keys)?;
            (cluster, client, joiner, members)
        }
        None => {
            let cluster = make(&request(&name, Usage::ServerAndClient))?;
            let client = || make(&request(&name, Usage::Client));
            (cluster, client()?, client()?, BTreeMap::new())
        }
    };
    for member in &layout.members {
        let name = member.name();
        if !known.contains_key(name) {
            let issued = make(&LeafRequest {
                addresses: vec![member.address],
                ..request(name.as_str(), Usage::ServerAndClient)
            })?;
            known.insert(name.clone(), issued);
        }
    }
    let secrets = Secrets { cluster, client, joiner, members: known };
    Ok(Keys(serde_json::to_value(secrets).expect("keys have string keys only")))
}

fn request(name: &str, usage: Usage) -> LeafRequest {
    let dns_names = if usage == Usage::Client { Vec::new() } else { vec![name.to_owned()] };
    LeafRequest {
        common_name: name.to_owned(),
        organization: None,
        dns_names,
        addresses: Vec::new(),
        usage,
        // Nobody does.
        signer: Signer::Cluster,
    }
}
