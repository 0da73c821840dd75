//! What tests of namespaces share: a thread of its own, which takes its namespaces with it when it ends.

use crate::namespace::{Namespace, unshare};

/// Runs the test in a fresh thread and hands its result (or panic) back.
pub(crate) fn in_thread<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    match std::thread::spawn(test).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs the test in a thread with network and mount namespaces of its own; mounts made there stay there.
pub(crate) fn isolated<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    in_thread(|| {
        unshare(&[Namespace::Network, Namespace::Mount]).unwrap();
        crate::mount::set_propagation("/", crate::mount::Propagation::Private, true).unwrap();
        test()
    })
}
