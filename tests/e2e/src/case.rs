//! A case is written once. What it is about says over which settings it runs.

use std::fmt;

use crate::engine::Engine;
use crate::{Bootstrap, Ground, Provider, Setting};

/// One case of the suite.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `module/what_must_hold`.
    pub name: &'static str,
    /// What it is about.
    pub about: About,
    /// The case. It panics when what must hold does not.
    pub run: fn(&Ground),
}

/// What a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// All that a user does: runs over every setting.
    Everything,
    /// Something that each ground does in its own way: runs over every provider but `compose`, with the default bootstrap.
    Grounds,
    /// The same, of which kubeadm has a part of its own: runs over `docker` with kubeadm, too.
    GroundsAndKubeadm,
    /// Something that both grounds and bootstraps have a part in: runs over `linux` with the default bootstrap and over `docker` with
    /// kubeadm, so that each of them is met once.
    Pairs,
    /// What runs in nodes, whatever they are: runs over `linux`, with the default bootstrap.
    Nodes,
    /// A provider: runs over that one, with the default bootstrap.
    One(Provider),
    /// An engine that is stopped and started, or reached over TLS: runs over `docker` where the engine is the tests' own.
    OwnEngine,
    /// bivouac itself, before any ground is used: runs once.
    Bivouac,
}

/// Why a case does not run over a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// It is about this provider.
    About(Provider),
    /// The bootstrap makes no difference to it.
    AnyBootstrap,
    /// No ground makes a difference to it.
    AnyGround,
    /// Its ground and its bootstrap are met by it, each with another one.
    MetInPairs,
    /// The nodes of `compose` are the containers of `docker`, whoever makes them.
    AsOnDocker,
    /// The engine is not the tests' to stop.
    ForeignEngine,
}

const DOCKER_KUBEADM: Setting =
    Setting { provider: Provider::Docker, bootstrap: Bootstrap::Kubeadm };

/// A case of this name about this.
#[must_use]
pub const fn case(name: &'static str, about: About, run: fn(&Ground)) -> Case {
    Case { name, about, run }
}

impl Case {
    /// Why this case does not run over a setting, if so.
    #[must_use]
    pub fn skip(&self, setting: Setting) -> Option<Skip> {
        let needed = match self.about {
            About::Everything => return None,
            About::Pairs => {
                return (!Setting::PAIRS.contains(&setting)).then_some(Skip::MetInPairs);
            }
            About::Bivouac | About::Nodes => {
                return (setting != Setting::of(Provider::Linux)).then_some(Skip::AnyGround);
            }
            About::GroundsAndKubeadm if setting == DOCKER_KUBEADM => return None,
            About::Grounds | About::GroundsAndKubeadm if setting.provider == Provider::Compose => {
                return Some(Skip::AsOnDocker);
            }
            About::Grounds | About::GroundsAndKubeadm => setting.provider,
            About::One(provider) => provider,
            About::OwnEngine => Provider::Docker,
        };
        if setting.provider != needed {
            return Some(Skip::About(needed));
        }
        if setting.bootstrap != Bootstrap::Services {
            return Some(Skip::AnyBootstrap);
        }
        (self.about == About::OwnEngine && !Engine::shared().is_own())
            .then_some(Skip::ForeignEngine)
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::About(provider) => write!(f, "it is about {provider}"),
            Self::AnyBootstrap => f.write_str("it is the same with every bootstrap"),
            Self::AnyGround => f.write_str("it is the same on every ground"),
            Self::MetInPairs => f.write_str("its ground and its bootstrap are met in other pairs"),
            Self::AsOnDocker => f.write_str("docker makes the same containers"),
            Self::ForeignEngine => f.write_str("the engine is not the tests' to stop"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_case_is_about_says_where_it_runs() {
        let [linux, linux_kubeadm, docker, docker_kubeadm, compose] = Setting::ALL;
        let skip = |about, setting| Case { name: "case", about, run: |_| () }.skip(setting);
        assert_eq!(skip(About::Everything, docker_kubeadm), None);
        assert_eq!(skip(About::Grounds, docker), None);
        assert_eq!(skip(About::Grounds, docker_kubeadm), Some(Skip::AnyBootstrap));
        for alone in [linux, docker, docker_kubeadm] {
            assert_eq!(skip(About::GroundsAndKubeadm, alone), None);
        }
        assert_eq!(skip(About::GroundsAndKubeadm, linux_kubeadm), Some(Skip::AnyBootstrap));
        assert_eq!(skip(About::GroundsAndKubeadm, compose), Some(Skip::AsOnDocker));
        assert_eq!(skip(About::Everything, compose), None);
        assert_eq!(skip(About::Grounds, compose), Some(Skip::AsOnDocker));
        assert_eq!(skip(About::One(Provider::Linux), docker), Some(Skip::About(Provider::Linux)));
        assert_eq!(skip(About::OwnEngine, linux), Some(Skip::About(Provider::Docker)));
        assert_eq!(skip(About::Pairs, linux), None);
        assert_eq!(skip(About::Pairs, docker_kubeadm), None);
        for other in [linux_kubeadm, docker, compose] {
            assert_eq!(skip(About::Pairs, other), Some(Skip::MetInPairs));
        }
        assert_eq!(skip(About::Nodes, linux), None);
        assert_eq!(skip(About::Nodes, docker), Some(Skip::AnyGround));
        assert_eq!(skip(About::Bivouac, linux), None);
        assert_eq!(skip(About::Bivouac, docker), Some(Skip::AnyGround));
    }
}
