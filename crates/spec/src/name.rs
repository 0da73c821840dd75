//! Names that were checked once, when they were read.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest cluster name: `bivouac-NAME` and `NODE.NAME` must stay readable, and 40 characters leave room for both in a host
/// name label of 63.
pub const CLUSTER_NAME_MAX: usize = 40;

/// The longest node name: a DNS label, which is also the kernel's limit for a host name (64 bytes with its end).
pub const NODE_NAME_MAX: usize = 63;

/// The longest snapshot name: that of a folder, and of a cluster with a word before it.
pub const SNAPSHOT_NAME_MAX: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a name must not be empty")]
    Empty,
    /// Longer than interface and host names allow.
    #[error("the name `{name}` has {length} characters, at most {max} fit")]
    TooLong {
        /// The refused name.
        name: String,
        /// Its length in characters.
        length: usize,
        /// The longest that fits.
        max: usize,
    },
    /// Not a DNS label (RFC 1123).
    #[error(
        "the name `{name}` may hold only a-z, 0-9 and `-`, and must start and end with a letter or digit"
    )]
    NotALabel {
        /// The refused name.
        name: String,
    },
}

fn check_label(name: &str, max: usize) -> Result<(), NameError> {
    if name.is_empty() {
        return Err(NameError::Empty);
    }
    let label = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label {
        return Err(NameError::NotALabel { name: name.to_owned() });
    }
    if name.len() > max {
        return Err(NameError::TooLong { name: name.to_owned(), length: name.len(), max });
    }
    Ok(())
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $max:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                check_label(text, $max).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                    "minLength": 1,
                    "maxLength": $max,
                })
            }
        }
    };
}

name_type!(
    /// The name of a cluster: a DNS label of at most [`CLUSTER_NAME_MAX`] characters.
    ClusterName,
    CLUSTER_NAME_MAX
);
name_type!(
    /// The name of a node within its cluster: a DNS label, its host name and, on Kubernetes, the name of its Node object.
    NodeName,
    NODE_NAME_MAX
);
name_type!(
    /// The name of a snapshot among those of its cluster: a DNS label of at most [`SNAPSHOT_NAME_MAX`] characters.
    SnapshotName,
    SNAPSHOT_NAME_MAX
);

impl Default for ClusterName {
    /// `default`, the cluster that commands mean when none is named.
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl NodeName {
    /// The name of the `index`-th node of a group: `worker-0`.
    ///
    /// # Errors
    /// When `prefix` is no DNS label or leaves no room for the index.
    pub fn indexed(prefix: &str, index: u32) -> Result<Self, NameError> {
        format!("{prefix}-{index}").parse()
    }
}

/// The entry of `candidates` that `wanted` most likely meant, if any is near.
#[must_use]
pub fn nearest<'a>(wanted: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(wanted, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_accepted_and_others_refused() {
        assert!("demo-1".parse::<ClusterName>().is_ok());
        for bad in ["", "Demo", "a_b", "-a", "a-", "a.b", &"x".repeat(41)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nearest_finds_typing_errors_only() {
        let names = ["worker-0", "control-plane-0"];
        assert_eq!(nearest("wroker-0", names), Some("worker-0"));
        assert_eq!(nearest("zebra", names), None);
    }
}
