//! Registries, as their client.

use std::net::IpAddr;

use bivouac_spec::ClusterName;
use bivouac_spec::node::Upstream;
use ureq::http::{Request, Response};
use ureq::{Agent, Body};
use url::Url;

use super::client::{Clients, Proxies};
use super::folder::Origin;
use super::login::{Challenge, Granted, Purpose, Tokens};
use super::question::Question;
use super::trust::Trust;

/// The name of Docker's registry, and where its API is.
const HUB: (&str, &str) = ("docker.io", "https://registry-1.docker.io/v2");
const MAX_TOKEN: u64 = 1 << 20;

/// What the first registry says that has it, and who that is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) answer: Response<Body>,
    pub(super) origin: Origin,
}

/// Why none says anything.
#[derive(Debug)]
pub(super) enum NotFound {
    /// None has it for us.
    Refused(u16, String),
    /// None has it, and of one nobody knows.
    Away(String),
}

/// What those said who do not have it, one after another.
#[derive(Debug, Default)]
struct Verdict {
    refused: Option<(u16, String)>,
    away: Option<String>,
}

impl Verdict {
    fn is_away(&mut self, why: String) {
        self.away = Some(why);
    }

    fn answers(&mut self, upstream: &Upstream, status: u16, said: String) {
        if matches!(status, 408 | 429 | 500..) {
            return self.is_away(said);
        }
        // That we may not have it says more than that somebody else has it not.
        let before = self.refused.take().filter(|(before, _)| *before != 404);
        self.refused = before.or(Some((status, said)));
        if upstream.url.is_none() && matches!(status, 401 | 403 | 404) {
            // Nobody knows better than the registry itself, whichever of its mirrors is away.
            self.away = None;
        }
    }

    fn end(self) -> NotFound {
        match (self.away, self.refused) {
            (Some(why), _) => NotFound::Away(why),
            (None, Some((status, why))) => NotFound::Refused(status, why),
            (None, None) => NotFound::Away("nobody is to be asked for it".to_owned()),
        }
    }
}

/// All registries, for the nodes of a cluster.
pub(super) struct Registries {
    cluster: ClusterName,
    clients: Clients,
    tokens: Tokens,
}

impl Registries {
    pub(super) fn new(cluster: ClusterName, proxies: Proxies) -> Self {
        Self { cluster, clients: Clients::new(proxies), tokens: Tokens::default() }
    }

    /// Asks one after another until one has it.
    pub(super) fn ask(
        &self,
        upstreams: &[Upstream],
        method: &str,
        question: &Question,
        accept: &[String],
    ) -> Result<Found, NotFound> {
        let mut verdict = Verdict::default();
        for upstream in upstreams {
            let (api, asked) = self.ask_one(upstream, method, question, accept);
            let name = api.as_deref().map_or(question.registry.as_str(), host);
            match asked {
                Ok(answer) if answer.status().is_success() => {
                    let trust = Trust::of(upstream, api.as_deref(), &self.cluster);
                    let origin =
                        Origin::of(api.as_deref().unwrap_or_default(), &question.registry, &trust);
                    return Ok(Found { answer, origin });
                }
                Ok(answer) => {
                    let status = answer.status().as_u16();
                    verdict.answers(upstream, status, format!("{name} says HTTP {status}"));
                }
                Err(why) => verdict.is_away(format!("{name}: {why}")),
            }
        }
        Err(verdict.end())
    }

    /// Asks one, wherever it answers; and where that was.
    fn ask_one(
        &self,
        upstream: &Upstream,
        method: &str,
        question: &Question,
        accept: &[String],
    ) -> (Option<String>, Result<Response<Body>, String>) {
        let mut last = (None, Err("it would be the node itself".to_owned()));
        for api in apis(upstream, &question.registry) {
            let asked = Asked { upstream, api: &api, method, question, accept };
            let outcome = self.ask_at(&asked);
            let answers = outcome.is_ok();
            last = (Some(api), outcome);
            if answers {
                break;
            }
        }
        last
    }

    fn ask_at(&self, asked: &Asked<'_>) -> Result<Response<Body>, String> {
        let purpose = asked.purpose();
        let known = self.tokens.find(&purpose);
        let answer = self.send(asked, known.as_deref())?;
        if answer.status().as_u16() != 401 {
            return Ok(answer);
        }
        self.tokens.forget(&purpose);
        let said = answer.headers().get_all("www-authenticate").iter();
        let challenge = Challenge::choose(said.filter_map(|value| value.to_str().ok()));
        let header = match &challenge {
            None => None,
            Some(Challenge::Password) => asked.authorization().map(str::to_owned),
            Some(token @ Challenge::Token { .. }) => self.token(asked, token)?,
        };
        match header {
            Some(header) => self.send(asked, Some(&header)),
            None => Ok(answer),
        }
    }

    /// A token; `None` when none is given to us.
    fn token(&self, asked: &Asked<'_>, challenge: &Challenge) -> Result<Option<String>, String> {
        let url = challenge.token_url(&asked.question.name);
        let url = url.ok_or("it wants a token, and does not say from where")?;
        if url.scheme() != "https" && asked.api.starts_with("https:") {
            return Err("it wants a token from who does not speak HTTPS".to_owned());
        }
        let client = self.clients.client(asked.upstream, &url)?;
        let mut answer = send(&client, "GET", url.as_str(), asked.authorization(), &[])?;
        match answer.status().as_u16() {
            200..300 => {}
            // Who is asked for the image says the rest.
            400..=404 => return Ok(None),
            status => return Err(format!("who gives its tokens says HTTP {status}")),
        }
        let text = answer.body_mut().with_config().limit(MAX_TOKEN).read_to_vec();
        let text = text.map_err(|error| format!("who gives its tokens: {error}"))?;
        let granted: Granted = serde_json::from_slice(&text)
            .map_err(|_| "who gives its tokens says something else".to_owned())?;
        Ok(self.tokens.keep(asked.purpose(), granted))
    }

