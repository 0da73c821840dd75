//! Real nodes on a container engine: that of `$DOCKER_HOST`, or the machine's, or a `dockerd` of the tests' own. Needs root; everything
//! is removed again, also after a failure.
//!
//! A test of its own main: its binary is every program of a node, and the agent too.
#![expect(clippy::unwrap_used, reason = "a test")]

mod agent;
mod cases;
mod changes;
mod families;
mod faults;
mod ground;
mod small;
mod stand_in;
#[path = "../linux/tool.rs"]
mod tool;

use std::process::ExitCode;

use bivouac_e2e::Engine;
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = agent::run(&arguments).or_else(|| tool::run(&arguments)) {
        return code;
    }
    let mut options = Arguments::from_args();
    // Nothing is started only to list the cases.
    let foreign = !options.list && !Engine::shared().is_own();
    let trials = cases::ALL.iter().map(|(name, case)| {
        let trial = Trial::test(*name, move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(case());
            Ok(())
        });
        let ignored = match *name {
            cases::RESTART => foreign,
            name if name.contains(cases::COMPOSE) => !options.list && !ground::has_compose(),
            _ => false,
        };
        trial.with_ignored_flag(ignored)
    });
    // One after another: the engine is stopped and its images are removed under way.
    options.test_threads = Some(1);
    let conclusion = libtest_mimic::run(&options, trials.collect());
    if !options.list {
        Engine::stop();
    }
    conclusion.exit_code()
}
