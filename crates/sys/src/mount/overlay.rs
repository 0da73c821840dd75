//! The overlay file system's options, whose paths need escaping.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The kernel takes one page of options.
const MAX_DATA: usize = 4095;

/// Layers to unite. Paths may hold any character; together they must stay below one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Read-only layers, the topmost first.
    pub lower: Vec<PathBuf>,
    /// The directory that takes the changes. It must not lie inside a lower one, nor on an overlay.
    pub upper: PathBuf,
    /// An empty directory on the same file system as `upper`.
    pub work: PathBuf,
}

impl Overlay {
    pub(crate) fn render_data(&self) -> Result<Vec<u8>> {
        let mut data = b"lowerdir=".to_vec();
        for (index, layer) in self.lower.iter().enumerate() {
            if index > 0 {
                data.push(b':');
            }
            escape(layer, &mut data);
        }
        data.extend(b",upperdir=");
        escape(&self.upper, &mut data);
        data.extend(b",workdir=");
        escape(&self.work, &mut data);
        if data.len() > MAX_DATA {
            let text = format!("its paths take {} bytes of {MAX_DATA}", data.len());
            return Err(Error::invalid(
                "mount",
                format_args!("overlay {}", self.upper.display()),
                text,
            ));
        }
        Ok(data)
    }
}

/// A backslash guards what separates layers and options; overlayfs strips it once from each path.
fn escape(path: &Path, data: &mut Vec<u8>) {
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b':' | b',' | b'\\') {
            data.push(b'\\');
        }
        data.push(*byte);
    }
}

#[cfg(test)]
mod tests {
    use crate::mount::{Attributes, Filesystem, Overlay, mount};
    use crate::testing::isolated;
    use std::fs;

    #[test]
    fn unites_layers_whatever_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        isolated(move || {
            // The directory of the test may lie on an overlay itself, which cannot be an upper layer.
            mount(&Filesystem::Tmpfs { size: None, mode: 0o755 }, &root, Attributes::default())
                .unwrap();
            let path = |name: &str| {
                fs::create_dir(root.join(name)).unwrap();
                root.join(name)
            };
            let overlay = Overlay {
                lower: vec![path("top: a,b"), path("low\\x:y")],
                upper: path("up,per:\\"),
                work: path("wo,rk:\\"),
            };
            let target = path("merged");
            fs::write(overlay.lower[0].join("file"), "top").unwrap();
            fs::write(overlay.lower[1].join("file"), "low").unwrap();
            fs::write(overlay.lower[1].join("other"), "low").unwrap();
            mount(&Filesystem::Overlay(overlay.clone()), &target, Attributes::default()).unwrap();
            assert_eq!(fs::read_to_string(target.join("file")).unwrap(), "top");
            fs::write(target.join("other"), "changed").unwrap();
            assert_eq!(fs::read_to_string(overlay.upper.join("other")).unwrap(), "changed");
            assert_eq!(fs::read_to_string(overlay.lower[1].join("other")).unwrap(), "low");
        });
    }

    #[test]
    fn too_many_layers_are_an_error_with_a_reason() {
        let overlay = Overlay {
            lower: vec!["/layer".repeat(10).into(); 80],
            upper: "/u".into(),
            work: "/w".into(),
        };
        let error = overlay.render_data().unwrap_err();
        assert_eq!(error.to_string(), "mount overlay /u failed");
    }
}