    fn send(
        &self,
        asked: &Asked<'_>,
        authorization: Option<&str>,
    ) -> Result<Response<Body>, String> {
        let url = asked.url()?;
        let client = self.clients.client(asked.upstream, &url)?;
        send(&client, asked.method, url.as_str(), authorization, asked.accept)
    }
}

/// A question to one registry.
struct Asked<'a> {
    upstream: &'a Upstream,
    api: &'a str,
    method: &'a str,
    question: &'a Question,
    accept: &'a [String],
}

impl Asked<'_> {
    fn authorization(&self) -> Option<&str> {
        self.upstream.authorization.as_ref().map(|content| content.0.as_str())
    }

    fn purpose(&self) -> Purpose {
        Purpose {
            api: self.api.to_owned(),
            name: self.question.name.clone(),
            authorization: self.authorization().map(str::to_owned),
        }
    }

    fn url(&self) -> Result<Url, String> {
        let text = self.question.url(self.api);
        let mut url = Url::parse(&text).map_err(|error| format!("{text} is no URL: {error}"))?;
        // As containerd asks mirrors, of which some have images of several registries.
        if self.upstream.url.is_some() {
            url.query_pairs_mut().append_pair("ns", &self.question.registry);
        }
        Ok(url)
    }
}

fn send(
    client: &Agent,
    method: &str,
    url: &str,
    authorization: Option<&str>,
    accept: &[String],
) -> Result<Response<Body>, String> {
    let mut request = Request::builder().method(method).uri(url);
    if let Some(authorization) = authorization {
        request = request.header("Authorization", authorization);
    }
    for kind in accept {
        request = request.header("Accept", kind);
    }
    let request = request.body(()).map_err(|error| format!("not an HTTP request: {error}"))?;
    client.run(request).map_err(|error| crate::probe::describe(&error))
}

/// Where the API of a registry may be, the likeliest first.
fn apis(upstream: &Upstream, registry: &str) -> Vec<String> {
    match &upstream.url {
        Some(url) => vec![url.clone()],
        None if registry == HUB.0 => vec![HUB.1.to_owned()],
        // The node itself is nobody whom all nodes could mean.
        None if is_local(registry) => Vec::new(),
        None if upstream.insecure => {
            vec![format!("https://{registry}/v2"), format!("http://{registry}/v2")]
        }
        None => vec![format!("https://{registry}/v2")],
    }
}

fn is_local(registry: &str) -> bool {
    let host = Url::parse(&format!("https://{registry}"));
    let host = host.ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn host(api: &str) -> &str {
    let rest = api.split_once("://").map_or(api, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> Upstream {
        Upstream { url: None, authorization: None, authorities: None, insecure: false }
    }

    #[test]
    fn the_registry_itself_knows_best() {
        let mirror = Upstream { url: Some("http://m/v2".to_owned()), ..own() };
        let verdict = |said: &[(&Upstream, Option<u16>)]| {
            let mut verdict = Verdict::default();
            for (upstream, status) in said {
                match status {
                    Some(status) => verdict.answers(upstream, *status, format!("says {status}")),
                    None => verdict.is_away("nobody is there".to_owned()),
                }
            }
            match verdict.end() {
                NotFound::Refused(status, _) => Some(status),
                NotFound::Away(_) => None,
            }
        };
        for status in [401, 403, 404] {
            assert_eq!(verdict(&[(&mirror, None), (&own(), Some(status))]), Some(status));
            assert_eq!(verdict(&[(&mirror, Some(500)), (&own(), Some(status))]), Some(status));
            assert_eq!(verdict(&[(&mirror, None), (&mirror, Some(status))]), None);
        }
        for status in [None, Some(429), Some(400)] {
            assert_eq!(verdict(&[(&mirror, None), (&own(), status)]), None, "{status:?}");
        }
        assert_eq!(verdict(&[(&mirror, Some(404)), (&own(), None)]), None);
        assert_eq!(verdict(&[(&mirror, Some(403)), (&own(), Some(404))]), Some(403));
        assert_eq!(verdict(&[]), None);
    }

    #[test]
    fn registries_are_where_their_names_lead() {
        let own = own();
        let insecure = Upstream { insecure: true, ..own.clone() };
        let mirror = Upstream { url: Some("http://m/v2/x".to_owned()), ..own.clone() };
        assert_eq!(apis(&own, "docker.io"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(apis(&own, "a.test:5000"), ["https://a.test:5000/v2"]);
        assert_eq!(apis(&insecure, "a.test"), ["https://a.test/v2", "http://a.test/v2"]);
        assert_eq!(apis(&mirror, "a.test"), ["http://m/v2/x"]);
        for local in ["localhost:5000", "127.0.0.1:5000", "[::1]:5000"] {
            assert_eq!(apis(&insecure, local), Vec::<String>::new(), "{local}");
        }
    }
}
