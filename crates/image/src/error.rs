//! What can go wrong here: one type, with a stable code and, where there is one, the way out.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use crate::stack::Stack;
use crate::tools::Tool;

/// A failure of the store, of a build or of an import. The message names the object; the cause is in `source`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something on a path.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried, as a verb: `write`, `rename`.
        action: &'static str,
        /// On what.
        path: Utf8PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The bundle's lock does not hold together.
    #[error("the bundle's lock is not valid: {0}")]
    Lock(String),
    /// The bundle has no such version of what gives a stack its name.
    #[error("the bundle has no {stack} {version}")]
    NoVersion {
        /// The stack.
        stack: Stack,
        /// As asked for.
        version: String,
        /// What it has.
        known: Vec<String>,
    },
    /// Programs or libraries that building needs are not on this machine. All of them are listed.
    #[error("building the node image needs what is not on this machine: {}", names(.0))]
    MissingTools(Vec<Tool>),
    /// The Go toolchain is too old to build the bundle.
    #[error("Go {found} is too old to build the bundle, which needs Go {needed}")]
    GoTooOld {
        /// What `go version` said.
        found: String,
        /// The lock's version.
        needed: String,
    },
    /// Only root may make the Debian base.
    #[error("building the node image needs root: mmdebstrap sets owners and makes devices")]
    NotRoot,
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}){}", tail_text(.tail))]
    Command {
        /// Program and arguments.
        command: String,
        /// Exit status or signal.
        status: String,
        /// The last lines that it wrote to stderr.
        tail: Vec<String>,
    },
    /// A download failed and there is no other way to the program.
    #[error("cannot download {url}: {reason}")]
    Download {
        /// From where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Content is not what its checksum promises.
    #[error("{what} has SHA-256 {found}, expected {expected}")]
    Checksum {
        /// A URL, a file or a blob.
        what: String,
        /// As pinned.
        expected: String,
        /// As found.
        found: String,
    },
    /// The file system of the store has too little room to begin.
    #[error("{path} has {} MB free, a build needs about {} MB", .free / 1_000_000, .needed / 1_000_000)]
    NoSpace {
        /// The store.
        path: Utf8PathBuf,
        /// Bytes.
        free: u64,
        /// Bytes.
        needed: u64,
    },
    /// The caller asked to stop. What was finished is kept.
    #[error("interrupted; finished pieces are kept")]
    Cancelled,
    /// Something in the store is not as it was recorded.
    #[error("{what} is damaged: {why}")]
    Damaged {
        /// A path inside the store.
        what: Utf8PathBuf,
        /// In what way.
        why: String,
    },
    /// The file is no image archive.
    #[error("{path} is not an image archive: {why}")]
    NotAnArchive {
        /// The file.
        path: String,
        /// What was missed in it.
        why: String,
    },
    /// The archive ends too early.
    #[error("{path} is truncated: {what} is not whole")]
    Truncated {
        /// The file.
        path: String,
        /// The entry at which it ends.
        what: String,
    },
    /// A layer tries to write outside itself, or holds what no layer may.
    #[error("layer {layer} holds an unsafe entry {entry}: {why}")]
    UnsafeEntry {
        /// The layer's digest or name.
        layer: String,
        /// The entry's path.
        entry: String,
        /// What is wrong with it.
        why: String,
    },
    /// The image is for another machine.
    #[error("image {image} is for {found}, this machine is {wanted}")]
    WrongArchitecture {
        /// The image's name.
        image: String,
        /// Platforms that it has.
        found: String,
        /// The host's platform.
        wanted: String,
    },
    /// A layer or manifest of a kind that is not understood.
    #[error("image {image} has content of the unsupported media type {media_type}")]
    UnsupportedMediaType {
        /// The image's name.
        image: String,
        /// The media type.
        media_type: String,
    },
    /// An image name that cannot be one.
    #[error("{name:?} is not an image name: {why}")]
    Reference {
        /// As given.
        name: String,
        /// Why not.
        why: String,
    },
}

