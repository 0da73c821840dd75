//! A certificate authority that no machine trusts by itself.

use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority of a test's own.
pub struct TestAuthority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl TestAuthority {
    /// A new one.
    ///
    /// # Panics
    /// When no key can be made.
    #[must_use]
    pub fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = parameters.self_signed(&key).expect("it signs itself").pem();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// Its certificate, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// TLS for a server of these names or addresses.
    ///
    /// # Panics
    /// When one is no name.
    #[must_use]
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        let (certificate, key) = self.signed(names);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("key and certificate belong together");
        Arc::new(config)
    }

    /// A certificate for these names or addresses and its key, PEM: for a server, and for a client as well.
    ///
    /// # Panics
    /// When one is no name.
    #[must_use]
    pub fn identity(&self, names: &[&str]) -> (String, String) {
        let (certificate, key) = self.signed(names);
        (certificate.pem(), key.serialize_pem())
    }

    fn signed(&self, names: &[&str]) -> (Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let parameters = CertificateParams::new(names).expect("they are names");
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("the authority signs");
        (certificate, key)
    }
}

impl Default for TestAuthority {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TestAuthority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TestAuthority(..)")
    }
}
