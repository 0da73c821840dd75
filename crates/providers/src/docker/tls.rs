//! Certificates between bivouac and an engine: the user's files, and what goes wrong with them.

use std::error::Error as StdError;
use std::fmt::Display;
use std::io;
use std::sync::Arc;

use bivouac_spec::Problem;
use bollard::errors::Error;
use camino::{Utf8Path, Utf8PathBuf};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, Error as TlsError, InconsistentKeys, RootCertStore};

use super::problem::{unfit, usage};
use super::select::{Endpoint, Origin, Selected};

/// The files that a client of an engine needs.
#[derive(Debug)]
pub(super) struct Certificates {
    /// Of the authority that the engine's own is from.
    pub(super) authority: Utf8PathBuf,
    /// The client's own.
    pub(super) certificate: Utf8PathBuf,
    /// The key of that.
    pub(super) key: Utf8PathBuf,
}

impl Certificates {
    /// Those in a folder.
    pub(super) fn of(folder: &Utf8Path) -> Self {
        let file = |name| folder.join(name);
        Self { authority: file("ca.pem"), certificate: file("cert.pem"), key: file("key.pem") }
    }

    /// What TLS goes by: no authority counts but those in `ca.pem`, as with the `docker` command.
    ///
    /// # Errors
    /// When a file cannot be read, or does not hold what it should. An engine that asks for none needs no certificate of the client and no key.
    pub(super) fn config(&self, selected: &Selected) -> Result<ClientConfig, Problem> {
        let files = Files { certificates: self, selected };
        let ring = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&ring))
            .with_safe_default_protocol_versions()
            .expect("ring has ciphers for all versions that are on by default")
            .with_root_certificates(files.authorities()?);
        if !self.certificate.exists() && !self.key.exists() {
            return Ok(config.with_no_client_auth());
        }
        let identity = SingleCertAndKey::from(files.identity(&ring)?);
        Ok(config.with_client_cert_resolver(Arc::new(identity)))
    }
}

/// The files, and the engine that they are for.
struct Files<'a> {
    certificates: &'a Certificates,
    selected: &'a Selected,
}

impl Files<'_> {
    fn authorities(&self) -> Result<RootCertStore, Problem> {
        let path = &self.certificates.authority;
        let mut authorities = RootCertStore::empty();
        let (added, _) = authorities.add_parsable_certificates(self.certificates_in(path)?);
        match added {
            0 => Err(self.unusable(path, "holds no certificate of an authority")),
            _ => Ok(authorities),
        }
    }

    fn identity(&self, provider: &CryptoProvider) -> Result<CertifiedKey, Problem> {
        let Certificates { certificate, key, .. } = self.certificates;
        let chain = self.certificates_in(certificate)?;
        let private = provider
            .key_provider
            .load_private_key(self.key_in(key)?)
            .map_err(|error| self.unusable(key, "holds no key that can be used").because(&error))?;
        let identity = CertifiedKey::new(chain, private);
        match identity.keys_match() {
            Err(TlsError::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(self.unusable(key, format_args!("is not the key of {certificate}")))
            }
            Err(error @ TlsError::InvalidCertificate(CertificateError::BadEncoding)) => {
                Err(self.unusable(certificate, "holds no certificate").because(&error))
            }
            // Whether the engine takes it is the engine's to say: of old versions, nothing is known here.
            _ => Ok(identity),
        }
    }

    fn certificates_in(&self, path: &Utf8Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
        let text = self.read(path)?;
        let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| self.unusable(path, "holds no certificate in PEM").because(&error))?;
        if found.is_empty() {
            return Err(self.unusable(path, "holds no certificate in PEM"));
        }
        Ok(found)
    }

    fn key_in(&self, path: &Utf8Path) -> Result<PrivateKeyDer<'static>, Problem> {
        let said = "holds no key in PEM that can be read without a password";
        let text = self.read(path)?;
        let mut found: Vec<_> = PrivateKeyDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|error| self.unusable(path, said).because(&error))?;
        match (found.pop(), found.len()) {
            (Some(key), 0) => Ok(key),
            (None, _) => Err(self.unusable(path, said)),
            _ => Err(self.unusable(path, "holds more than one key")),
        }
    }

    fn read(&self, path: &Utf8Path) -> Result<Vec<u8>, Problem> {
        std::fs::read(path).map_err(|error| self.unusable(path, "cannot be read").because(&error))
    }

    fn unusable(&self, path: &Utf8Path, what: impl Display) -> Problem {
        let Selected { endpoint, origin } = self.selected;
        let message =
            format!("{path}, which the container engine at {endpoint} is asked with, {what}");
        usage("certificates", message).help(set(origin))
    }
}

