//! What a case runs over: a provider, and how its cluster comes up.

use std::fmt;

/// A provider and a bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Where nodes run.
    pub provider: Provider,
    /// How the cluster on them comes up.
    pub bootstrap: Bootstrap,
}

/// Where nodes run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Namespaces of this machine.
    Linux,
    /// Containers of an engine.
    Docker,
    /// The same, made by `docker compose`.
    Compose,
}

/// How a cluster comes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bootstrap {
    /// The default: all programs as services.
    Services,
    /// By `kubeadm`.
    Kubeadm,
}

impl Setting {
    /// All that the suite runs over, in this order: those without an engine before it is started.
    pub const ALL: [Self; 5] = [
        Self::of(Provider::Linux),
        Self { bootstrap: Bootstrap::Kubeadm, ..Self::of(Provider::Linux) },
        Self::of(Provider::Docker),
        Self { bootstrap: Bootstrap::Kubeadm, ..Self::of(Provider::Docker) },
        Self::of(Provider::Compose),
    ];

    /// Of those, a few in which each ground but `compose` and each bootstrap is once.
    pub const PAIRS: [Self; 2] = [
        Self::of(Provider::Linux),
        Self { bootstrap: Bootstrap::Kubeadm, ..Self::of(Provider::Docker) },
    ];

    /// A provider with the default bootstrap.
    #[must_use]
    pub const fn of(provider: Provider) -> Self {
        Self { provider, bootstrap: Bootstrap::Services }
    }

    /// The lines of a cluster file's `spec` that say so, but for those that `spec` has itself.
    #[must_use]
    pub(crate) fn lines(self, spec: &str) -> String {
        let Self { provider, bootstrap } = self;
        let lines = [
            ("  provider:", format!("{{{provider}: {{}}}}")),
            ("  stack:", format!("{{kubernetes: {{bootstrap: {bootstrap}}}}}")),
        ];
        let missing = lines.iter().filter(|(key, _)| !spec.lines().any(|own| own.starts_with(key)));
        missing.map(|(key, value)| format!("{key} {value}\n")).collect()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bootstrap = match self.bootstrap {
            Bootstrap::Services => "",
            Bootstrap::Kubeadm => "-kubeadm",
        };
        write!(f, "{}{bootstrap}", self.provider)
    }
}

/// As a cluster file has it.
impl fmt::Display for Bootstrap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Kubeadm => "kubeadm",
        })
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Linux => "linux",
            Self::Docker => "docker",
            Self::Compose => "compose",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_its_setting_unless_it_says_otherwise() {
        let setting = Setting::ALL[3];
        assert_eq!(
            setting.lines("  nodes: []\n"),
            "  provider: {docker: {}}\n  stack: {kubernetes: {bootstrap: kubeadm}}\n"
        );
        assert_eq!(setting.lines("  stack: {kubernetes: {}}\n"), "  provider: {docker: {}}\n");
    }
}
