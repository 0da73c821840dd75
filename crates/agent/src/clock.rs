//! Durations and moments as they are shown.

use std::time::Duration;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

/// Whole milliseconds.
pub(crate) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `400 ms`, `2 s`, `1.5 s`.
pub(crate) fn render(duration: Duration) -> String {
    let milliseconds = milliseconds(duration);
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        _ if milliseconds.is_multiple_of(1000) => format!("{} s", milliseconds / 1000),
        _ => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
    }
}

/// The second in which it is, as Kubernetes writes it: `2026-11-21T22:44:05Z`.
pub(crate) fn moment(timestamp: Timestamp) -> String {
    let rounding = TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Floor);
    timestamp.round(rounding).unwrap_or(timestamp).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let rendered = [0, 400, 2000, 1600].map(|ms| render(Duration::from_millis(ms)));
        assert_eq!(rendered, ["0 ms", "400 ms", "2 s", "1.6 s"]);
    }

    #[test]
    fn a_moment_is_never_after_itself() {
        let timestamp: Timestamp = "2026-11-21T22:44:05.999Z".parse().unwrap();
        assert_eq!(moment(timestamp), "2026-11-21T22:44:05Z");
    }
}