fn names(tools: &[Tool]) -> String {
    tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn tail_text(tail: &[String]) -> String {
    if tail.is_empty() { String::new() } else { format!(":\n  {}", tail.join("\n  ")) }
}

impl Error {
    /// A stable name for this kind of failure.
    pub fn code(&self) -> &'static str {
        match self {
            _ if self.is_disk_full() => "image.disk_full",
            Self::Io { .. } => "image.io",
            Self::Lock(_) => "image.bundle_lock",
            Self::NoVersion { .. } => "image.no_version",
            Self::MissingTools(_) => "image.missing_tools",
            Self::GoTooOld { .. } => "image.go_too_old",
            Self::NotRoot => "image.not_root",
            Self::Command { .. } => "image.command_failed",
            Self::Download { .. } => "image.download_failed",
            Self::Checksum { .. } => "image.checksum",
            Self::NoSpace { .. } => "image.no_space",
            Self::Cancelled => "image.interrupted",
            Self::Damaged { .. } => "image.damaged",
            Self::NotAnArchive { .. } => "image.not_an_archive",
            Self::Truncated { .. } => "image.truncated",
            Self::UnsafeEntry { .. } => "image.unsafe_entry",
            Self::WrongArchitecture { .. } => "image.wrong_architecture",
            Self::UnsupportedMediaType { .. } => "image.unsupported_media_type",
            Self::Reference { .. } => "image.bad_name",
        }
    }

    /// One sentence that says what to do, where that is known.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            _ if self.is_disk_full() => {
                "free some space and run the same command again: finished pieces are kept".into()
            }
            Self::NoSpace { path, .. } => {
                format!(
                    "free some space on the file system of {path}, or run `bivouac image prune`"
                )
            }
            Self::MissingTools(tools) => {
                let packages: Vec<_> = tools.iter().map(|tool| tool.package.as_str()).collect();
                let packages = packages.join(" ");
                format!("run `apt-get install -y {packages}`")
            }
            Self::NoVersion { stack, known, .. } if known.is_empty() => {
                format!("leave the version out: Debian says that of {stack}")
            }
            Self::NoVersion { known, .. } => format!("choose one of: {}", known.join(", ")),
            Self::GoTooOld { needed, .. } => {
                format!("install Go {needed} or newer from https://go.dev/dl")
            }
            Self::NotRoot => "run the same command with sudo".into(),
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "run the same command with sudo".into()
            }
            Self::Cancelled => "run the same command again: it goes on where it was".into(),
            Self::Damaged { .. } => {
                "run `bivouac image build`: what is damaged is made again".into()
            }
            Self::WrongArchitecture { wanted, .. } => {
                format!("build or pull the image for {wanted} and save it again")
            }
            Self::NotAnArchive { .. } | Self::Truncated { .. } => {
                "make the archive with `docker save IMAGE -o FILE`".into()
            }
            _ => return None,
        })
    }

    fn is_disk_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            Self::Command { tail, .. } => {
                tail.iter().any(|line| line.to_lowercase().contains("no space left on device"))
            }
            _ => false,
        }
    }
}

/// Puts what was tried, and on which path, around a system error.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: impl AsRef<Utf8Path>) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: impl AsRef<Utf8Path>) -> Result<T, Error> {
        self.map_err(|error| Error::Io {
            action,
            path: path.as_ref().to_owned(),
            source: error.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_use_the_store_is_told_what_to_do() {
        let denied = |kind: io::ErrorKind| Error::Io {
            action: "list",
            path: "/store/images".into(),
            source: io::Error::from(kind),
        };
        let help = denied(io::ErrorKind::PermissionDenied).help().unwrap();
        assert!(help.contains("sudo"), "{help}");
        assert_eq!(denied(io::ErrorKind::NotFound).help(), None);
    }

    #[test]
    fn a_full_disk_is_told_apart_wherever_it_shows() {
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let error = Error::Io { action: "write", path: "/store/x".into(), source };
        assert_eq!(error.code(), "image.disk_full");
        let error = Error::Command {
            command: "go build".into(),
            status: "exit status: 1".into(),
            tail: vec!["compile: write x: no space left on device".into()],
        };
        assert_eq!(error.code(), "image.disk_full");
        assert!(error.help().unwrap().contains("finished pieces are kept"));
    }
}
