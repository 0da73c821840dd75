//! What a run came to: what each setting took, and what was skipped for which reason.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::{Setting, Skip};

/// Filled by the cases of a run.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    settings: BTreeMap<String, (u32, Duration)>,
    skips: BTreeMap<String, u32>,
}

impl Tally {
    /// A tally of nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Counted { settings: BTreeMap::new(), skips: BTreeMap::new() }))
    }

    /// A case ran over a setting.
    pub fn ran(&self, setting: Setting, took: Duration) {
        let mut counted = self.counted();
        let (cases, total) = counted.settings.entry(setting.to_string()).or_default();
        *cases += 1;
        *total += took;
    }

    /// A case did not run over a setting.
    pub fn skipped(&self, skip: Skip) {
        *self.counted().skips.entry(skip.to_string()).or_default() += 1;
    }

    fn counted(&self) -> std::sync::MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = self.counted();
        for (setting, (cases, took)) in &counted.settings {
            writeln!(f, "{setting}: {cases} cases in {} s", took.as_secs())?;
        }
        for (skip, cases) in &counted.skips {
            writeln!(f, "not run over a setting: {cases} cases, {skip}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Provider;

    #[test]
    fn what_ran_and_what_did_not_is_counted() {
        let tally = Tally::new();
        let linux = Setting::of(Provider::Linux);
        for _ in 0..2 {
            tally.ran(linux, Duration::from_secs(3));
            tally.skipped(Skip::AnyGround);
        }
        assert_eq!(
            tally.to_string(),
            "linux: 2 cases in 6 s\nnot run over a setting: 2 cases, it is the same on every ground\n"
        );
    }
}
