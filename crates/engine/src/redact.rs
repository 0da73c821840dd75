//! Takes secrets out of text that leaves the machine.
//!
//! What looks like one goes, and what stands beside it stays readable. It errs on the side of taking too much: a word after `token:` in
//! a log may be no secret.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// What stands in the place of a secret.
const REMOVED: &str = "[removed]";

/// The longest private key, with its frame, that is looked for, in bytes. An RSA key of 16,384 bits has 13,000.
const LONGEST_KEY: usize = 32 << 10;

/// A name, as of a field, a variable or an option, whose value is a secret.
const NAME: &str = r"(?i:[\w.-]*(?:passw(?:or)?d|passphrase|token|secret|secret[_.-]?key|access[_.-]?key|api[_.-]?key|private[_.-]?key|certificate[_.-]?key|client-key-data|credentials?|identitytoken))";

/// Patterns, and what takes the place of what they match.
static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        // PEM in base64, as in kubeconfigs and Secrets: `-----BEGIN`.
        (r"LS0tLS1CRUdJTi[A-Za-z0-9+/_=-]*".to_owned(), REMOVED),
        // JSON Web Tokens: two JSON objects in base64, and mostly a signature.
        (r"\beyJ[\w-]{6,}\.eyJ[\w-]+(?:\.[\w-]*)?".to_owned(), REMOVED),
        // Bootstrap tokens of Kubernetes.
        (r"\b[a-z0-9]{6}\.[a-z0-9]{16}\b".to_owned(), REMOVED),
        (r"(?i)\b(bearer|basic)(\s+)[\w.~+/=-]{8,}".to_owned(), "$1$2[removed]"),
        // In URLs: `https://user:password@host`, and a token in the place of the user.
        (r#"(://[^\s/@:"']*):[^\s/@"']+@"#.to_owned(), "$1:[removed]@"),
        (r#"://[^\s/@:"']{20,}@"#.to_owned(), "://[removed]@"),
        // The credentials of a registry, as docker keeps them.
        (r#"(\\?"auth\\?"\s*:\s*\\?")[^"\\]+"#.to_owned(), "$1[removed]"),
        // `"name": "value"` in JSON within JSON, where an escaped quote ends the value.
        (format!(r#"({NAME}\\?["']?\s*[:=]\s*\\")(?:[^"\\]|\\[^"])+"#), "$1[removed]"),
        // `"name": "value"`, `name: value` and `name=value`.
        (format!(r#"({NAME}["']?\s*[:=]\s*")(?:[^"\\]|\\.)+"#), "$1[removed]"),
        (format!(r#"({NAME}\\?["']?\s*[:=]\s*)'[^'\n]+'"#), "$1'[removed]'"),
        (
            format!(r#"({NAME}["']?[ \t]*[:=][ \t]*)[^\s"'\\,;{{}}\[\]|>&-][^\s"',;{{}}]*"#),
            "$1[removed]",
        ),
        // `--name value`
        (format!(r#"(--{NAME}[ \t]+)[^\s"'-][^\s"']*"#), "$1[removed]"),
    ];
    let compile = |(pattern, with): (String, _)| {
        (Regex::new(&pattern).expect("the pattern is well formed"), with)
    };
    rules.into_iter().map(compile).collect()
});

/// The beginning or the end of the frame of a private key.
static FRAME: LazyLock<Regex> = LazyLock::new(|| {
    let pattern = r"-----(BEGIN|END) [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----";
    Regex::new(pattern).expect("the pattern is well formed")
});

/// The text without what looks like a secret.
pub(crate) fn redact(text: &str) -> String {
    let mut text = without_keys(text);
    for (pattern, with) in RULES.iter() {
        let replaced = pattern.replace_all(&text, |found: &Captures<'_>| {
            let mut filled = String::new();
            // What is removed already may look like the value of a name.
            if found[0].ends_with(REMOVED) {
                return found[0].to_owned();
            }
            found.expand(with, &mut filled);
            filled
        });
        if let Cow::Owned(replaced) = replaced {
            text = replaced;
        }
    }
    text
}

/// Takes out the values of options that users give to Incus, wherever there is a cluster's spec in it: any may be a secret, whatever its
/// name.
pub(crate) fn redact_options(document: &mut Value) {
    match document {
        Value::Array(items) => items.iter_mut().for_each(redact_options),
        Value::Object(fields) => {
            if let Some(incus) = fields.get_mut("incus") {
                remove_values(incus.get_mut("config"));
                let profiles = incus.get_mut("profiles").and_then(Value::as_array_mut);
                for profile in profiles.into_iter().flatten() {
                    remove_values(profile.get_mut("config"));
                }
            }
            fields.values_mut().for_each(redact_options);
        }
        _ => {}
    }
}

fn remove_values(map: Option<&mut Value>) {
    let values =
        map.and_then(Value::as_object_mut).into_iter().flat_map(serde_json::Map::values_mut);
    values.for_each(|value| *value = REMOVED.into());
}

/// The text without private keys in PEM, those of which a log has only the beginning or the end among them.
fn without_keys(text: &str) -> String {
    let mut keys: Vec<Range<usize>> = Vec::new();
    let mut open: Option<Range<usize>> = None;
    for frame in FRAME.captures_iter(text) {
        let Some(place) = frame.get(0).map(|whole| whole.range()) else { continue };
        if &frame[1] == "BEGIN" {
            keys.extend(open.take().map(|begin| begin.start..body_after(text, begin.end)));
            open = Some(place);
            continue;
        }
        match open.take() {
            Some(begin) if place.end - begin.start <= LONGEST_KEY => {
                keys.push(begin.start..place.end);
            }
            Some(begin) => {
                keys.push(begin.start..body_after(text, begin.end));
                keys.push(body_before(text, place.start)..place.end);
            }
            None => {
                let after = keys.last().map_or(0, |last| last.end);
                keys.push(body_before(text, place.start).max(after)..place.end);
            }
        }
    }
    keys.extend(open.map(|begin| begin.start..body_after(text, begin.end)));
    let mut result = String::with_capacity(text.len());
    let mut position = 0;
    for key in keys {
        result.push_str(&text[position..key.start.max(position)]);
        result.push_str(REMOVED);
        position = key.end.max(position);
    }
    result.push_str(&text[position..]);
    result
}

/// Whether a byte can be one of a key in PEM: base64, the ends of lines, and `\n` as JSON writes them.
const fn is_body(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'+' | b'/' | b'=' | b'\\')
        || byte.is_ascii_whitespace()
}

fn body_after(text: &str, start: usize) -> usize {
    let rest = text.as_bytes()[start..].iter();
    start + rest.take_while(|byte| is_body(**byte)).count()
}

fn body_before(text: &str, end: usize) -> usize {
    let before = text.as_bytes()[..end].iter().rev();
    end - before.take_while(|byte| is_body(**byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Texts with a secret, which is `S3cret` or marked by it, and what is left of them.
    #[test]
    fn secrets_go_and_what_stands_beside_them_stays() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl";
        let cases = [
            (
                "client-key-data: LS0tLS1CRUdJTiBQUklWQVRF\nnext: 1",
                "client-key-data: [removed]\nnext: 1",
            ),
            ("tls.key: LS0tLS1CRUdJTiBQUklWQVRF", "tls.key: [removed]"),
            ("Authorization: Bearer abcdefgh.ijkl", "Authorization: Bearer [removed]"),
            ("get https://me:hunter2@example.com/a", "get https://me:[removed]@example.com/a"),
            ("https://0123456789abcdef0123456789@host/", "https://[removed]@host/"),
            (
                r#"{"password": "two words", "user": "me"}"#,
                r#"{"password": "[removed]", "user": "me"}"#,
            ),
            (r#"{\"password\":\"two words\",\"a\":1}"#, r#"{\"password\":\"[removed]\",\"a\":1}"#),
            ("AWS_SECRET_ACCESS_KEY=wJalrXUt rest", "AWS_SECRET_ACCESS_KEY=[removed] rest"),
            ("kubeadm join --token abcdef.0123456789abcdef", "kubeadm join --token [removed]"),
            ("--registry-password hunter2 --v 4", "--registry-password [removed] --v 4"),
            (r#"{"password":"a\"b\\","c":1}"#, r#"{"password":"[removed]","c":1}"#),
            (r#"{"auths":{"x":{"auth":"bWU6cHc="}}}"#, r#"{"auths":{"x":{"auth":"[removed]"}}}"#),
            ("password: 'two words' # x", "password: '[removed]' # x"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected);
            assert_eq!(redact(expected), expected, "once is enough");
        }
        assert_eq!(redact(&format!("with {jwt} in it")), "with [removed] in it");
    }

    #[test]
    fn what_is_no_secret_stays() {
        let plain = [
            "2026-11-21T13:44:27.123Z kubelet: node worker-0 is Ready, see https://10.0.0.1:6443/readyz",
            "ssh://root@host:22 docker://registry:5000/image@sha256:0123456789abcdef",
            "--service-account-key-file=/etc/kubernetes/pki/sa.key --token-ttl 1h",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "the token is not valid, secrets \"a\" not found",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "kube-apiserver-control-plane-0.17f0a1b2c3d4e5f6",
        ];
        for text in plain {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn keys_go_whole_and_in_halves() {
        let begin = "-----BEGIN EC PRIVATE KEY-----";
        let end = "-----END EC PRIVATE KEY-----";
        let cases = [
            (format!("a\n{begin}\nMHcCAQEE\n{end}\nb"), "a\n[removed]\nb"),
            (format!("{begin}\nline 1 | MHcCAQEE\nline 2 | {end} b"), "[removed] b"),
            (
                format!("{{\"key\":\"{begin}\\nMHcCAQEE\\n{end}\\n\"}}"),
                "{\"key\":\"[removed]\\n\"}",
            ),
            (format!("cut: MHcCAQEE+/=\nAAAA\n{end}: b"), "cut:[removed]: b"),
            (format!("a: {begin}\nMHcCAQEE\nAAAA"), "a: [removed]"),
            (format!("{begin}\nMHcC, {begin}\nAAAA\n{end}."), "[removed], [removed]."),
            (format!("{end}{end}."), "[removed][removed]."),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(&text), expected);
        }
        let far = format!("{begin}\nMHcC\n!{}!MHcC\n{end}.", "-".repeat(LONGEST_KEY));
        let left = redact(&far);
        assert!(!left.contains("MHcC") && left.ends_with("![removed]."), "{left:.80}");
    }
}
