//! How nodes reach registries: files that containerd reads at each pull, and the proxy of its environment.
//!
//! Credentials are a header of `hosts.toml`. containerd sends it to a registry that asks for a password, and to the token server of one that asks
//! for a token. The kubelet's ways know images only by their names, and so would give a mirror's password to the registry behind it; those of
//! containerd's own configuration are at their end.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bivouac_spec::Problem;
use bivouac_spec::cluster::{Credentials, Mirror, Proxy, Registry, Source};
use bivouac_spec::node::File;
use bivouac_spec::node::config::Environment;
use camino::Utf8PathBuf;

use super::image_cache::ImageCache;
use super::layout::Layout;
use super::places;
use super::sources::{Sources, look_up};

/// What containerd calls the folder for registries that have none.
const DEFAULT_FOLDER: &str = "_default";

/// The files of all registries.
pub(super) fn files(
    layout: &Layout<'_>,
    sources: &Sources,
    cache: Option<&ImageCache>,
) -> Result<Vec<File>, Problem> {
    let (mut files, registries) = (Vec::new(), &layout.settings.registries);
    for registry in registries {
        files.extend(registry_files(registry, sources, cache)?);
    }
    if let Some(cache) = cache
        && !registries.iter().any(|registry| registry.host == Registry::ALL)
    {
        let path = format!("{}/{DEFAULT_FOLDER}/hosts.toml", places::REGISTRIES);
        files.push(File::secret(path, cache.host()));
    }
    Ok(files)
}

fn registry_files(
    registry: &Registry,
    sources: &Sources,
    cache: Option<&ImageCache>,
) -> Result<Vec<File>, Problem> {
    let mut hosts = Hosts { registry, sources, files: Vec::new(), text: String::new() };
    // What belongs to no table comes first.
    hosts.server()?;
    if let Some(cache) = cache {
        hosts.text.push_str(&cache.host());
    }
    for (index, mirror) in registry.mirrors.iter().enumerate() {
        hosts.mirror(index, mirror)?;
    }
    if let Some(credentials) = &registry.credentials {
        hosts.header("header", credentials)?;
    }
    let Hosts { mut files, text, .. } = hosts;
    files.insert(0, File::secret(format!("{}/hosts.toml", folder(registry)), text));
    Ok(files)
}

fn folder(registry: &Registry) -> String {
    match registry.host.as_str() {
        Registry::ALL => format!("{}/{DEFAULT_FOLDER}", places::REGISTRIES),
        host => format!("{}/{host}", places::REGISTRIES),
    }
}

/// The file with the authorities of a registry.
pub(super) fn own_authorities(registry: &Registry) -> Utf8PathBuf {
    format!("{}/registry.pem", folder(registry)).into()
}

/// The file with the authorities of one of its mirrors.
pub(super) fn mirror_authorities(registry: &Registry, index: usize) -> Utf8PathBuf {
    format!("{}/mirror-{index}.pem", folder(registry)).into()
}

/// A `hosts.toml` that is being written.
struct Hosts<'a> {
    registry: &'a Registry,
    sources: &'a Sources,
    /// Those that it names.
    files: Vec<File>,
    text: String,
}

impl Hosts<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// The registry itself, which is asked last. containerd knows where it is, unless that is said.
    fn server(&mut self) -> Result<(), Problem> {
        let registry = self.registry;
        let host = &registry.host;
        if registry.only_mirrors {
            // Who can only take images is not asked for one.
            let server = if *host == Registry::ALL { "https://registry.invalid" } else { host };
            self.line(&format!("server = {}", quoted(server)));
            self.line("capabilities = [\"push\"]");
        } else if registry.insecure && *host != Registry::ALL && *host != Registry::HUB {
            // With HTTP and a setting for TLS, both are tried. The hub is at another name, which containerd knows as
            // long as nothing is said.
            self.line(&format!("server = {}", quoted(&format!("http://{host}"))));
        }
        self.access(registry.ca_file.as_ref(), registry.insecure, own_authorities(registry))
    }

    fn mirror(&mut self, index: usize, mirror: &Mirror) -> Result<(), Problem> {
        let url = mirror.url.trim_end_matches('/');
        let table = format!("host.{}", quoted(url));
        self.line(&format!("\n[{table}]"));
        self.line("capabilities = [\"pull\", \"resolve\"]");
        if is_whole(url) {
            self.line("override_path = true");
        }
        // With a setting for TLS, HTTP would be tried second.
        if url.starts_with("https:") {
            let file = mirror_authorities(self.registry, index);
            self.access(mirror.ca_file.as_ref(), mirror.insecure, file)?;
        }
        match &mirror.credentials {
            Some(credentials) => self.header(&format!("{table}.header"), credentials),
            None => Ok(()),
        }
    }

    fn access(
        &mut self,
        ca_file: Option<&Utf8PathBuf>,
        insecure: bool,
        file: Utf8PathBuf,
    ) -> Result<(), Problem> {
        if let Some(path) = ca_file {
            let content = look_up(self.sources, &Source::File(path.clone()))?;
            check_authorities(path, content)?;
            self.line(&format!("ca = {}", quoted(file.as_str())));
            self.files.push(File::public(file, content));
        }
        if insecure {
            self.line("skip_verify = true");
        }
        Ok(())
    }

    fn header(&mut self, table: &str, credentials: &Credentials) -> Result<(), Problem> {
        let value = authorization(credentials, self.sources)?;
        self.line(&format!("\n[{table}]"));
        // The key as Go writes it: containerd replaces it by the token then, and does not add that.
        self.line(&format!("Authorization = {}", quoted(&value)));
        Ok(())
    }
}

