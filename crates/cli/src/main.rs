//! The bivouac command: reads arguments, composes provider, stack and store for the engine, shows what happens, and turns how it
//! ended into an exit code.
//!
//! `main` is synchronous. The hidden commands, which enter or become a node's namespaces, run before any thread exists.

#![expect(unreachable_pub, reason = "nothing outside a binary can reach what it names")]

mod access;
mod agent;
mod args;
mod commands;
mod complete;
mod grounds;
mod home;
mod images;
mod output;
mod progress;
mod report;
mod selection;
mod signals;
mod sources;

use std::process::ExitCode;

use bivouac_spec::Problems;
use clap::Parser;

use crate::args::{Arguments, Command, Global};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().collect();
    if let Some(code) = bivouac_providers::dispatch(&arguments) {
        return code;
    }
    if arguments.get(1).is_some_and(|argument| argument == "agent") {
        return agent::main();
    }
    clap_complete::CompleteEnv::with_factory(args::command).complete();
    let arguments = Arguments::parse();
    let global = match home::global(&arguments.global) {
        Ok(global) => global,
        Err(problem) => return report::problems(&problem.into(), home::color()),
    };
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let problem = bivouac_spec::Problem::from_error("cli.runtime", &error);
                return report::problems(&problem.into(), global.color);
            }
        };
    let outcome = runtime.block_on(run(&global, &arguments.command));
    // A reader of standard input may still be blocked; nothing else is left to wait for.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(problems) => report::problems(&problems, global.color),
    }
}

async fn run(global: &Global, command: &Command) -> Result<ExitCode, Problems> {
    match command {
        Command::Up(up) => commands::up::run(global, up).await,
        Command::Plan(plan) => commands::plan::run(global, plan).await,
        Command::Down(down) => commands::down::run(global, down).await,
        Command::Stop(stop) => commands::stop::run(global, stop).await,
        Command::Start(start) => commands::stop::start(global, start).await,
        Command::Restart(restart) => commands::stop::restart(global, restart).await,
        Command::Node(node) => commands::node::run(global, node).await,
        Command::Upgrade(upgrade) => commands::upgrade::run(global, upgrade).await,
        Command::Snapshot(snapshot) => commands::snapshot::run(global, snapshot).await,
        Command::Fork(fork) => commands::snapshot::fork(global, fork).await,
        Command::Service(service) => commands::service::run(global, service),
        Command::Status(status) => commands::status::run(global, status).await,
        Command::List(list) => commands::list::run(global, list).await,
        Command::Kubeconfig(kubeconfig) => commands::kubeconfig::run(global, kubeconfig).await,
        Command::Kubectl(kubectl) => commands::kubectl::run(global, kubectl).await,
        Command::Incus(incus) => commands::incus::run(global, incus).await,
        Command::Exec(exec) => commands::exec::run(global, exec).await,
        Command::Logs(logs) => commands::logs::run(global, logs).await,
        Command::Events(events) => commands::events::run(global, events).await,
        Command::Load(load) => commands::load::run(global, load).await,
        Command::Export(export) => commands::export::run(global, export).await,
        Command::Doctor(doctor) => commands::doctor::run(global, doctor).await,
        Command::Image(image) => commands::image::run(global, image).await,
        Command::Bench(bench) => commands::bench::run(global, bench).await,
        Command::Init(init) => commands::documents::init(init),
        Command::Reference => commands::documents::reference(),
        Command::Schema => commands::documents::schema(),
        Command::Completion(completion) => commands::documents::completion(completion),
        Command::Version(version) => commands::documents::version(version),
    }
}
