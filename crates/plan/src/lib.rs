//! Decides what would change, as data.
