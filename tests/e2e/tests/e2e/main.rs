//! End to end, through the binary: one module a scenario, each case over the settings that it is about.
//!
//! `cargo test -p bivouac-e2e -- docker/` runs the cases of one setting, `-- load` those of one scenario. They run one after another,
//! whatever `--test-threads` says: they look at the whole machine.

mod addons;
mod bench;
mod cache;
mod certificates;
mod change;
mod compose;
mod disks;
mod drain;
mod engine;
mod greedy;
mod healing;
mod incus;
mod incus_trouble;
mod killed;
mod life;
mod limits;
mod load;
mod load_balancer;
mod network;
mod nothing_left;
mod registries;
mod remote;
mod side_by_side;
mod snapshot;
mod test_cluster;
mod trouble;
mod upgrade;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::Instant;

use bivouac_e2e::{Case, Engine, Ground, Setting, Tally, say};
use libtest_mimic::{Arguments, Completion, Trial};

/// Quick ones first.
const CASES: &[&[Case]] = &[
    &trouble::CASES,
    &life::CASES,
    &limits::CASES,
    &disks::CASES,
    &network::CASES,
    &load::CASES,
    &load_balancer::CASES,
    &greedy::CASES,
    &healing::CASES,
    &change::CASES,
    &addons::CASES,
    &bench::CASES,
    &registries::CASES,
    &cache::CASES,
    &certificates::CASES,
    &drain::CASES,
    &upgrade::CASES,
    &killed::CASES,
    &snapshot::CASES,
    &incus::CASES,
    &incus_trouble::CASES,
    &side_by_side::CASES,
    &nothing_left::CASES,
    &test_cluster::CASES,
    &engine::CASES,
    &remote::CASES,
    &compose::CASES,
];

static TALLY: Tally = Tally::new();

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let cases = || CASES.iter().copied().flatten();
    let trials =
        Setting::ALL.into_iter().flat_map(|setting| cases().map(move |case| trial(setting, *case)));
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    say(&TALLY.to_string());
    // Its panic has said what stays.
    let stopped = catch_unwind(Engine::stop);
    if stopped.is_ok() { conclusion.exit_code() } else { ExitCode::FAILURE }
}

fn trial(setting: Setting, case: Case) -> Trial {
    let name = format!("{setting}/{}", case.name);
    Trial::ignorable_test(name.clone(), move || {
        if let Some(skip) = case.skip(setting) {
            TALLY.skipped(skip);
            return Ok(Completion::ignored_with(skip));
        }
        let started = Instant::now();
        let ground = Ground::new(setting);
        (case.run)(&ground);
        drop(ground);
        TALLY.ran(setting, started.elapsed());
        say(&format!("{name}: {:.1} s", started.elapsed().as_secs_f64()));
        Ok(Completion::Completed)
    })
}
