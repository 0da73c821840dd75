//! Whole operations on a store of the test's own. Making layers keeps owners and devices, so these tests run as root.

#![expect(clippy::unwrap_used, reason = "a test ends where something fails")]

mod archives;
mod builds;
mod oversight;
mod samples;
mod stacks;
mod world;
