//! Kubeconfigs: the document for one user of one cluster, and its place in somebody's own file.

mod document;
mod merge;
mod splice;

pub use document::{Access, Kubeconfig};
pub use merge::{is_empty, merge, remove};

/// The name of cluster, user and context in a user's own file: `bivouac-NAME`.
pub fn entry_name(cluster: &str) -> String {
    format!("bivouac-{cluster}")
}