/// What a registry is told that asks for a password.
pub(super) fn authorization(
    credentials: &Credentials,
    sources: &Sources,
) -> Result<String, Problem> {
    let password = look_up(sources, &credentials.password)?;
    Ok(format!("Basic {}", STANDARD.encode(format!("{}:{password}", credentials.username))))
}

/// Where a mirror's API is.
pub(super) fn api(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if is_whole(url) { url.to_owned() } else { format!("{url}/v2") }
}

/// Whether a mirror's URL says where its API is: `v2` is a part of its path.
fn is_whole(url: &str) -> bool {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest);
    path.split('/').skip(1).any(|part| part == "v2")
}

/// Strings of JSON are strings of TOML.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// containerd pulls nothing at all with a file that is something else.
fn check_authorities(path: &Utf8PathBuf, content: &str) -> Result<(), Problem> {
    let refuse = |why: &str, help: &str| {
        let message = format!("the authorities' file {path} {why}");
        Err(Problem::usage("stack.kubernetes.bad_authorities", message).help(help))
    };
    if content.contains("PRIVATE KEY-----") {
        let help = "name a file with the certificate alone: nodes do not need the key";
        return refuse("holds a private key", help);
    }
    if !content.contains("-----BEGIN CERTIFICATE-----") {
        return refuse("has no certificate in PEM", "name a file that has one");
    }
    Ok(())
}

/// The environment of a program that is to go through the proxy.
pub(super) fn environment(layout: &Layout<'_>) -> Environment {
    let Some(proxy) = &layout.settings.proxy else { return Environment::new() };
    let set = |name: &str, value: &Option<String>| Some((name.to_owned(), value.clone()?));
    let mut environment: Environment =
        [set("HTTP_PROXY", &proxy.http), set("HTTPS_PROXY", &proxy.https)]
            .into_iter()
            .flatten()
            .collect();
    environment.insert("NO_PROXY".to_owned(), without_proxy(layout, proxy));
    environment
}

/// What the cluster file says, and what is the cluster's own.
fn without_proxy(layout: &Layout<'_>, proxy: &Proxy) -> String {
    let addresses = layout.addresses;
    let mut entries = proxy.no_proxy.clone();
    let networks = addresses.node_networks.iter().map(|own| own.network);
    let networks = networks.chain(addresses.pod_networks.iter().copied());
    let networks = networks.chain(addresses.service_networks.iter().copied());
    entries.extend(["localhost", "127.0.0.0/8", "::1"].map(str::to_owned));
    entries.extend(networks.map(|network| network.to_string()));
    entries.push(".svc".to_owned());
    entries.push(format!(".{}", layout.settings.domain));
    entries.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_v2_says_where_the_api_is() {
        for whole in ["https://a/v2", "https://a/v2/hub", "http://a:1/x/v2/y"] {
            assert!(is_whole(whole), "{whole}");
        }
        for part in ["https://a", "https://v2", "https://a/artifactory/api/docker/hub"] {
            assert!(!is_whole(part), "{part}");
        }
    }

    #[test]
    fn strings_of_toml_are_quoted() {
        let text = "a\"b\\c\u{1}";
        let table: toml::Table = format!("key = {}", quoted(text)).parse().unwrap();
        assert_eq!(table["key"].as_str(), Some(text));
    }

    #[test]
    fn files_that_are_no_authorities_are_refused() {
        let check = |content| check_authorities(&"/etc/ca.pem".into(), content);
        check("-----BEGIN CERTIFICATE-----\n").unwrap();
        assert!(check("").unwrap_err().message.contains("no certificate in PEM"));
        let both = "-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----\n";
        assert!(check(both).unwrap_err().message.contains("private key"));
    }
}
