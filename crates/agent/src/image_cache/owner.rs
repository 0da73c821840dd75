//! Whose a folder is, and acting as them: what root writes there is theirs, and what they linked there leads root nowhere that they could not go themselves.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use camino::Utf8Path;
use rustix::process::{Gid, Uid, getegid, geteuid, getgroups};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Whose a folder is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Owner {
    user: Uid,
    group: Gid,
}

/// This thread acts as the owner until this is dropped.
#[derive(Debug)]
#[must_use = "it ends at once"]
pub(super) struct Acting(Option<(Gid, Vec<Gid>)>);

impl Owner {
    /// The owner of a folder, which is no link to one.
    pub(super) fn of(folder: &Utf8Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(folder)?;
        if !metadata.is_dir() {
            return Err(no_folder(folder));
        }
        let (user, group) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        Ok(Self { user, group })
    }

    /// Acts as them, which only they and root can.
    pub(super) fn act(self) -> io::Result<Acting> {
        let own = geteuid();
        if own == self.user {
            return Ok(Acting(None));
        }
        if !own.is_root() {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("the folder belongs to the user {}", self.user.as_raw()),
            ));
        }
        // From here on, dropping it takes back what was done.
        let acting = Acting(Some((getegid(), getgroups()?)));
        set_thread_groups(&[])?;
        set_thread_res_gid(None, self.group, None)?;
        set_thread_res_uid(None, self.user, None)?;
        Ok(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        let Some((group, groups)) = self.0.take() else { return };
        // The user first: only root may do the rest.
        set_thread_res_uid(None, Uid::ROOT, None).expect("the real user stayed root");
        // Where groups cannot be changed, as in some user namespaces, they were not.
        let _ = set_thread_res_gid(None, group, None);
        let _ = set_thread_groups(&groups);
    }
}

/// Nobody makes links there for a good reason.
pub(super) fn no_folder(path: &Utf8Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, format!("{path} is no folder"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::super::folder::Folder;
    use super::super::folder::tests::{NOT, folder, put};
    use super::super::question::Digest;
    use super::*;

    /// Only root can act as somebody else; whoever else runs this sees that they cannot.
    #[test]
    fn who_owns_a_folder_writes_to_it_and_to_nothing_else() {
        const SOMEBODY: u32 = 54321;
        let (temporary, root, _) = folder();
        let precious = temporary.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let digest = Digest::of(b"x");
        let all = ["", "blobs", "origins", "rights", "incoming"].map(|name| root.join(name));
        if all.iter().any(|path| chown(path, Some(SOMEBODY), Some(SOMEBODY)).is_err()) {
            let owner = Owner { user: Uid::from_raw(SOMEBODY), ..Owner::of(&root).unwrap() };
            assert!(owner.act().is_err());
            return;
        }
        // They must be able to come here at all.
        chown(temporary.path(), Some(SOMEBODY), None).unwrap();
        let folder = Folder::open(&root).unwrap();
        put(&folder, b"layer");
        let made = fs::metadata(folder.blob_path(&Digest::of(b"layer"))).unwrap();
        assert_eq!((made.uid(), made.gid()), (SOMEBODY, SOMEBODY));
        for end in ["lock", "part"] {
            let link = root.join(format!("incoming/{}.{end}", digest.digits()));
            symlink(&precious, &link).unwrap();
            assert!(folder.receive(&digest, NOT).is_err(), "{end}");
            fs::remove_file(&link).unwrap();
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert!(geteuid().is_root(), "afterwards it is root again");
        fs::write(&precious, "mine").unwrap();
    }
}
