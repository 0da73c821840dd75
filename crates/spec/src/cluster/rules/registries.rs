//! Rules for registries, their mirrors and the proxy.

use std::collections::BTreeSet;

use url::Url;

use super::Finding;
use crate::cluster::check::listed;
use crate::cluster::path::{field, item};
use crate::cluster::{Credentials, Kubernetes, Mirror, Proxy, Registry, Source};
use crate::quantity::Bytes;

const KUBERNETES: &str = "spec.stack.kubernetes";

/// Many images have layers of some hundred megabytes.
const SMALLEST_CACHE: Bytes = Bytes(1 << 30);

/// Names under which people know Docker's registry. Images begin with another.
const DOCKER: [&str; 4] =
    ["index.docker.io", "registry-1.docker.io", "hub.docker.com", "registry.hub.docker.com"];

pub(super) fn check(kubernetes: &Kubernetes, findings: &mut Vec<Finding>) {
    let list = field(KUBERNETES, "registries");
    let mut hosts = BTreeSet::new();
    for (index, registry) in kubernetes.registries.iter().enumerate() {
        let path = item(&list, index);
        check_registry(registry, &path, findings);
        if !hosts.insert(&registry.host) {
            let message = format!("registry `{}` is there twice", registry.host);
            let help = "Put its mirrors below the first one.";
            let finding = Finding::new(&field(&path, "host"), "spec.duplicate_registry", message);
            findings.push(finding.scope(&list).help(help));
        }
    }
    if let Some(proxy) = &kubernetes.proxy {
        check_proxy(proxy, findings);
    }
    if kubernetes.image_cache.is_some_and(|cache| cache.size < SMALLEST_CACHE) {
        let path = field(&field(KUBERNETES, "imageCache"), "size");
        let message = "hardly an image would have room in it";
        let finding = Finding::new(&path, "spec.small_image_cache", message);
        findings.push(finding.help(format!("Write {SMALLEST_CACHE} or more.")));
    }
}

fn check_registry(registry: &Registry, path: &str, findings: &mut Vec<Finding>) {
    check_host(&registry.host, &field(path, "host"), findings);
    if registry.host == Registry::ALL && registry.credentials.is_some() {
        let message = "a password for every registry there is would be given away";
        let help = "Put it below a mirror, or below the registry that it is for.";
        let finding =
            Finding::new(&field(path, "credentials"), "spec.credentials_for_all", message);
        findings.push(finding.scope(path).help(help));
    }
    check_access(registry.credentials.as_ref(), registry.ca_file.as_deref(), path, findings);
    if registry.only_mirrors && registry.mirrors.is_empty() {
        let message = format!("no image of `{}` could be had: it has no mirrors", registry.host);
        let help = "Add `mirrors:`, or remove the field.";
        let finding = Finding::new(&field(path, "onlyMirrors"), "spec.no_mirrors", message);
        findings.push(finding.scope(path).help(help));
    }
    let (list, mut urls) = (field(path, "mirrors"), BTreeSet::new());
    for (index, mirror) in registry.mirrors.iter().enumerate() {
        let path = item(&list, index);
        check_mirror(mirror, &path, findings);
        if !urls.insert(&mirror.url) {
            let message = format!("mirror `{}` is there twice", mirror.url);
            let finding = Finding::new(&field(&path, "url"), "spec.duplicate_mirror", message);
            findings.push(finding.scope(&list).help("Remove one of the two."));
        }
    }
}

fn check_host(host: &str, path: &str, findings: &mut Vec<Finding>) {
    let refuse = |message: String, help: String| {
        Finding::new(path, "spec.invalid_registry", message).help(help)
    };
    if host == Registry::ALL {
        return;
    }
    if DOCKER.contains(&host) {
        let message = format!("no name of an image begins with `{host}`");
        findings.push(refuse(message, "Write `docker.io`.".to_owned()));
        return;
    }
    let url = Url::parse(&format!("https://{host}/"));
    let fits = |url: &Url| url.path() == "/" && url.query().is_none() && url.username().is_empty();
    let characters =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if host.chars().all(characters) && url.is_ok_and(|url| fits(&url)) {
        return;
    }
    let message = format!("`{host}` is no registry as names of images begin with it");
    let help = "Write its name, and its port if it has one: `registry.example.com:5000`.";
    findings.push(refuse(message, help.to_owned()));
}

