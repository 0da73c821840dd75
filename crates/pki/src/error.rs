//! What can go wrong with certificates and kubeconfigs.

use bivouac_spec::problem::Problem;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, naming the certificate or file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A certificate could not be made.
    #[error("certificate `{subject}` cannot be made")]
    Issue {
        /// Common name.
        subject: String,
        /// Why.
        #[source]
        source: rcgen::Error,
    },
    /// A certificate could not be read.
    #[error("a certificate cannot be read: {reason}")]
    Read {
        /// Why.
        reason: String,
    },
    /// A kubeconfig is no YAML.
    #[error("the kubeconfig is not valid YAML")]
    KubeconfigSyntax(#[source] yaml_serde::Error),
    /// A kubeconfig has another form than Kubernetes gives it.
    #[error("the kubeconfig is not usable: {0}")]
    KubeconfigForm(String),
    /// The configuration of the incus client is no YAML.
    #[error("the configuration of the incus client is not valid YAML")]
    RemotesSyntax(#[source] yaml_serde::Error),
    /// The configuration of the incus client has another form than the client gives it.
    #[error("the configuration of the incus client is not usable: {0}")]
    RemotesForm(String),
}

impl Error {
    /// Stable code for people and scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Issue { .. } => "pki.issue",
            Self::Read { .. } => "pki.read",
            Self::KubeconfigSyntax(_) => "pki.kubeconfig.syntax",
            Self::KubeconfigForm(_) => "pki.kubeconfig.form",
            Self::RemotesSyntax(_) => "pki.remotes.syntax",
            Self::RemotesForm(_) => "pki.remotes.form",
        }
    }
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        let problem = Self::from_error(error.code(), error);
        match error {
            Error::KubeconfigSyntax(_) | Error::KubeconfigForm(_) => {
                problem.help("mend the file by hand, or name another with KUBECONFIG=PATH")
            }
            Error::RemotesSyntax(_) | Error::RemotesForm(_) => {
                problem.help("mend the file by hand, or name another folder with INCUS_CONF=PATH")
            }
            _ => problem,
        }
    }
}
