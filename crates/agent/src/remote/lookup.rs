//! Finding a program before it is started, so that an exit code of 127 is always the command's own.

use std::fs;
use std::io;

use bivouac_spec::Problem;
use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Access, access};

/// Why a command is not started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("no command was given")]
    Empty,
    #[error("there is no program `{0}`")]
    Absent(String),
    #[error("`{0}` is no program that can be executed")]
    NotExecutable(Utf8PathBuf),
}

impl Error {
    /// What a shell would exit with.
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Empty => 2,
            Self::Absent(_) => 127,
            Self::NotExecutable(_) => 126,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::Empty => Self::usage("agent.exec.no_command", error.to_string())
                .help("say what to run after `--`"),
            Error::Absent(_) => Self::failed("agent.exec.not_found", error.to_string()),
            Error::NotExecutable(_) => Self::failed("agent.exec.not_executable", error.to_string()),
        }
    }
}

/// The program's file: as a shell finds it in the folders of `search`, from the root folder.
pub(super) fn find(program: Option<&str>, search: &str) -> Result<Utf8PathBuf, Error> {
    let program = program.filter(|program| !program.is_empty()).ok_or(Error::Empty)?;
    if program.contains('/') {
        let path = Utf8Path::new("/").join(program);
        return match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(Error::Absent(program.to_owned()))
            }
            _ if is_executable(&path) => Ok(path),
            _ => Err(Error::NotExecutable(path)),
        };
    }
    let found: Vec<Utf8PathBuf> = search
        .split(':')
        .map(|folder| Utf8Path::new("/").join(folder).join(program))
        .filter(|path| path.is_file())
        .collect();
    match found.iter().find(|path| is_executable(path)) {
        Some(path) => Ok(path.clone()),
        None => Err(found
            .into_iter()
            .next()
            .map_or_else(|| Error::Absent(program.to_owned()), Error::NotExecutable)),
    }
}

fn is_executable(path: &Utf8Path) -> bool {
    path.is_file() && access(path.as_std_path(), Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_shell_finds_it() {
        let directory = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(directory.path()).unwrap();
        fs::write(folder.join("sh"), "no program").unwrap();
        fs::write(folder.join("data"), "no program").unwrap();
        let search = format!("{folder}:/bin");
        assert_eq!(find(Some("sh"), &search).unwrap(), "/bin/sh");
        assert_eq!(find(Some("bin/sh"), "").unwrap(), "/bin/sh");
        let codes =
            [Some("data"), Some("nothing"), Some("/bin"), Some("/no/thing"), Some(""), None]
                .map(|program| find(program, &search).unwrap_err().exit_code());
        assert_eq!(codes, [126, 127, 126, 127, 2, 2]);
    }
}
