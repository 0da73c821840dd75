//! The port that every ground implements, and the conformance suite for it.