/// What connects to an engine over TLS.
pub(super) fn connector(config: ClientConfig) -> HttpsConnector<HttpConnector> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    HttpsConnector::from((tcp, config))
}

/// How certificates are set for an engine that was named in this way.
fn set(origin: &Origin) -> String {
    match origin {
        Origin::Context(name) => format!(
            "set all three with `docker context update {name} --docker host=…,ca=…,cert=…,key=…`"
        ),
        Origin::Environment | Origin::Usual(_) => {
            "name a folder with ca.pem, cert.pem and key.pem in `DOCKER_CERT_PATH`, and set `DOCKER_TLS_VERIFY=1`".to_owned()
        }
    }
}

/// What is wrong with certificates, if it is that for which an engine does not answer.
pub(super) fn explain(selected: &Selected, error: &Error) -> Option<Problem> {
    let Endpoint::Tcp(_, folder) = &selected.endpoint else { return None };
    let engine = format!("the container engine at {}", selected.endpoint);
    let Some(folder) = folder else {
        let Error::DockerResponseServerError { status_code: 400, message } = error else {
            return None;
        };
        return message.contains("HTTPS").then(|| {
            unfit(
                "wants_tls",
                format_args!("{engine} speaks TLS only, and no certificates are set"),
            )
            .help(set(&selected.origin))
        });
    };
    let Certificates { authority, certificate, .. } = Certificates::of(folder);
    let found = match error {
        Error::IOError { err } => tls_error(err),
        _ => tls_error(error),
    }?;
    let (message, help) = match found {
        TlsError::InvalidCertificate(why) => {
            let help = match why {
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => {
                    "name the engine as its certificate does, or give it one for this name"
                        .to_owned()
                }
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    "give the engine a new certificate".to_owned()
                }
                _ => format!(
                    "put the certificate of the engine's own authority into {authority}, or look whether somebody else answers there"
                ),
            };
            (format!("{engine} shows a certificate that is not trusted"), help)
        }
        TlsError::AlertReceived(_) => (
            format!("{engine} does not take the certificate {certificate}"),
            format!(
                "put one of the authority that the engine trusts (its `--tlscacert`) and its key into {folder}"
            ),
        ),
        TlsError::InvalidMessage(_) => (
            format!("{engine} speaks no TLS"),
            "name the port at which it does, which is 2376 in most cases".to_owned(),
        ),
        _ => return None,
    };
    Some(unfit("certificates", message).because(found).help(help))
}

