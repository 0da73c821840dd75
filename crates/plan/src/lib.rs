//! Decides what would change, as data. Pure: the same values in, the same plan out. Carrying a plan out is the engine's work.
//!
//! ```text
//! Cluster, occupied networks, recorded Addresses --[assign_addresses]--> Addresses
//! Cluster, Addresses, Applied, Observed, Facts ----[plan_up]-----------> Plan { actions | refusals, notes }
//! Observed -----------------------------------------[plan_down]---------> Plan
//! ```
//!
//! A plan either changes something, or refuses and changes nothing. A plan of what is already there is empty.

mod action;
mod addresses;
mod changes;
mod disks;
mod down;
mod ground;
mod up;
mod versions;

pub use action::{Action, Plan};
pub use addresses::assign_addresses;
pub use changes::{Change, changes};
pub use disks::check as check_disks;
pub use down::plan_down;
pub use up::{UpRequest, joined, lives_on, note_of_minority, plan_up, refuse_no_keeper};
