//! Files of the node, written whole or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::process::ExitCode;

use bivouac_spec::Problem;
use bivouac_spec::node::stream::{Decoder, FRAME_MAX, Part};
use camino::Utf8Path;

use super::{refuse, started};

/// Writes what comes as frames on standard input to the file; its parents are made where they are missing.
#[must_use]
pub fn put(path: &Utf8Path, mode: u32) -> ExitCode {
    match ensure_put(path, mode, &mut io::stdin().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => refuse(problem),
    }
}

fn ensure_put(path: &Utf8Path, mode: u32, input: &mut dyn Read) -> Result<(), Problem> {
    let (Some(name), Some(parent), true) = (path.file_name(), path.parent(), path.is_absolute())
    else {
        let message = format!("`{path}` is no absolute path of a file");
        return Err(Problem::usage("agent.put.path", message));
    };
    let temporary = parent.join(format!(".{name}.new-{}", std::process::id()));
    let written = DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(parent)
        .and_then(|()| receive(&temporary, mode, input))
        .and_then(|()| take_place(&temporary, path));
    written.map_err(|error| {
        // What is told is why it failed; it may not even have been made.
        let _ = fs::remove_file(&temporary);
        Problem::failed("agent.put.failed", format!("{path} cannot be written")).because(&error)
    })
}

fn receive(path: &Utf8Path, mode: u32, input: &mut dyn Read) -> io::Result<()> {
    // Of somebody who had this number before.
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let (mut decoder, mut buffer) = (Decoder::default(), vec![0; FRAME_MAX]);
    while !decoder.has_ended() {
        let length = match input.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let mut bytes = &buffer[..length];
        while let Some(part) = decoder.next(&mut bytes).map_err(io::Error::other)? {
            if let Part::Data(data) = part {
                file.write_all(data)?;
            }
        }
    }
    // The mode at creation has the umask taken off.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.sync_all()
}

fn take_place(temporary: &Utf8Path, path: &Utf8Path) -> io::Result<()> {
    match fs::rename(temporary, path) {
        // Something is mounted on the path, as container engines do with /etc/hosts: it can only be written in place.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            fs::copy(temporary, path)?;
            fs::remove_file(temporary)
        }
        other => other,
    }
}

/// Copies the file to standard output.
#[must_use]
pub fn get(path: &Utf8Path) -> ExitCode {
    let mut file = match open(path) {
        Ok(file) => file,
        Err(problem) => return refuse(problem),
    };
    started();
    let mut output = io::stdout().lock();
    match io::copy(&mut file, &mut output).and_then(|_| output.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(unreadable(path, &error)),
    }
}

fn open(path: &Utf8Path) -> Result<File, Problem> {
    let opened = File::open(path).and_then(|file| {
        let is_folder = file.metadata()?.is_dir();
        if is_folder { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
    });
    opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Problem::failed("agent.get.absent", format!("there is no file {path}"))
        }
        _ => unreadable(path, &error),
    })
}

fn unreadable(path: &Utf8Path, error: &io::Error) -> Problem {
    Problem::failed("agent.get.failed", format!("{path} cannot be read")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bivouac_spec::node::stream::head;
    use std::os::unix::fs::MetadataExt;

    fn frames(parts: &[&str], complete: bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for part in parts.iter().copied().chain(complete.then_some("")) {
            bytes.extend(head(part.len()));
            bytes.extend(part.as_bytes());
        }
        bytes
    }

    #[test]
    fn whole_or_not_at_all() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(directory.path()).unwrap();
        let path = root.join("deep/er/key");
        let put = |mode, bytes: Vec<u8>| ensure_put(&path, mode, &mut bytes.as_slice());
        let error = put(0o600, frames(&["half a", " file"], false)).unwrap_err();
        assert_eq!(error.message, format!("{path} cannot be written"));
        assert!(put(0o600, b"\xff\xff\xff\xff".to_vec()).is_err());
        assert_eq!(fs::read_dir(root.join("deep/er")).unwrap().count(), 0, "no leftovers");
        put(0o640, frames(&["a whole", " file"], true)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a whole file");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        put(0o600, frames(&[], true)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
        assert!(put(0o600, frames(&["cut"], false)).is_err());
        assert_eq!(fs::read_dir(root.join("deep/er")).unwrap().count(), 1, "no leftovers");
    }

    #[test]
    fn what_cannot_be_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let root = Utf8Path::from_path(directory.path()).unwrap();
        let code = |path: &Utf8Path| open(path).unwrap_err().code;
        assert_eq!(code(&root.join("nothing")), "agent.get.absent");
        assert_eq!(code(root), "agent.get.failed");
        for path in ["etc/passwd", "/", "/.."] {
            let problem = ensure_put(path.into(), 0o600, &mut io::empty()).unwrap_err();
            assert_eq!(problem.code, "agent.put.path", "{path}");
        }
    }
}
