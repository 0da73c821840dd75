//! What a cluster file only points to: passwords and certificates of registries.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use bivouac_pki::Secret;
use bivouac_spec::cluster::Source;
use bivouac_spec::{Cluster, Problem, Problems};

/// What is there of it. What is not is no problem here: it may be known from before.
///
/// # Errors
/// Everything that is there and cannot be read, at once.
pub fn found(cluster: &Cluster) -> Result<BTreeMap<Source, Secret>, Problems> {
    let (mut found, mut problems) = (BTreeMap::new(), Vec::new());
    for source in cluster.sources() {
        match read(&source) {
            Ok(Some(text)) => drop(found.insert(source, Secret::new(text))),
            Ok(None) => {}
            Err(problem) => problems.push(problem),
        }
    }
    Problems::check(problems)?;
    Ok(found)
}

/// What of it can be read. For verbs that go on with a cluster as it is: it was read when the cluster was brought up, and is kept with
/// its keys, so that nothing here keeps a cluster from starting.
pub fn readable(cluster: &Cluster) -> BTreeMap<Source, Secret> {
    let read = |source: Source| Some((read(&source).ok()??, source));
    let found = cluster.sources().into_iter().filter_map(read);
    found.map(|(text, source)| (source, Secret::new(text))).collect()
}

fn read(source: &Source) -> Result<Option<String>, Problem> {
    match source {
        Source::File(path) => match std::fs::read(path) {
            Ok(bytes) => line(bytes, &format!("the file {path}")).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let message = format!("cannot read the file {path}, which the cluster file names");
                let problem = Problem::usage("cli.source_unreadable", message).because(&error);
                Err(problem.help("name a file with the password or the certificates alone"))
            }
        },
        Source::Environment(name) => match std::env::var_os(name) {
            Some(value) if value != OsStr::new("") => {
                line(value.into_encoded_bytes(), &format!("the variable `{name}`")).map(Some)
            }
            _ => Ok(None),
        },
    }
}

/// The text without the end of its last line, which editors write and nobody means.
fn line(bytes: Vec<u8>, what: &str) -> Result<String, Problem> {
    let refuse = |why: &str| {
        let message = format!("{what}, which the cluster file names, {why}");
        Problem::usage("cli.source_unreadable", message)
            .help("name one with the password or the certificates alone")
    };
    let text = String::from_utf8(bytes).map_err(|_| refuse("is not UTF-8 text"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err(refuse("is empty"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_without_the_end_of_their_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = camino::Utf8Path::from_path(folder.path()).unwrap().join("word");
        let source = Source::File(path.clone());
        assert_eq!(read(&source).unwrap(), None);
        for (content, word) in [("a b\n", "a b"), ("a\n\n", "a\n"), ("a\r\n", "a"), (" a", " a")] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(read(&source).unwrap().as_deref(), Some(word));
        }
        for (content, why) in [(&b"\n"[..], "is empty"), (&b"\xff"[..], "is not UTF-8 text")] {
            std::fs::write(&path, content).unwrap();
            assert!(read(&source).unwrap_err().message.ends_with(why));
        }
        let problem = read(&Source::File(path.parent().unwrap().to_owned())).unwrap_err();
        assert_eq!(problem.code, "cli.source_unreadable");
    }

    #[test]
    fn what_cannot_be_read_stops_nothing_but_up() {
        let folder = tempfile::tempdir().unwrap();
        let folder = camino::Utf8Path::from_path(folder.path()).unwrap();
        let (good, empty) = (folder.join("good"), folder.join("empty"));
        std::fs::write(&good, "word\n").unwrap();
        std::fs::write(&empty, "").unwrap();
        let registry = |host: &str, path: &camino::Utf8Path| {
            format!("{{host: {host}, credentials: {{username: me, password: {{file: '{path}'}}}}}}")
        };
        let text = format!(
            "apiVersion: bivouac.dev/v1alpha1\nkind: Cluster\nmetadata: {{name: demo}}\nspec:\n  stack:\n    kubernetes:\n      \
             registries: [{}, {}, {}]\n",
            registry("a.test", &good),
            registry("b.test", &empty),
            registry("c.test", folder)
        );
        let cluster = bivouac_spec::cluster::parse(&text, "demo.yaml").unwrap();
        let problems = found(&cluster).unwrap_err();
        assert_eq!(problems.as_slice().len(), 2);
        let readable: Vec<Source> = readable(&cluster).into_keys().collect();
        assert_eq!(readable, [Source::File(good)]);
    }

    #[test]
    fn variables_that_are_not_set_are_not_there() {
        let read = |name: &str| read(&Source::Environment(name.to_owned())).unwrap();
        assert_eq!(read("BIVOUAC_NOBODY_SETS_THIS"), None);
        assert!(read("PATH").is_some());
    }
}
