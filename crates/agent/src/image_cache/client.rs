//! Clients for the ways there are to registries: with or without proxy, whom they trust.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bivouac_spec::node::Upstream;
use camino::Utf8PathBuf;
use ipnet::IpNet;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Proxy};
use url::Url;

use crate::logs::locked;
use crate::probe::certificates;

/// The authorities that programs trust in a node.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// A registry that is not there must not keep anybody from what is known of it.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);
/// How long it may be silent in the middle of a layer.
const QUIET: Duration = Duration::from_secs(60);

/// The proxies of the environment, as programs written in Go read them.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies {
    http: Option<String>,
    https: Option<String>,
    except: Vec<String>,
}

/// One client for each way, made when first needed.
#[derive(Debug, Default)]
pub(super) struct Clients {
    proxies: Proxies,
    made: Mutex<HashMap<Way, Agent>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Way {
    authorities: Option<Utf8PathBuf>,
    insecure: bool,
    proxy: Option<String>,
}

impl Clients {
    pub(super) fn new(proxies: Proxies) -> Self {
        Self { proxies, made: Mutex::default() }
    }

    /// The client for a URL of this registry, or of who gives tokens for it.
    pub(super) fn client(&self, upstream: &Upstream, url: &Url) -> Result<Agent, String> {
        let way = Way {
            authorities: upstream.authorities.clone(),
            insecure: upstream.insecure,
            proxy: self.proxies.of(url).map(str::to_owned),
        };
        let mut made = locked(&self.made);
        if let Some(client) = made.get(&way) {
            return Ok(client.clone());
        }
        let client = way.client()?;
        made.insert(way, client.clone());
        Ok(client)
    }
}

impl Way {
    fn client(&self) -> Result<Agent, String> {
        let proxy = self.proxy.as_deref().map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| format!("the proxy cannot be used: {error}"))?;
        let tls = TlsConfig::builder()
            .root_certs(self.roots()?)
            .disable_verification(self.insecure)
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(proxy)
            .user_agent(concat!("bivouac/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(QUIET))
            .tls_config(tls)
            .build();
        Ok(Agent::new_with_config(config))
    }

    fn roots(&self) -> Result<RootCerts, String> {
        let usual = certificates(AUTHORITIES.into());
        let Some(path) = &self.authorities else {
            // A node without any has those that come with the library.
            return Ok(usual.map_or(RootCerts::WebPki, specific));
        };
        let mut all = certificates(path)?;
        all.extend(usual.unwrap_or_default());
        Ok(specific(all))
    }
}

fn specific(certificates: Vec<Certificate<'static>>) -> RootCerts {
    RootCerts::Specific(Arc::new(certificates))
}

impl Proxies {
    pub(super) fn of_environment() -> Self {
        let variable = |name: &str| {
            let small = name.to_ascii_lowercase();
            let value = std::env::var(name).or_else(|_| std::env::var(small)).ok()?;
            Some(value).filter(|value| !value.is_empty())
        };
        let except = variable("NO_PROXY").unwrap_or_default();
        let except = except.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        Self {
            http: variable("HTTP_PROXY"),
            https: variable("HTTPS_PROXY"),
            except: except.map(str::to_ascii_lowercase).collect(),
        }
    }

    fn of(&self, url: &Url) -> Option<&str> {
        let proxy = if url.scheme() == "http" { &self.http } else { &self.https };
        let host = url.host_str()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let port = url.port_or_known_default();
        let is_excepted = self.except.iter().any(|entry| excepts(entry, &host, port));
        proxy.as_deref().filter(|_| !is_excepted)
    }
}

/// Whether an entry of `NO_PROXY` means a host: a name and all that end in it, `.` and a name for only those, an address, a network, `*`.
fn excepts(entry: &str, host: &str, port: Option<u16>) -> bool {
    if entry == "*" {
        return true;
    }
    if let Ok(address) = host.parse::<IpAddr>() {
        let network = entry.parse::<IpNet>().map(|network| network.contains(&address));
        let same = |text: &str| text.trim_matches(['[', ']']).parse() == Ok(address);
        let with_port = entry.rsplit_once(':').is_some_and(|(text, number)| {
            same(text) && number.parse().ok() == port && !text.is_empty()
        });
        return network.unwrap_or(false) || same(entry) || with_port;
    }
    let (name, wanted) = match entry.rsplit_once(':') {
        Some((name, number)) => (name, number.parse::<u16>().ok()),
        None => (entry, None),
    };
    if wanted.is_some() && wanted != port {
        return false;
    }
    let end = name.strip_prefix('*').unwrap_or(name);
    match end.strip_prefix('.') {
        Some(_) => host.ends_with(end),
        None => host == end || host.strip_suffix(end).is_some_and(|rest| rest.ends_with('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_for_what_is_not_excepted() {
        let except = [".corp.test", "example.com", "10.0.0.0/8", "192.168.1.1", "odd.test:8443"];
        let proxies = Proxies {
            http: Some("http://plain:1".to_owned()),
            https: Some("http://secure:1".to_owned()),
            except: except.map(str::to_owned).into(),
        };
        for (url, proxy) in [
            ("https://a.test/v2", Some("http://secure:1")),
            ("http://a.test/v2", Some("http://plain:1")),
            ("https://a.corp.test/", None),
            ("https://corp.test/", Some("http://secure:1")),
            ("https://example.com/", None),
            ("https://A.Example.com/", None),
            ("https://anexample.com/", Some("http://secure:1")),
            ("https://10.1.2.3:5000/", None),
            ("https://192.168.1.1/", None),
            ("https://192.168.1.2/", Some("http://secure:1")),
            ("https://odd.test:8443/", None),
            ("https://odd.test/", Some("http://secure:1")),
            ("https://[::1]/", Some("http://secure:1")),
        ] {
            assert_eq!(proxies.of(&url.parse().unwrap()), proxy, "{url}");
        }
        let all = Proxies { except: vec!["*".to_owned()], ..proxies };
        assert_eq!(all.of(&"https://a.test".parse().unwrap()), None);
    }
}
