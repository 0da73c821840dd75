//! `soak [PROVIDER [COUNT]]`: makes and removes a cluster again and again, and prints a table in Markdown.

use std::io::Write as _;
use std::process::ExitCode;

use bivouac_e2e::{Engine, Ground, Provider, Setting, Soak, say};

const COUNT: usize = 50;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let provider = match words.next().as_deref() {
        None | Some("linux") => Provider::Linux,
        Some("docker") => Provider::Docker,
        Some(other) => {
            say(&format!("no such provider: {other}; say linux or docker"));
            return ExitCode::from(2);
        }
    };
    let Ok(count) = words.next().map_or(Ok(COUNT), |word| word.parse()) else {
        say("the count is no number");
        return ExitCode::from(2);
    };
    let soak = Soak::run(&Ground::new(Setting::of(provider)), count);
    Engine::stop();
    let written = write!(std::io::stdout(), "{soak}");
    if written.is_ok() && soak.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
