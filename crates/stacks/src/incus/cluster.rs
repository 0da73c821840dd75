//! How a cluster is founded and joined. Everybody's certificate is known beforehand: the founder trusts those of the others, and they know
//! the one that it will show. Founders join one after another, each when the one before it says in the cluster that it has; whoever comes
//! later is made when the others are usable. Each task asks incusd what is done already, so it can be done at every start.

use std::collections::BTreeMap;

use bivouac_pki::Issued;
use bivouac_spec::Problem;
use bivouac_spec::node::{File, Task};
use serde_json::{Value, json};

use super::daemon::INCUSD;
use super::keys::Secrets;
use super::layout::{API_PORT, Layout, Member};
use super::places::{
    self, ASK, DATA, HOME, IMAGE, IMAGE_ALIAS, ITSELF, JOIN, JOINING_MARKER, OPTIONS, OWN, PRESEED,
    SEND, SOCKET, TRUST, USERS,
};
use super::preseed;
use super::units::task;

/// A task: the member is one of the cluster.
pub(super) const CLUSTER: &str = "cluster";
/// A task: there is an image to launch instances from.
pub(super) const IMAGE_TASK: &str = "image";
/// A task: others know this member's zone and labels.
const SELF_TASK: &str = "member";

/// The names of those who are trusted besides members.
const USER: &str = "bivouac";
const JOINER: &str = "bivouac-joiner";

const FOUND: &str = include_str!("scripts/found.sh");
const JOINING: &str = include_str!("scripts/join.sh");
const IMPORT: &str = include_str!("scripts/image.sh");
const TELL: &str = include_str!("scripts/self.sh");
const SENDING: &str = include_str!("scripts/send.sh");

/// What a member is known by, and what it needs to found or join the cluster.
pub(super) fn files(
    layout: &Layout<'_>,
    member: &Member,
    secrets: &Secrets,
) -> Result<Vec<File>, Problem> {
    let own = secrets.member(member)?;
    let mut files = vec![
        File::public(format!("{DATA}/server.crt"), &own.certificate),
        File::secret(format!("{DATA}/server.key"), own.key.expose()),
        File::directory(TRUST, 0o755),
        File::directory(JOIN, 0o755),
        File::public(SEND, SENDING),
    ];
    for other in layout.others(member) {
        let trust = trust(other, secrets.member(other)?);
        files.push(File::public(format!("{TRUST}/{}.json", other.name()), trust));
    }
    if layout.founds(member) {
        let (certificate, key) = places::CLUSTER;
        let text = |value: &serde_json::Value| format!("{value:#}\n");
        files.extend([
            File::public(certificate, &secrets.cluster.certificate),
            File::secret(key, secrets.cluster.key.expose()),
            File::public(format!("{USERS}/{USER}.crt"), &secrets.client.certificate),
            File::public(format!("{USERS}/{JOINER}.crt"), &secrets.joiner.certificate),
            File::secret(PRESEED, text(&preseed::preseed(layout, member))),
            File::secret(OPTIONS, text(&preseed::options(layout.settings))),
        ]);
        return Ok(files);
    }
    for other in layout.joins(member) {
        let request = preseed::join(layout, member, other, &secrets.cluster.certificate);
        files.push(File::public(format!("{JOIN}/{}.json", other.name()), format!("{request:#}\n")));
    }
    for client in [(ASK, &secrets.joiner), (ITSELF, own)] {
        files.extend(asking(layout, member, secrets, client));
    }
    files.push(File::public(OWN, trust(member, own)));
    Ok(files)
}

/// A client in a folder that is known by this certificate, and knows those who can be joined by what they will show.
fn asking(
    layout: &Layout<'_>,
    member: &Member,
    secrets: &Secrets,
    (folder, known_by): (&str, &Issued),
) -> Vec<File> {
    let remote = |other: &&Member| {
        let url = format!("https://{}:{API_PORT}", other.address);
        json!({"addr": url, "auth_type": "tls", "protocol": "incus", "public": false})
    };
    let others = layout.joins(member);
    let remotes: BTreeMap<&str, Value> =
        others.iter().map(|other| (other.name().as_str(), remote(other))).collect();
    let config = json!({"remotes": remotes});
    let mut files = vec![
        File::public(format!("{folder}/config.yml"), format!("{config:#}\n")),
        File::public(format!("{folder}/client.crt"), &known_by.certificate),
        File::secret(format!("{folder}/client.key"), known_by.key.expose()),
    ];
    files.extend(others.iter().map(|other| {
        let path = format!("{folder}/servercerts/{}.crt", other.name());
        File::public(path, &secrets.cluster.certificate)
    }));
    files
}

/// What incusd is asked, to trust another member.
fn trust(member: &Member, issued: &Issued) -> String {
    let lines = issued.certificate.lines().filter(|line| !line.starts_with("-----"));
    let certificate: String = lines.collect();
    let trust = json!({"type": "server", "name": member.name(), "certificate": certificate});
    format!("{trust:#}\n")
}

/// Zone and labels, where there are any. A zone is a failure domain: those who keep the database are spread over them.
fn known_of(member: &Member) -> Option<Task> {
    let (zone, labels) = (&member.spec.zone, &member.spec.labels);
    if zone.is_none() && labels.is_empty() {
        return None;
    }
    let labels: Vec<String> =
        labels.iter().map(|(key, value)| format!("user.{key}={value}")).collect();
    let mut arguments = vec![member.name().as_str(), zone.as_deref().unwrap_or_default()];
    arguments.extend(labels.iter().map(String::as_str));
    Some(task(SELF_TASK, &[CLUSTER], TELL, &arguments, &[]))
}

pub(super) fn tasks(layout: &Layout<'_>, member: &Member) -> Vec<Task> {
    let (mut tasks, name) = (Vec::new(), member.name().as_str());
    if layout.founds(member) {
        let (certificate, key) = places::CLUSTER;
        let driver = layout.settings.storage.driver.name();
        let mut arguments = vec![HOME, driver, PRESEED, certificate, key, TRUST, USERS, OPTIONS];
        arguments.extend([name, SEND, SOCKET]);
        tasks.push(task(CLUSTER, &[INCUSD], FOUND, &arguments, &[TRUST]));
        tasks.push(task(IMAGE_TASK, &[CLUSTER], IMPORT, &[IMAGE, IMAGE_ALIAS], &[]));
    } else {
        let before = layout.before(member).map_or("", |before| before.name().as_str());
        tasks.push(task(
            CLUSTER,
            &[INCUSD],
            JOINING,
            &[JOIN, name, before, JOINING_MARKER, OWN, INCUSD],
            &[],
        ));
    }
    tasks.extend(known_of(member));
    tasks
}