fn check_mirror(mirror: &Mirror, path: &str, findings: &mut Vec<Finding>) {
    let finding = |problem: Unfit| {
        let help = match problem.code {
            CREDENTIALS => "Write the user and where the password is found below `credentials`.",
            _ => "Write it like `https://mirror.example.com:5000`.",
        };
        Finding::new(&field(path, "url"), problem.code, problem.message).help(help)
    };
    findings.extend(check_url(&mirror.url, &["https", "http"]).err().map(finding));
    check_access(mirror.credentials.as_ref(), mirror.ca_file.as_deref(), path, findings);
}

fn check_access(
    credentials: Option<&Credentials>,
    ca_file: Option<&camino::Utf8Path>,
    path: &str,
    findings: &mut Vec<Finding>,
) {
    if ca_file.is_some_and(|file| file.as_str().is_empty()) {
        let message = "the path of a file must not be empty";
        let finding = Finding::new(&field(path, "caFile"), "spec.empty_path", message);
        findings.push(finding.help("Write the path of a file with certificates, or remove it."));
    }
    let Some(Credentials { username, password }) = credentials else { return };
    let path = field(path, "credentials");
    if username.is_empty() || username.chars().any(|c| c == ':' || c.is_control()) {
        let message = "a name of a user is not empty and has no `:`";
        let finding = Finding::new(&field(&path, "username"), "spec.invalid_username", message);
        findings.push(finding.help("Write the name alone; the password goes below `password`."));
    }
    let (word, given) = match password {
        Source::File(path) => ("file", !path.as_str().is_empty()),
        Source::Environment(name) => {
            ("environment", !name.is_empty() && !name.contains(['=', '\0', '$']))
        }
    };
    if !given {
        let path = field(&field(&path, "password"), word);
        let message = "it does not say where the password is found";
        let help = "Write the path of a file, or the name of a variable without `$`.";
        findings.push(Finding::new(&path, "spec.invalid_source", message).help(help));
    }
}

fn check_proxy(proxy: &Proxy, findings: &mut Vec<Finding>) {
    let path = field(KUBERNETES, "proxy");
    if proxy.http.is_none() && proxy.https.is_none() {
        let message = "it names no proxy";
        let finding = Finding::new(&path, "spec.no_proxy", message);
        findings.push(finding.help("Add `http:` or `https:` below it, or remove it."));
    }
    for (word, url) in [("http", &proxy.http), ("https", &proxy.https)] {
        let Some(url) = url else { continue };
        let finding = |problem: Unfit| {
            let help = match problem.code {
                CREDENTIALS => {
                    "Name a proxy that knows this machine, or one here that passes the password on."
                }
                _ => "Write it like `http://proxy.example.com:3128`.",
            };
            Finding::new(&field(&path, word), problem.code, problem.message).help(help)
        };
        let schemes = ["http", "https", "socks5"];
        let checked = check_url(url, &schemes).and_then(|parsed| match parsed.path() {
            "" | "/" => Ok(()),
            _ => Err(Unfit::url(format!("`{url}` is no proxy: it has a path"))),
        });
        findings.extend(checked.err().map(finding));
    }
    let list = field(&path, "noProxy");
    for (index, entry) in proxy.no_proxy.iter().enumerate() {
        let fits = |c: char| c != ',' && !c.is_whitespace();
        if entry.is_empty() || entry.contains("//") || !entry.chars().all(fits) {
            let message = format!("`{entry}` is no name, address or network");
            let finding = Finding::new(&item(&list, index), "spec.invalid_no_proxy", message);
            findings.push(finding.help("Write one in each item: `.example.com`, `10.0.0.0/8`."));
        }
    }
}

const CREDENTIALS: &str = "spec.credentials_in_url";

/// Why a URL will not do.
struct Unfit {
    code: &'static str,
    message: String,
}

impl Unfit {
    const fn url(message: String) -> Self {
        Self { code: "spec.invalid_url", message }
    }
}

fn check_url(text: &str, schemes: &[&str]) -> Result<Url, Unfit> {
    // First, and without the text, which may have the password.
    if text.contains('@') {
        let message = "a user or a password does not belong into a URL".to_owned();
        return Err(Unfit { code: CREDENTIALS, message });
    }
    let refused = |why: &str| Err(Unfit::url(format!("`{text}` {why}")));
    let Ok(url) = Url::parse(text) else { return refused("is no URL") };
    if !schemes.contains(&url.scheme()) {
        let schemes = listed(schemes.iter().copied());
        return refused(&format!("does not begin with {schemes}"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return refused("names no host");
    }
    if url.query().is_some() || url.fragment().is_some() || text.contains(char::is_whitespace) {
        return refused("is more than a host, a port and a path");
    }
    Ok(url)
}
