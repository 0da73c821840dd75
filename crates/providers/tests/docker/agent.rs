//! What providers ask of the agent over a connection: the real code, in this binary.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use bivouac_agent::remote::{self, ExecRequest, LogRequest};
use bivouac_spec::NodeConfig;
use bivouac_spec::node::{FileKind, paths};

/// Runs `bivouac agent exec|put|get|logs`, and an `apply` that is about files only. `run` and `status` are those of
/// the tools.
pub(crate) fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let arguments: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    let [program, "agent", verb, rest @ ..] = &arguments[..] else { return None };
    if !program.ends_with("/bivouac") {
        return None;
    }
    match (*verb, rest) {
        ("exec", options) => Some(exec(options)),
        ("put", [path, mode]) => {
            Some(remote::put((*path).into(), u32::from_str_radix(mode, 8).unwrap()))
        }
        ("get", [path]) => Some(remote::get((*path).into())),
        ("logs", options) => Some(logs(options)),
        ("apply", []) => Some(apply()),
        _ => None,
    }
}

fn apply() -> ExitCode {
    let config: NodeConfig =
        serde_json::from_slice(&std::fs::read(paths::CONFIG).unwrap()).unwrap();
    if config.modules.iter().any(|module| module == REFUSED) {
        std::io::stderr().write_all(b"it is refused\n").unwrap();
        return ExitCode::FAILURE;
    }
    for file in config.files {
        if let FileKind::Regular(content) = file.kind {
            std::fs::write(file.path, content.0).unwrap();
        }
    }
    ExitCode::SUCCESS
}

/// A module that keeps a config from being applied.
pub(crate) const REFUSED: &str = "refused";

fn exec(options: &[&str]) -> ExitCode {
    let mut request = ExecRequest::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--no-input" => request.no_input = true,
            "--inherit" => request.inherit = true,
            "--env" => {
                let (name, value) = options.next().unwrap().split_once('=').unwrap();
                request.environment.insert(name.to_owned(), value.to_owned());
            }
            "--" => break,
            other => panic!("{other}"),
        }
    }
    request.command = options.map(ToString::to_string).collect();
    remote::exec(&request)
}

fn logs(options: &[&str]) -> ExitCode {
    let mut request = LogRequest::default();
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match *option {
            "--tail" => request.tail = Some(options.next().unwrap().parse().unwrap()),
            "--follow" => request.follow = true,
            service => request.service = Some(service.to_owned()),
        }
    }
    remote::logs(paths::LOGS.into(), &request)
}
