//! Where this process changes files of its own. A test ends it there, as a signal would.

use std::cell::RefCell;
use std::rc::Rc;

use camino::Utf8Path;

type Watch = Rc<dyn Fn(&Utf8Path)>;

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Has this called on this thread before each change of a file, and after it. For tests: nothing else sets it.
#[doc(hidden)]
pub fn watch_writes(watch: Option<Watch>) {
    WATCH.set(watch);
}

/// Changes a file, or removes it.
pub(crate) fn write<T>(path: &Utf8Path, change: impl FnOnce() -> T) -> T {
    reached(path);
    let done = change();
    reached(path);
    done
}

fn reached(path: &Utf8Path) {
    // It may not come back.
    let watch = WATCH.with_borrow(Clone::clone);
    if let Some(watch) = watch {
        watch(path);
    }
}
