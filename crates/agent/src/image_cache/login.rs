//! What registries want of those who ask: a password, or a token that somebody else gives for one, or for none.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::Deserialize;
use url::Url;

use crate::logs::locked;

/// How long a token holds that does not say so, and how much earlier than it says we take another.
const USUAL: u64 = 60;
const EARLIER: u64 = 10;

/// What a registry asks for in the header `WWW-Authenticate`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Password,
    Token { realm: String, service: Option<String>, scope: Option<String> },
}

impl Challenge {
    /// The best of what was said. A token where one is offered: it is what a registry wants that says both.
    pub(super) fn choose<'a>(said: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut all: Vec<Self> = said.filter_map(Self::parse).collect();
        let token = all.iter().position(|one| matches!(one, Self::Token { .. }));
        match token {
            Some(index) => Some(all.swap_remove(index)),
            None => all.pop(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Password);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let mut values = parameters(rest);
        let realm = values.remove("realm")?;
        Some(Self::Token {
            realm,
            service: values.remove("service"),
            scope: values.remove("scope"),
        })
    }

    /// Where a token is got that lets pull this image.
    pub(super) fn token_url(&self, name: &str) -> Option<Url> {
        let Self::Token { realm, service, scope } = self else { return None };
        let mut url = Url::parse(realm).ok()?;
        let usual = format!("repository:{name}:pull");
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        query.append_pair("scope", scope.as_ref().unwrap_or(&usual));
        drop(query);
        Some(url)
    }
}

/// `a="b, c",d=e`
fn parameters(text: &str) -> HashMap<String, String> {
    let (mut found, mut rest) = (HashMap::new(), text.trim());
    while let Some((key, value)) = rest.split_once('=') {
        let (value, next) = match value.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => value.split_once(',').unwrap_or((value, "")),
        };
        found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        rest = next.trim_start_matches([',', ' ']);
    }
    found
}

/// What a token server answers.
#[derive(Deserialize)]
pub(super) struct Granted {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

/// For what a token is: the API of a registry, the name of an image there, and the header `Authorization` that it was given for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Purpose {
    pub(super) api: String,
    pub(super) name: String,
    pub(super) authorization: Option<String>,
}

/// Tokens that still hold. Like passwords, they are not for any log.
#[derive(Default)]
pub(super) struct Tokens(Mutex<HashMap<Purpose, (String, Instant)>>);

impl Tokens {
    /// The header of a token that holds.
    pub(super) fn find(&self, purpose: &Purpose) -> Option<String> {
        let mut tokens = locked(&self.0);
        tokens.retain(|_, (_, end)| *end > Instant::now());
        tokens.get(purpose).map(|(header, _)| header.clone())
    }

    /// Keeps what was granted; the header of it, unless nothing was.
    pub(super) fn keep(&self, purpose: Purpose, granted: Granted) -> Option<String> {
        let Granted { token, access_token, expires_in } = granted;
        let token = if token.is_empty() { access_token } else { token };
        if token.is_empty() || token.contains(|c: char| c.is_ascii_control()) {
            return None;
        }
        let header = format!("Bearer {token}");
        let seconds = expires_in.unwrap_or(USUAL).saturating_sub(EARLIER).min(3600);
        let end = Instant::now() + Duration::from_secs(seconds);
        locked(&self.0).insert(purpose, (header.clone(), end));
        Some(header)
    }

    pub(super) fn forget(&self, purpose: &Purpose) {
        locked(&self.0).remove(purpose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let said = [
            "Basic realm=\"x\"",
            "Bearer realm=\"https://auth.test/token\",service=\"r, s\" , scope=\"repository:a/b:pull\"",
        ];
        let challenge = Challenge::choose(said.into_iter()).unwrap();
        let url = challenge.token_url("a/b").unwrap();
        let expected = "https://auth.test/token?service=r%2C+s&scope=repository%3Aa%2Fb%3Apull";
        assert_eq!(url.as_str(), expected);
        assert_eq!(Challenge::choose(said.into_iter().take(1)), Some(Challenge::Password));
        assert_eq!(Challenge::choose(["Negotiate", "Bearer x"].into_iter()), None);
        let bare = Challenge::choose(["bearer realm=http://a/t"].into_iter()).unwrap();
        assert_eq!(bare.token_url("c").unwrap().as_str(), "http://a/t?scope=repository%3Ac%3Apull");
    }

    #[test]
    fn tokens_are_kept_for_as_long_as_they_hold() {
        let tokens = Tokens::default();
        let grant = |text: &str| serde_json::from_str::<Granted>(text).unwrap();
        let purpose = |name: &str, authorization: Option<&str>| Purpose {
            api: "api".to_owned(),
            name: name.to_owned(),
            authorization: authorization.map(str::to_owned),
        };
        let (a, b, other) = (purpose("a", None), purpose("b", None), purpose("a", Some("Basic x")));
        let header = tokens.keep(a.clone(), grant(r#"{"access_token":"t","expires_in":300}"#));
        assert_eq!(header.as_deref(), Some("Bearer t"));
        assert_eq!([&a, &b, &other].map(|one| tokens.find(one)), [header, None, None]);
        tokens.forget(&a);
        assert_eq!(tokens.find(&a), None);
        tokens.keep(a.clone(), grant(r#"{"token":"t","expires_in":5}"#));
        assert_eq!(tokens.find(&a), None);
        assert_eq!(tokens.keep(a, grant("{}")), None);
    }
}