/// The error of TLS that an error came from. Errors of I/O hide what they carry from those who ask for their source.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a TlsError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = carried.and_then(|carried| tls_error(carried)) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use bivouac_e2e::TestAuthority;
    use rustls::AlertDescription;

    use super::*;

    fn selected(folder: Option<&str>) -> Selected {
        let endpoint = Endpoint::Tcp("lab:2376".to_owned(), folder.map(Utf8PathBuf::from));
        Selected { endpoint, origin: Origin::Context("lab".to_owned()) }
    }

    fn told(error: TlsError) -> Problem {
        let err = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        explain(&selected(Some("/tls")), &Error::IOError { err }).unwrap()
    }

    #[test]
    fn what_is_wrong_with_certificates_is_told_with_the_file_that_mends_it() {
        let problem = told(TlsError::InvalidCertificate(CertificateError::UnknownIssuer));
        insta::assert_json_snapshot!(problem, @r#"
        {
          "code": "provider.docker.certificates",
          "class": "unfit",
          "message": "the container engine at tcp://lab:2376 shows a certificate that is not trusted",
          "causes": [
            "invalid peer certificate: UnknownIssuer"
          ],
          "help": "put the certificate of the engine's own authority into /tls/ca.pem, or look whether somebody else answers there"
        }
        "#);
        let problem = told(TlsError::AlertReceived(AlertDescription::CertificateRequired));
        assert!(problem.message.ends_with("does not take the certificate /tls/cert.pem"));
        let other = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(explain(&selected(Some("/tls")), &Error::IOError { err: other }), None);
    }

    #[test]
    fn an_engine_that_speaks_only_tls_is_told() {
        let said = "Client sent an HTTP request to an HTTPS server.\n".to_owned();
        let error = Error::DockerResponseServerError { status_code: 400, message: said };
        let problem = explain(&selected(None), &error).unwrap();
        assert_eq!(problem.code, "provider.docker.wants_tls");
        assert!(problem.help.unwrap().contains("docker context update lab"));
    }

    /// Names of files, and what is in them.
    type Content<'a> = &'a [(&'a str, &'a str)];

    /// What is said of a folder with these files.
    fn refused(files: Content<'_>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        for (name, content) in files {
            std::fs::write(folder.join(name), content).unwrap();
        }
        let problem = Certificates::of(folder).config(&selected(Some(folder.as_str()))).err()?;
        assert_eq!(problem.code, "provider.docker.certificates");
        assert!(problem.help.unwrap().contains("docker context update lab"));
        Some(problem.message.replace(folder.as_str(), ""))
    }

    #[test]
    fn files_are_named_that_are_missing_or_hold_something_else() {
        let authority = TestAuthority::new();
        let ca = ("ca.pem", authority.certificate());
        let (certificate, key) = authority.identity(&["client"]);
        let (_, other) = authority.identity(&["client"]);
        let (certificate, key) = (certificate.as_str(), key.as_str());
        let two = format!("{key}{other}");
        let no_der = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        let sealed = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let pair = |certificate, key| [ca, ("cert.pem", certificate), ("key.pem", key)];
        let cases: [(Content<'_>, &str, &str); 11] = [
            (&[], "/ca.pem", "cannot be read"),
            (&[("ca.pem", "")], "/ca.pem", "holds no certificate in PEM"),
            (&[("ca.pem", no_der)], "/ca.pem", "holds no certificate of an authority"),
            (&[ca, ("cert.pem", certificate)], "/key.pem", "cannot be read"),
            (&[ca, ("key.pem", key)], "/cert.pem", "cannot be read"),
            (&pair("hello", key), "/cert.pem", "holds no certificate in PEM"),
            (&pair(no_der, key), "/cert.pem", "holds no certificate"),
            (&pair(certificate, certificate), "/key.pem", "without a password"),
            (&pair(certificate, &sealed), "/key.pem", "without a password"),
            (&pair(certificate, &two), "/key.pem", "holds more than one key"),
            (&pair(certificate, &other), "/key.pem", "is not the key of /cert.pem"),
        ];
        for (files, file, what) in cases {
            let said = refused(files).unwrap();
            assert!(said.starts_with(&format!("{file}, ")) && said.ends_with(what), "{said}");
        }
        assert_eq!(refused(&[ca]), None);
        assert_eq!(refused(&pair(certificate, key)), None);
    }

    #[test]
    fn only_the_authorities_of_the_file_are_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let both = [TestAuthority::new(), TestAuthority::new()];
        let both = both.map(|authority| authority.certificate().to_owned()).concat();
        std::fs::write(folder.join("ca.pem"), both).unwrap();
        let (certificates, selected) = (Certificates::of(folder), selected(None));
        let files = Files { certificates: &certificates, selected: &selected };
        assert_eq!(files.authorities().unwrap().len(), 2);
    }
}
