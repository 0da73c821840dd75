//! `bivouac service`: clusters at the start of this machine, by systemd.

use std::process::{Command, ExitCode};

use bivouac_spec::{Class, Problem, Problems};

use crate::args::{Global, Service, ServiceCommand};
use crate::{home, output};

/// Where the unit is put.
const UNIT: &str = "/etc/systemd/system/bivouac.service";
/// Is there where systemd runs the machine (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";

pub fn run(global: &Global, service: &Service) -> Result<ExitCode, Problems> {
    match &service.command {
        ServiceCommand::Install { dry_run: true } => say(&unit(global)?),
        ServiceCommand::Install { dry_run: false } => {
            check_booted()?;
            fs_err::write(UNIT, unit(global)?).map_err(|error| unwritable(&error))?;
            systemctl(&["daemon-reload"])?;
            systemctl(&["enable", "bivouac.service"])?;
            say("clusters will be started when this machine starts\n")
        }
        ServiceCommand::Uninstall => {
            check_booted()?;
            if !std::path::Path::new(UNIT).exists() {
                return say("nothing is installed\n");
            }
            systemctl(&["disable", "bivouac.service"])?;
            fs_err::remove_file(UNIT).map_err(|error| unwritable(&error))?;
            systemctl(&["daemon-reload"])?;
            say("clusters will not be started when this machine starts\n")
        }
    }
}

fn say(text: &str) -> Result<ExitCode, Problems> {
    output::raw(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// The unit: starts all clusters, and stops them in order when the machine stops. Its nodes are processes of it. systemd would end them with
/// the others when one cluster cannot be started, were it not told to leave all but its own command alone.
fn unit(global: &Global) -> Result<String, Problem> {
    let (binary, state, store) = (home::own_binary()?, &global.state_dir, &global.store);
    let cache = &global.image_cache;
    let bivouac = format!(
        "{binary} --state-dir {state} --store {store} --image-cache {cache} --progress lines"
    );
    Ok(format!(
        "[Unit]\n\
         Description=Clusters of bivouac\n\
         Wants=network-online.target\n\
         After=network-online.target docker.service podman.service\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         Delegate=yes\n\
         ExecStart={bivouac} start --all --no-kubeconfig\n\
         ExecStop={bivouac} stop --all\n\
         TimeoutStartSec=15min\n\
         TimeoutStopSec=2min\n\
         KillMode=process\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    ))
}

fn check_booted() -> Result<(), Problem> {
    if std::path::Path::new(BOOTED).exists() {
        return Ok(());
    }
    let message = "systemd does not run this machine";
    Err(Problem::new(Class::Unfit, "cli.no_systemd", message)
        .help("have your own init system run `bivouac start --all` when the machine starts"))
}

fn systemctl(arguments: &[&str]) -> Result<(), Problem> {
    let failed = |why: String| {
        let mut problem =
            Problem::failed("cli.systemctl", format!("`systemctl {}` failed", arguments.join(" ")));
        problem.causes.push(why);
        problem
    };
    let done = Command::new("systemctl")
        .args(arguments)
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if done.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&done.stderr).trim().to_owned()))
}

fn unwritable(error: &std::io::Error) -> Problem {
    Problem::failed("cli.service", format!("{UNIT} cannot be changed"))
        .because(error)
        .help("run it as root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_names_the_folders_that_were_asked_for() {
        let global = Global {
            state_dir: "/srv/bivouac".into(),
            store: "/srv/store".into(),
            image_cache: "/srv/cache".into(),
            progress: crate::args::ProgressStyle::Auto,
            color: false,
            docker: bivouac_providers::docker::EngineEnvironment::default(),
        };
        let unit = unit(&global).unwrap();
        let start = unit.lines().find(|line| line.starts_with("ExecStart=")).unwrap();
        assert!(start.ends_with(
            " --state-dir /srv/bivouac --store /srv/store --image-cache /srv/cache --progress lines start --all --no-kubeconfig"
        ));
    }
}
