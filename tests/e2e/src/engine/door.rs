//! The port at which the tests' own engine answers over TLS, to whoever shows a certificate of its authority.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{TestAuthority, free_ports};

/// The only address that is reached from this machine alone.
const HOST: &str = "127.0.0.1";

/// A port, and the certificates for it.
#[derive(Debug)]
pub(super) struct Door {
    port: u16,
    folder: PathBuf,
}

impl Door {
    /// A free port, and new certificates in `folder`.
    pub(super) fn new(folder: &Path) -> Self {
        let [port] = free_ports();
        let door = Self { port, folder: folder.join("tls") };
        let authority = TestAuthority::new();
        authority.write_identity(&door.folder.join("engine"), &[HOST]);
        authority.write_identity(&door.client(), &["client"]);
        door
    }

    /// What `dockerd` is told.
    pub(super) fn options(&self) -> Vec<OsString> {
        let mut options: Vec<OsString> = ["--host".into(), self.host().into()].into();
        options.push("--tlsverify".into());
        for (option, name) in
            [("--tlscacert", "ca.pem"), ("--tlscert", "cert.pem"), ("--tlskey", "key.pem")]
        {
            options.extend([option.into(), self.folder.join("engine").join(name).into()]);
        }
        options
    }

    /// `tcp://HOST:PORT`.
    pub(super) fn host(&self) -> String {
        format!("tcp://{HOST}:{}", self.port)
    }

    /// The folder with `ca.pem`, `cert.pem` and `key.pem` of a client.
    pub(super) fn client(&self) -> PathBuf {
        self.folder.join("client")
    }
}

impl TestAuthority {
    /// Writes `ca.pem`, and a new `cert.pem` and `key.pem` for these names, into a folder.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write_identity(&self, folder: &Path, names: &[&str]) {
        let (certificate, key) = self.identity(names);
        fs::create_dir_all(folder).expect("a new folder can be made");
        for (name, content) in
            [("ca.pem", self.certificate()), ("cert.pem", &certificate), ("key.pem", &key)]
        {
            fs::write(folder.join(name), content).expect("a new folder can be written");
        }
    }
}
