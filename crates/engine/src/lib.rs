//! Runs plans: events, cancellation, journal, the lifecycle verbs.
