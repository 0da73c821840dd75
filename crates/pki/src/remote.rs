//! A remote in the configuration of the `incus` client (`config.yml`), which belongs to a user.
//!
//! The client writes the whole file anew whenever it changes anything, so only what it says is kept, not how it is written.

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

const REMOTES: &str = "remotes";
const DEFAULT: &str = "default-remote";
/// What the client takes when its file does not say.
const LOCAL: &str = "local";

/// Puts a remote of this name and address into a user's file, in place of one of the same name. All else stays, the default remote
/// too. If nothing changes, the text comes back as it was.
///
/// # Errors
/// When the file is no YAML, or has another form than the client gives it.
pub fn merge_remote(existing: Option<&str>, name: &str, url: &str) -> Result<String> {
    let text = existing.unwrap_or_default();
    let before = parse(text)?;
    let mut wanted = before.clone();
    let remote = json!({"addr": url, "auth_type": "tls", "protocol": "incus", "public": false});
    remotes(&mut wanted)?.insert(name.to_owned(), remote);
    if !wanted.contains_key(DEFAULT) {
        // Without it the client would say that there is none.
        wanted.insert(DEFAULT.to_owned(), json!(LOCAL));
        let local = json!({"addr": "unix://", "public": false});
        remotes(&mut wanted)?.entry(LOCAL).or_insert(local);
    }
    Ok(if wanted == before { text.to_owned() } else { write(wanted) })
}

/// Takes the remote of this name out of a user's file. The default remote is changed only if it was this one. A file without it comes
/// back as it was.
///
/// # Errors
/// When the file is no YAML, or has another form than the client gives it.
pub fn remove_remote(existing: &str, name: &str) -> Result<String> {
    let before = parse(existing)?;
    let mut wanted = before.clone();
    if wanted.contains_key(REMOTES) {
        remotes(&mut wanted)?.remove(name);
    }
    if wanted.get(DEFAULT).and_then(Value::as_str) == Some(name) {
        wanted.insert(DEFAULT.to_owned(), json!(LOCAL));
    }
    Ok(if wanted == before { existing.to_owned() } else { write(wanted) })
}

/// Whether a file says nothing that the client would not say by itself. Who made it may delete it.
///
/// # Errors
/// When the file is no YAML, or has another form than the client gives it.
pub fn has_no_remotes(text: &str) -> Result<bool> {
    let mut tree = parse(text)?;
    let only_local = remotes(&mut tree)?.keys().all(|name| name == LOCAL);
    Ok(only_local && tree.keys().all(|key| [REMOTES, DEFAULT].contains(&key.as_str())))
}

fn remotes(tree: &mut Map<String, Value>) -> Result<&mut Map<String, Value>> {
    let remotes = tree.entry(REMOTES).or_insert_with(|| json!({}));
    if remotes.is_null() {
        *remotes = json!({});
    }
    remotes.as_object_mut().ok_or_else(|| Error::RemotesForm(format!("`{REMOTES}` is no mapping")))
}

fn parse(text: &str) -> Result<Map<String, Value>> {
    let tree: yaml_serde::Value = yaml_serde::from_str(text).map_err(Error::RemotesSyntax)?;
    match serde_json::to_value(tree) {
        Ok(Value::Null) => Ok(Map::new()),
        Ok(Value::Object(tree)) => Ok(tree),
        Ok(_) => Err(Error::RemotesForm("it is no mapping".to_owned())),
        Err(error) => Err(Error::RemotesForm(error.to_string())),
    }
}

fn write(tree: Map<String, Value>) -> String {
    yaml_serde::to_string(&Value::Object(tree)).expect("JSON is YAML")
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "https://10.89.0.2:8443";

    #[test]
    fn a_remote_comes_and_goes_and_the_rest_stays() {
        let mine = "default-remote: mine\nremotes:\n  mine:\n    addr: https://a:8443\naliases:\n  ll: list\n";
        let with = merge_remote(Some(mine), "bivouac-demo", URL).unwrap();
        assert!(with.contains(URL) && with.contains("default-remote: mine"), "{with}");
        assert_eq!(merge_remote(Some(&with), "bivouac-demo", URL).unwrap(), with);
        let moved = merge_remote(Some(&with), "bivouac-demo", "https://10.90.0.2:8443").unwrap();
        assert!(moved.contains("10.90.0.2") && !moved.contains("10.89.0.2"));
        let without = remove_remote(&moved, "bivouac-demo").unwrap();
        assert_eq!(parse(&without).unwrap(), parse(mine).unwrap());
        assert_eq!(remove_remote(mine, "bivouac-demo").unwrap(), mine);
        assert!(!has_no_remotes(mine).unwrap());
    }

    #[test]
    fn a_file_that_was_made_for_it_is_of_no_use_afterwards() {
        let made = merge_remote(None, "bivouac-demo", URL).unwrap();
        insta::assert_snapshot!(made);
        assert!(!has_no_remotes(&made).unwrap());
        let chosen = made.replace("default-remote: local", "default-remote: bivouac-demo");
        for file in [made, chosen] {
            assert!(has_no_remotes(&remove_remote(&file, "bivouac-demo").unwrap()).unwrap());
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for text in ["- a", "remotes: 1", "a: [", "text"] {
            assert!(merge_remote(Some(text), "a", URL).is_err(), "{text}");
        }
        assert!(merge_remote(Some("remotes:\n"), "a", URL).unwrap().contains(URL));
    }
}
