//! Following a list of objects in the API: the list first, then each change of it, and the list again when a change was missed.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bivouac_spec::Problem;
use serde_json::Value;

use super::api::Api;
use super::object::{Object, key};
use super::{Log, spawn};

/// Between two tries when the API gives no answer.
const AGAIN: Duration = Duration::from_millis(500);

/// So many answers may be bad before that is said.
const PATIENCE: u32 = 10;

/// News of a list.
#[derive(Debug)]
pub(super) enum News<T> {
    /// All there is.
    All(BTreeMap<String, T>),
    /// One that is there, new or changed, or is not there any more, or not of interest.
    One(String, Option<T>),
}

impl<T: PartialEq> News<T> {
    /// Brings the objects up to date. Says whether anything is different.
    pub(super) fn apply(self, objects: &mut Option<BTreeMap<String, T>>) -> bool {
        match self {
            Self::All(all) => {
                let differs = objects.as_ref() != Some(&all);
                *objects = Some(all);
                differs
            }
            Self::One(key, Some(object)) => {
                let known = objects.get_or_insert_default();
                let differs = known.get(&key) != Some(&object);
                known.insert(key, object);
                differs
            }
            Self::One(key, None) => objects.get_or_insert_default().remove(&key).is_some(),
        }
    }
}

/// Ends a watch soon after it is dropped.
pub(super) struct Watch(Arc<AtomicBool>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Follows the objects at a path. `tell` says whether anybody still listens.
pub(super) fn watch<T: Object>(
    api: &Api,
    path: String,
    log: &Log,
    tell: impl Fn(News<T>) -> bool + Send + 'static,
) -> Result<Watch, Problem> {
    let ended = Arc::new(AtomicBool::new(false));
    let watch = Watch(Arc::clone(&ended));
    let (api, log) = (api.clone(), Arc::clone(log));
    spawn("watch", move || {
        let mut misses = 0_u32;
        let heard = |news| !ended.load(Ordering::Relaxed) && tell(news);
        while !ended.load(Ordering::Relaxed) {
            match follow(&api, &path, &ended, &heard) {
                Ok(()) => misses = 0,
                // Said once, however long it lasts, and not at all when it is soon over: the rights may be on their way.
                Err(seen) => {
                    misses = misses.saturating_add(1);
                    if misses == PATIENCE {
                        log(&format!("{path}: {seen}"));
                    }
                }
            }
            std::thread::sleep(AGAIN);
        }
    })?;
    Ok(watch)
}

/// Follows from the list on until a change is missed, or nobody listens. An error when there is no list.
fn follow<T: Object>(
    api: &Api,
    path: &str,
    ended: &AtomicBool,
    heard: &dyn Fn(News<T>) -> bool,
) -> Result<(), String> {
    let (items, mut version) = api.list(path)?;
    let all = items.iter().filter_map(|one| Some((key(one), T::read(one)?)));
    if !heard(News::All(all.collect())) {
        return Ok(());
    }
    let watcher = api.watcher()?;
    // A watch that ends is normal: it goes on where it was.
    while let Ok(lines) = api.watch(&watcher, path, &version) {
        let before = version.clone();
        for line in lines.split(b'\n') {
            let Ok(line) = line else { break };
            let Some(change) = Change::read(&line) else { return Ok(()) };
            version = change.version;
            let goes_on = heard_of(&change.kind, &change.object, heard);
            // A watch in which nothing but bookmarks come ends with them.
            if !goes_on || ended.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        // One that says nothing is asked again in a while.
        if version == before {
            std::thread::sleep(AGAIN);
        }
    }
    Ok(())
}

fn heard_of<T: Object>(kind: &str, object: &Value, heard: &dyn Fn(News<T>) -> bool) -> bool {
    match kind {
        "BOOKMARK" => true,
        "DELETED" => heard(News::One(key(object), None)),
        _ => heard(News::One(key(object), T::read(object))),
    }
}

struct Change {
    kind: String,
    object: Value,
    version: String,
}

impl Change {
    /// None for what is no change: what came before is not known any more.
    fn read(line: &[u8]) -> Option<Self> {
        let mut change: Value = serde_json::from_slice(line).ok()?;
        let kind = change["type"].as_str()?.to_owned();
        let object = change["object"].take();
        let version = object.pointer("/metadata/resourceVersion")?.as_str()?.to_owned();
        (kind != "ERROR").then_some(Self { kind, object, version })
    }
}
