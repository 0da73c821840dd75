//! Real nodes on this machine's kernel. Needs root and the `nft` command; everything is removed again, also after a failure.
//!
//! A test of its own main: nodes are made by processes that are started from this very binary, and its programs are this binary
//! too.
#![expect(clippy::unwrap_used, reason = "a test")]

mod cases;
mod changes;
mod disks;
mod families;
mod ground;
mod passage;
mod ports;
mod tool;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(code) = bivouac_providers::linux::dispatch(std::env::args_os()) {
        return code;
    }
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = tool::run(&arguments) {
        return code;
    }
    let trials = cases::ALL.iter().map(|(name, case)| {
        Trial::test(*name, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(case());
            Ok(())
        })
    });
    let mut options = Arguments::from_args();
    // One after another: what clusters share on the host, such as forwarding, is part of what is looked at.
    options.test_threads = Some(1);
    libtest_mimic::run(&options, trials.collect()).exit_code()
}
