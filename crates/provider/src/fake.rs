//! The in-memory provider.
