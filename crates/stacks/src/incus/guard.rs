//! What watches over a member: see the agent's own `guard`.

use bivouac_spec::node::{Service, paths};

use super::cluster::CLUSTER;
use super::daemon::INCUSD;
use super::layout::{Layout, Member};
use super::places::SOCKET;
use super::units::{names, service};

const GUARD: &str = "guard";

pub(super) fn service_of(layout: &Layout<'_>, member: &Member) -> Option<Service> {
    let (memory, health) = (layout.settings.guard.memory, layout.settings.guard.health);
    let mut command: Vec<String> = [paths::AGENT, "agent", "guard"].map(str::to_owned).into();
    let mut flag = |name: &str, value: &dyn std::fmt::Display| {
        command.extend([format!("--{name}"), value.to_string()]);
    };
    flag("socket", &SOCKET);
    flag("service", &INCUSD);
    flag("member", member.name());
    flag("position", &layout.position(member));
    flag("members", &layout.members.len());
    if memory.interval.0 > 0 {
        flag("memory-interval", &memory.interval);
        flag("memory-minimum", &(memory.minimum.0 >> 20));
        flag("memory-grace", &memory.grace);
    }
    if health.interval.0 > 0 {
        flag("health-interval", &health.interval);
        flag("health-timeout", &health.timeout);
        flag("health-failures", &health.failures);
        flag("health-lenience", &health.lenience);
    }
    if memory.interval.0 == 0 && health.interval.0 == 0 {
        return None;
    }
    Some(Service {
        after: names(&[CLUSTER]),
        oom_score: Some(-950),
        ..service(GUARD, command, None)
    })
}
