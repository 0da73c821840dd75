//! Waiting for what cannot be waited on by an event.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Long enough for whatever is said to happen at once, on a machine that is busy with other things. It only ends what hangs.
pub const SOON: Duration = Duration::from_secs(180);

const INTERVAL: Duration = Duration::from_millis(100);

/// How many times slower than usual the machine may be: `$BIVOUAC_E2E_PATIENCE`, such as 10 for an emulated one, or 1.
pub(crate) fn patience() -> u32 {
    static PATIENCE: OnceLock<u32> = OnceLock::new();
    *PATIENCE.get_or_init(|| {
        let set = std::env::var("BIVOUAC_E2E_PATIENCE").ok();
        set.and_then(|times| times.parse().ok()).unwrap_or(1)
    })
}

/// Probes until `probe` gives a value. It says what it saw when that is not yet what is waited for.
///
/// # Panics
/// When `within` is over, with what was waited for and what was seen last.
#[track_caller]
pub fn wait_until<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> T {
    let within = within * patience();
    let deadline = Instant::now() + within;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if Instant::now() >= deadline => {
                panic!("waited {} s until {what}; last seen: {seen}", within.as_secs())
            }
            Err(_) => thread::sleep(INTERVAL),
        }
    }
}
