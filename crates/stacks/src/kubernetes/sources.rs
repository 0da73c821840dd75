//! What the cluster file only points to, such as passwords and certificates of registries: kept with the keys, so that the cluster can be
//! brought up again where nobody has them.

use std::collections::BTreeMap;

use bivouac_pki::Secret;
use bivouac_spec::Problem;
use bivouac_spec::cluster::{Kubernetes, Source};
use serde_json::Value;

use crate::stack::Keys;

/// Where they are in the document of the keys.
const FIELD: &str = "sources";

/// What is known, by where it was found.
pub(super) type Sources = BTreeMap<String, Secret>;

/// What is kept with these keys.
pub(super) fn kept(keys: Option<&Keys>) -> Result<Sources, Problem> {
    let Some(value) = keys.and_then(|keys| keys.0.get(FIELD)) else { return Ok(Sources::new()) };
    serde_json::from_value(value.clone()).map_err(|_| {
        // What is wrong with it may be a password.
        let message = "the passwords that are kept with the keys cannot be read";
        Problem::failed("stack.kubernetes.keys_unreadable", message)
    })
}

/// What these settings point to: as it was found now, or else as it was found before.
pub(super) fn gather(
    mut kept: Sources,
    found: &BTreeMap<Source, Secret>,
    settings: &Kubernetes,
) -> Result<Sources, Problem> {
    let mut sources = Sources::new();
    for source in settings.sources() {
        let name = source.to_string();
        let secret = found.get(&source).cloned().or_else(|| kept.remove(&name));
        sources.insert(name, secret.ok_or_else(|| unknown(&source))?);
    }
    Ok(sources)
}

/// The keys, with these beside them.
pub(super) fn keep(mut keys: Keys, sources: &Sources) -> Keys {
    if let Value::Object(document) = &mut keys.0
        && !sources.is_empty()
    {
        let value = serde_json::to_value(sources).expect("its keys are strings");
        document.insert(FIELD.to_owned(), value);
    }
    keys
}

/// What was found there.
pub(super) fn look_up<'a>(sources: &'a Sources, source: &Source) -> Result<&'a str, Problem> {
    let secret = sources.get(&source.to_string()).ok_or_else(|| unknown(source))?;
    Ok(secret.expose())
}

fn unknown(source: &Source) -> Problem {
    let (message, help) = match source {
        Source::File(path) => (
            format!("the cluster file names the file {path}, and it is not there"),
            "write it, or change the path; a relative one begins at the folder of the cluster file"
                .to_owned(),
        ),
        Source::Environment(name) => (
            format!("the cluster file names the variable `{name}`, and it is not set"),
            format!("set it once; `sudo --preserve-env={name}` passes it on"),
        ),
    };
    Problem::usage("stack.kubernetes.no_source", message).help(help)
}
