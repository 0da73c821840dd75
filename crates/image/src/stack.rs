//! What the node images of the stacks are made of: layers above the one Debian base, which they share.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What a node image is for. Images of different stacks share the layers that they have in common.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum Stack {
    /// Kubernetes.
    #[default]
    Kubernetes,
    /// Incus.
    Incus,
}

impl Stack {
    /// Every stack, in the order in which lists show them.
    pub const ALL: [Self; 2] = [Self::Kubernetes, Self::Incus];

    /// The name in the lock, in cluster files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Incus => "incus",
        }
    }

    /// The program of the lock that gives the stack its name, and its image its version.
    #[must_use]
    pub const fn program(self) -> Option<&'static str> {
        match self {
            Self::Kubernetes => Some("kube"),
            Self::Incus => None,
        }
    }

    /// The stack of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stack| stack.name() == name)
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One layer of a node image above the Debian base.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "layer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Recipe {
    /// The files of all programs of the lock.
    Programs {},
    /// All container images of the lock.
    ContainerImages {},
    /// Debian packages besides those of the base.
    Packages(Packages),
    /// An image of system containers.
    Instance(Instance),
}

/// Debian packages, with what they need.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Their names.
    pub packages: Vec<String>,
    /// Symbolic links by path, in place of what the packages bring there.
    #[serde(default)]
    pub links: BTreeMap<String, String>,
}

/// An image of system containers, as Incus imports it: the Debian base and a few files.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// Its name; the archive is that with `.tar` in [`crate::INSTANCE_IMAGES`].
    pub name: String,
    /// What a list says of it.
    pub description: String,
    /// What of the base it does not have; a final `*` stands for all below.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Executable files of the bundle, by path.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Names of symbolic links beside a file, by the file's path.
    #[serde(default)]
    pub links: BTreeMap<String, Vec<String>>,
    /// Templates of files that each new container gets, by absolute path.
    #[serde(default)]
    pub templates: BTreeMap<String, String>,
}

/// Looks for what would make an image that no node can start from.
pub(crate) fn check(stacks: &BTreeMap<Stack, Vec<Recipe>>) -> Result<(), String> {
    for (stack, recipes) in stacks {
        let about = |why: &str| Err(format!("stack {stack}: {why}"));
        let packages = |recipe: &Recipe| matches!(recipe, Recipe::Packages(_));
        match recipes.iter().position(|recipe| !packages(recipe)) {
            None => return about("it has no layer besides Debian packages"),
            Some(first) if recipes[first..].iter().any(packages) => {
                return about("Debian packages come after another layer");
            }
            Some(first) if first > 1 => return about("it has two layers of Debian packages"),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(layers: &str) -> String {
        #[derive(Debug, Deserialize)]
        struct Lock {
            stacks: BTreeMap<Stack, Vec<Recipe>>,
        }
        match toml::from_str::<Lock>(&format!("[stacks]\nincus = [{layers}]")) {
            Ok(lock) => check(&lock.stacks).unwrap_err(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn mistakes_are_named() {
        let packages = r#"{ layer = "packages", packages = ["x"] }"#;
        let programs = r#"{ layer = "programs" }"#;
        assert_eq!(refused(packages), "stack incus: it has no layer besides Debian packages");
        let text = refused(&format!("{programs}, {packages}"));
        assert_eq!(text, "stack incus: Debian packages come after another layer");
        let text = refused(&format!("{packages}, {packages}, {programs}"));
        assert_eq!(text, "stack incus: it has two layers of Debian packages");
        assert!(refused(r#"{ layer = "programs", oops = 1 }"#).contains("oops"));
        assert!(refused(r#"{ layer = "oops" }"#).contains("oops"));
    }

    #[test]
    fn a_stack_is_named_alike_everywhere() {
        for stack in Stack::ALL {
            let text = serde_json::to_string(&stack).unwrap();
            assert_eq!(text, format!("\"{stack}\""));
            assert_eq!(Stack::named(stack.name()), Some(stack));
        }
    }
}
