//! Things of a test's own on the host, which go with their value.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Command;

use crate::Run;

/// A link of the test's own on the host, with one address. It goes with the value.
#[derive(Debug)]
pub struct OwnLink(&'static str);

impl OwnLink {
    /// Makes a bridge without ports of this name and address, such as `198.51.100.1/24`.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn new(name: &'static str, address: &str) -> Self {
        let _ = Command::new("ip").args(["link", "delete", name]).output();
        let link = Self(name);
        for arguments in [
            &["link", "add", name, "type", "bridge"][..],
            &["address", "add", address, "dev", name],
            &["link", "set", name, "up"],
        ] {
            let _ = Run::new("ip").args(arguments).success();
        }
        link
    }

    /// The address of a network such as `198.51.100.1/24`.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn address(network: &str) -> IpAddr {
        let address = network.split('/').next().and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("{network} is no network"))
    }
}

impl Drop for OwnLink {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "delete", self.0]).output();
    }
}

/// A small file system of the test's own. It goes with the value.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// A tmpfs of so many MiB at a new folder.
    ///
    /// # Panics
    /// When it cannot be mounted.
    #[must_use]
    pub fn new(at: PathBuf, size: u32) -> Self {
        std::fs::create_dir(&at)
            .unwrap_or_else(|error| panic!("cannot make {}: {error}", at.display()));
        let options = format!("size={size}m");
        let _ =
            Run::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).args([&at]).success();
        Self(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}
