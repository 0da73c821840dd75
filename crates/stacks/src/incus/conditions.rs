//! When a member is usable. Names are asked on every member, because that is what a user's instance there will do; the rest is the
//! cluster's and asked once.

use bivouac_spec::cluster::Incus;
use bivouac_spec::node::{Check, Condition, Dns, Probe, Vantage};
use bivouac_spec::quantity::Span;

use super::cluster::{CLUSTER, IMAGE_TASK};
use super::lan::{DOMAIN, LEASES_SERVICE, NAMES_SERVICE};
use super::layout::{Layout, Member};
use super::places::IMAGE_ALIAS;
use super::units::{names, shell};

/// A member that was evacuated by a person is one all the same.
const MEMBERS: &str = r#"online=$(/usr/bin/incus cluster list --format=csv --columns=ns | grep -cE ',(ONLINE|EVACUATED)$')
[ "$online" -ge "$1" ] || { echo "$online of $1 members are online" >&2; exit 1; }"#;

const POOL: &str =
    r#"/usr/bin/incus query "/1.0/storage-pools/$1" | grep -q '"status": "Created"'"#;

const IMAGE: &str = r#"exec /usr/bin/incus query "/1.0/images/aliases/$1""#;

/// A client is a process of its own.
const INTERVAL: Span = Span::millis(200);

/// What must hold.
pub(super) fn conditions(layout: &Layout<'_>, member: &Member) -> Vec<Condition> {
    let mut conditions = vec![names_answer(layout, member)];
    if layout.is_first(member) {
        let count = layout.members.len().to_string();
        conditions.extend([
            ask("all members are online", &[CLUSTER], MEMBERS, &count),
            ask("instances can be stored", &[CLUSTER], POOL, Incus::DEFAULT),
        ]);
    }
    if layout.founds(member) {
        conditions.push(ask("there is an image for instances", &[IMAGE_TASK], IMAGE, IMAGE_ALIAS));
    }
    conditions
}

/// The next member's name, so that all of them together ask about everyone.
fn names_answer(layout: &Layout<'_>, member: &Member) -> Condition {
    let next = (layout.position(member) + 1) % layout.members.len();
    let check = Check::Dns(Dns {
        server: (member.gateway(), 53).into(),
        name: format!("{}.{DOMAIN}", layout.members[next].name()),
        from: Vantage::Node,
    });
    Condition {
        name: "instances find each other by name".to_owned(),
        after: names(&[LEASES_SERVICE, NAMES_SERVICE]),
        probe: Probe::new(check),
    }
}

fn ask(name: &str, after: &[&str], script: &str, argument: &str) -> Condition {
    let check = Check::Exec(shell("ask", script, &[argument]));
    let mut probe = Probe::new(check).every(INTERVAL);
    probe.timeout = Span::seconds(10);
    Condition { name: name.to_owned(), after: names(after), probe }
}
