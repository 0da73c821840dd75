//! The verbs over the in-memory provider.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod bench;
mod change;
mod lifecycle;
mod record;
mod snapshot;
mod upgrade;
