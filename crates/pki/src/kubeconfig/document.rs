//! The document itself (`k8s.io/client-go/tools/clientcmd/api/v1`), as far as bivouac writes it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::leaf::Issued;
use crate::secret::Secret;

/// How a user reaches a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// Name of the cluster's entry.
    pub cluster: &'a str,
    /// Name of the user's entry.
    pub user: &'a str,
    /// Name of the context.
    pub context: &'a str,
    /// URL of the API server, such as `https://10.1.2.3:6443`.
    pub server: &'a str,
    /// Certificate of the cluster's authority, PEM.
    pub authority: &'a str,
    /// Certificate and key of the user.
    pub client: &'a Issued,
}

/// A kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    pub(super) clusters: Vec<NamedCluster>,
    pub(super) contexts: Vec<NamedContext>,
    pub(super) users: Vec<NamedUser>,
    pub(super) current_context: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedCluster {
    pub(super) cluster: Cluster,
    pub(super) name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cluster {
    certificate_authority_data: String,
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedContext {
    pub(super) context: Context,
    pub(super) name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    cluster: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) extensions: Vec<NamedExtension>,
    user: String,
}

/// Data of other programs in a context; Kubernetes keeps it and looks not at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedExtension {
    pub(super) extension: Previous,
    pub(super) name: String,
}

/// What the current context was before ours became it, and what it was before that, if that was ours too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Previous {
    pub(super) contexts: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NamedUser {
    pub(super) name: String,
    pub(super) user: User,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct User {
    client_certificate_data: String,
    client_key_data: Secret,
}

impl Kubeconfig {
    /// The document with one cluster, one user and one context, which is the current one.
    pub fn new(access: &Access<'_>) -> Self {
        let cluster = Cluster {
            certificate_authority_data: STANDARD.encode(access.authority),
            server: access.server.to_owned(),
            tls_server_name: None,
        };
        let context = Context {
            cluster: access.cluster.to_owned(),
            extensions: Vec::new(),
            user: access.user.to_owned(),
        };
        let user = User {
            client_certificate_data: STANDARD.encode(&access.client.certificate),
            client_key_data: Secret::new(STANDARD.encode(access.client.key.expose())),
        };
        Self {
            api_version: "v1".to_owned(),
            kind: "Config".to_owned(),
            clusters: vec![NamedCluster { cluster, name: access.cluster.to_owned() }],
            contexts: vec![NamedContext { context, name: access.context.to_owned() }],
            users: vec![NamedUser { name: access.user.to_owned(), user }],
            current_context: access.context.to_owned(),
        }
    }

    /// The document for a user's own file, where everything is named `bivouac-NAME` ([`super::entry_name`]).
    pub fn named(name: &str, server: &str, authority: &str, client: &Issued) -> Self {
        let access = Access { cluster: name, user: name, context: name, server, authority, client };
        Self::new(&access)
    }

    /// The same for a server that is reached at an address which its certificate does not have: this name of it is looked for.
    #[must_use]
    pub fn verified_as(mut self, name: &str) -> Self {
        for named in &mut self.clusters {
            named.cluster.tls_server_name = Some(name.to_owned());
        }
        self
    }

    /// The name of the context.
    pub fn context(&self) -> &str {
        &self.current_context
    }

    /// The document as YAML. It holds the user's key.
    pub fn render(&self) -> Secret {
        Secret::new(to_yaml(self))
    }
}

pub(super) fn to_yaml(value: &impl Serialize) -> String {
    yaml_serde::to_string(value).expect("these documents have string keys and no map as a key")
}
