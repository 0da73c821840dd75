//! `bivouac logs`

use std::fs::File;
use std::io::BufWriter;
use std::process::ExitCode;

use bivouac_engine::{ArchiveRequest, Archived, archive};
use bivouac_provider::LogRequest;
use bivouac_spec::{NodeName, Problem, Problems};
use camino::{Utf8Path, Utf8PathBuf};
use tempfile::NamedTempFile;
use tokio::io::AsyncReadExt;

use crate::args::{self, Global};
use crate::grounds::{Existing, open_grounds};
use crate::images::StoreImages;
use crate::selection::{choose, find, open_state};
use crate::{home, output};

pub async fn run(global: &Global, arguments: &args::Logs) -> Result<ExitCode, Problems> {
    if let Some(file) = &arguments.archive {
        return gather(global, arguments, file).await;
    }
    let existing = choose(global, arguments.chosen.cluster.as_ref()).await?;
    let name = match &arguments.node {
        Some(node) => node.clone(),
        None => only_node(&existing)?,
    };
    let node = existing.node(&name).await?;
    let request = LogRequest {
        service: arguments.service.clone(),
        tail: arguments.tail,
        follow: arguments.follow,
    };
    let mut log = node.logs(&request).await?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read =
            log.read(&mut buffer).await.map_err(|error| Problem::from_error("cli.log", &error))?;
        if read == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        output::raw(&buffer[..read])?;
    }
}

fn only_node(existing: &Existing) -> Result<NodeName, Problem> {
    let names: Vec<&NodeName> = existing.observed.nodes.keys().collect();
    match names[..] {
        [only] => Ok(only.clone()),
        _ => {
            let list: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            let message = format!(
                "cluster `{}` has {} nodes and none was named",
                existing.name(),
                names.len()
            );
            Err(Problem::usage("cli.which_node", message)
                .help(format!("name one of: {}", list.join(", "))))
        }
    }
}

/// Writes the archive of a cluster, even of one that cannot be read, or whose ground does not answer: that is when it is wanted.
async fn gather(
    global: &Global,
    arguments: &args::Logs,
    file: &Utf8Path,
) -> Result<ExitCode, Problems> {
    let target = Target::open(file, arguments.force)?;
    let existing = find(global, arguments.chosen.cluster.as_ref()).await?;
    let state = open_state(global);
    let known = existing.state.as_ref().map(|known| &known.applied.cluster.spec.stack);
    let images =
        known.map_or_else(|| StoreImages::open(global), |stack| StoreImages::of(global, stack));
    let request = ArchiveRequest {
        cluster: existing.name(),
        ground: &existing.ground,
        grounds: &open_grounds(global, &state),
        state: &state,
        images: &images,
    };
    let archived = archive(&request, BufWriter::new(target.file()?)).await?;
    target.finish()?;
    output::raw(sentence(&archived, file).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn sentence(archived: &Archived, file: &Utf8Path) -> String {
    let logs = if archived.logs == 1 { "1 log" } else { &format!("{} logs", archived.logs) };
    let missing: String =
        archived.missing.iter().map(|missing| format!("missing: {missing}\n")).collect();
    format!("wrote {file}: cluster {}, {logs}\n{missing}", archived.cluster)
}

/// The file of an archive, of which nothing is seen before it is whole.
struct Target {
    path: Utf8PathBuf,
    unfinished: NamedTempFile,
    replaces: bool,
}

impl Target {
    fn open(path: &Utf8Path, replaces: bool) -> Result<Self, Problem> {
        if !replaces && path.symlink_metadata().is_ok() {
            return Err(unwritable(path, &std::io::ErrorKind::AlreadyExists.into()));
        }
        let folder = path.parent().filter(|folder| *folder != "").unwrap_or(Utf8Path::new("."));
        // Of mode 0600.
        let unfinished = NamedTempFile::new_in(folder).map_err(|error| unwritable(path, &error))?;
        if let Some(owner) = home::owner() {
            std::os::unix::fs::fchown(unfinished.as_file(), Some(owner.uid), Some(owner.gid))
                .map_err(|error| unwritable(path, &error))?;
        }
        Ok(Self { path: path.to_owned(), unfinished, replaces })
    }

    fn file(&self) -> Result<File, Problem> {
        self.unfinished.as_file().try_clone().map_err(|error| unwritable(&self.path, &error))
    }

    fn finish(self) -> Result<(), Problem> {
        let finished = if self.replaces {
            self.unfinished.persist(&self.path)
        } else {
            self.unfinished.persist_noclobber(&self.path)
        };
        finished.map(drop).map_err(|error| unwritable(&self.path, &error.error))
    }
}

fn unwritable(path: &Utf8Path, error: &std::io::Error) -> Problem {
    let problem = Problem::failed("cli.archive", format!("cannot write {path}")).because(error);
    match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            problem.help("name another file, or replace it with `--force`")
        }
        _ => problem,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_there_is_replaced_only_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8Path::from_path(folder.path()).unwrap().join("a.tar.gz");
        let write = |replaces, text: &str| {
            let target = Target::open(&path, replaces)?;
            target.file()?.write_all(text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1 + usize::from(path.exists()));
            target.finish()
        };
        write(false, "one").unwrap();
        let refused = write(false, "two").unwrap_err();
        assert_eq!(refused.help.unwrap(), "name another file, or replace it with `--force`");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one");
        write(true, "three").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn what_is_missing_is_told() {
        let archived = Archived {
            cluster: "demo".parse().unwrap(),
            logs: 1,
            missing: vec!["plan.json: the ground did not answer".to_owned()],
        };
        let expected =
            "wrote a.tar.gz: cluster demo, 1 log\nmissing: plan.json: the ground did not answer\n";
        assert_eq!(sentence(&archived, Utf8Path::new("a.tar.gz")), expected);
    }
}
