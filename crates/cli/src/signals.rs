//! Ctrl-C: once stops cleanly, twice at once.

use std::io::Write;

use bivouac_spec::Class;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT or SIGTERM cancels. The second ends the process.
pub fn cancellation() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        for attempt in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if attempt > 0 {
                std::process::exit(Class::Interrupted.exit_code().into());
            }
            let _ = writeln!(std::io::stderr(), "\nstopping; press Ctrl-C again to stop at once");
            cancel.cancel();
        }
    });
    token
}
