//! The certificate that a server shows, through whatever carries bytes to it and back.
//!
//! One flight each way is enough: the server answers the first words of a client with its certificate, before it asks for one.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

/// A client that has begun to talk.
#[derive(Debug)]
pub struct Hello {
    connection: ClientConnection,
    shown: Arc<Shown>,
}

impl Hello {
    /// A new one.
    ///
    /// # Panics
    /// When the system has no randomness.
    #[must_use]
    pub fn new() -> Self {
        let provider = Arc::new(ring::default_provider());
        let shown = Arc::new(Shown { provider: Arc::clone(&provider), seen: Mutex::default() });
        let verifier: Arc<dyn ServerCertVerifier> = shown.clone();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring knows them")
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").expect("it is a name");
        let connection = ClientConnection::new(Arc::new(config), name);
        Self { connection: connection.expect("the system has randomness"), shown }
    }

    /// What it says first.
    ///
    /// # Panics
    /// Never: it writes to memory.
    #[must_use]
    pub fn words(&mut self) -> Vec<u8> {
        let mut words = Vec::new();
        while self.connection.wants_write() {
            let _ = self.connection.write_tls(&mut words).expect("memory takes it");
        }
        words
    }

    /// The certificate (DER) in what the server answered.
    ///
    /// # Errors
    /// A sentence, when there is none.
    pub fn certificate(mut self, mut answer: &[u8]) -> Result<Vec<u8>, String> {
        let size = answer.len();
        while !answer.is_empty() {
            let read = self.connection.read_tls(&mut answer).map_err(|error| error.to_string())?;
            // What comes after the certificate, such as that a client must have one, is nothing to us.
            if self.connection.process_new_packets().is_err() || read == 0 {
                break;
            }
        }
        let seen = self.shown.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
        seen.ok_or_else(|| format!("no certificate in {size} bytes"))
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self::new()
    }
}

/// Believes everybody, and keeps what they show.
#[derive(Debug)]
struct Shown {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = Some(certificate.to_vec());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::ServerConnection;

    use super::*;
    use crate::TestAuthority;

    #[test]
    fn a_server_shows_its_certificate_in_its_first_answer() {
        let config = TestAuthority::new().server(&["localhost"]);
        let mut server = ServerConnection::new(config).expect("a server can be made");
        let mut hello = Hello::new();
        let words = hello.words();
        let _ = server.read_tls(&mut &words[..]).expect("memory gives it");
        let _ = server.process_new_packets().expect("it is a TLS client");
        let mut answer = Vec::new();
        while server.wants_write() {
            let _ = server.write_tls(&mut answer).expect("memory takes it");
        }
        let shown = hello.certificate(&answer).expect("it is there");
        assert!(shown.starts_with(&[0x30, 0x82]), "a certificate is a sequence");
        for nothing in [&answer[..10], &[]] {
            assert!(Hello::new().certificate(nothing).is_err());
        }
    }
}
