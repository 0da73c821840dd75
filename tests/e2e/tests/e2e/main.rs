//! End to end, through the binary: one module a scenario. Run with `--test-threads=1`: they look at the whole machine.

mod healing;
mod life;
mod load;
mod nothing_left;
mod side_by_side;
mod trouble;
