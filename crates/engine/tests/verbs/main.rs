//! The verbs over the in-memory provider.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod bench;
mod certificates;
mod change;
mod fork;
mod founding;
mod killed;
mod lifecycle;
mod quorum;
mod record;
mod snapshot;
mod upgrade;
