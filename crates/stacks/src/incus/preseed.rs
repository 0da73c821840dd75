//! What a cluster is founded with. Lists are merged by the names of what is in them: a person's profile `default` adds to the built-in
//! one and does not take its place.

use std::collections::BTreeMap;

use bivouac_spec::cluster::{Incus, InstanceProfile, StorageDriver};
use serde_json::{Value, json};

use super::lan::BRIDGE;
use super::layout::{API_PORT, Layout, Member};

/// What `incus admin init --preseed` is given by the first member.
pub(super) fn preseed(layout: &Layout<'_>, member: &Member) -> Value {
    let own = format!("{}:{API_PORT}", member.address);
    let storage = layout.settings.storage;
    json!({
        "config": {"core.https_address": &own},
        "storage_pools": [{
            "name": Incus::DEFAULT,
            "driver": storage.driver.name(),
            "config": pool_config(layout.settings),
        }],
        "profiles": profiles(layout.settings),
        "cluster": {"enabled": true, "server_name": member.name(), "server_address": own},
    })
}

/// What is asked of a member that joins, at another.
pub(super) fn join(
    layout: &Layout<'_>,
    member: &Member,
    other: &Member,
    certificate: &str,
) -> Value {
    let config = pool_config(layout.settings);
    let config = config.iter().map(|(key, value)| {
        json!({"entity": "storage-pool", "name": Incus::DEFAULT, "key": key, "value": value})
    });
    json!({
        "enabled": true,
        "server_name": member.name(),
        "server_address": format!("{}:{API_PORT}", member.address),
        "cluster_address": format!("{}:{API_PORT}", other.address),
        "cluster_certificate": certificate,
        "member_config": config.collect::<Vec<_>>(),
    })
}

/// Options of the servers. They are set when the cluster is there: incusd 6.0 does not bear some of them before.
pub(super) fn options(settings: &Incus) -> Value {
    let mut options: BTreeMap<&str, &str> = BTreeMap::from([
        ("images.auto_update_cached", "true"),
        ("images.auto_update_interval", "6"),
        ("images.remote_cache_expiry", "0"),
        // Every member has every image, so that a launch waits for none.
        ("cluster.images_minimal_replica", "-1"),
        // A member that is lost is known to be, as soon as incusd lets one say.
        ("cluster.offline_threshold", "11"),
        // They are set once. What a person sets later stays, whoever is the first member then.
        ("user.bivouac.founded", "true"),
    ]);
    options.extend(settings.config.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    json!({"config": options})
}

/// What each member's part of the pool is made with.
fn pool_config(settings: &Incus) -> BTreeMap<&'static str, String> {
    match (settings.storage.driver, settings.storage.size) {
        (StorageDriver::Dir, _) | (_, None) => BTreeMap::new(),
        (_, Some(size)) => [("size", size.0.to_string())].into(),
    }
}

fn profiles(settings: &Incus) -> Vec<InstanceProfile> {
    let mut profiles = vec![built_in(settings)];
    for asked in &settings.profiles {
        match profiles.iter_mut().find(|profile| profile.name == asked.name) {
            Some(profile) => add(profile, asked),
            None => profiles.push(asked.clone()),
        }
    }
    profiles
}

fn add(profile: &mut InstanceProfile, asked: &InstanceProfile) {
    if !asked.description.is_empty() {
        profile.description.clone_from(&asked.description);
    }
    profile.config.extend(asked.config.clone());
    for (name, device) in &asked.devices {
        profile.devices.entry(name.clone()).or_default().extend(device.clone());
    }
}

fn built_in(settings: &Incus) -> InstanceProfile {
    let map = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
        entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let mtu = settings.network.mtu.to_string();
    let root = map(&[("type", "disk"), ("path", "/"), ("pool", Incus::DEFAULT)]);
    let interface = map(&[
        ("type", "nic"),
        ("nictype", "bridged"),
        ("parent", BRIDGE),
        ("name", "eth0"),
        ("mtu", &mtu),
    ]);
    InstanceProfile {
        name: Incus::DEFAULT.to_owned(),
        description: String::new(),
        // A node that stops waits no longer for its instances than this.
        config: map(&[("boot.host_shutdown_timeout", "10")]),
        devices: [("root".to_owned(), root), ("eth0".to_owned(), interface)].into(),
    }
}
