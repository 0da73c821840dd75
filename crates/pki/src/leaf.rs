//! Certificates that an authority issues.

use std::net::IpAddr;
use std::time::SystemTime;

use rcgen::string::Ia5String;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde::{Deserialize, Serialize};
use x509_parser::pem::parse_x509_pem;

use crate::authority::{Authorities, Signer};
use crate::error::{Error, Result};
use crate::pki::Validity;
use crate::secret::Secret;

/// What a certificate is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Usage {
    /// Being connected to.
    Server,
    /// Connecting.
    Client,
    /// Both.
    ServerAndClient,
}

/// A certificate to issue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeafRequest {
    /// The user name, for Kubernetes.
    pub common_name: String,
    /// The group, for Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// DNS names of a server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_names: Vec<String>,
    /// Addresses of a server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
    /// What it is good for.
    pub usage: Usage,
    /// Who signs it.
    pub signer: Signer,
}

/// A certificate and its key, as PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Issued {
    /// The certificate.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: Secret,
}

impl Authorities {
    /// Makes a key and a certificate for it. The serial number is a digest of the new key, so as random as the key.
    pub fn issue(&self, request: &LeafRequest, validity: &Validity) -> Result<Issued> {
        let make = || -> Result<Issued, rcgen::Error> {
            let key = KeyPair::generate()?;
            let params = request.params(validity)?;
            let certificate = self.authority(request.signer).sign(&params, &key)?;
            Ok(Issued { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
        };
        make().map_err(|source| Error::Issue { subject: request.common_name.clone(), source })
    }
}

impl LeafRequest {
    fn params(&self, validity: &Validity) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(organization) = &self.organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.distinguished_name.push(DnType::CommonName, &self.common_name);
        for name in &self.dns_names {
            params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
        }
        params.subject_alt_names.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        params.is_ca = IsCa::ExplicitNoCa;
        // No key encipherment: that is for RSA.
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = match self.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::ServerAndClient => {
                vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
            }
        };
        params.use_authority_key_identifier_extension = true;
        params.not_before = validity.not_before();
        params.not_after = validity.leaf_end();
        Ok(params)
    }
}

pub(crate) fn ia5(text: &str) -> Result<Ia5String, rcgen::Error> {
    Ia5String::try_from(text)
}

/// When a certificate (PEM) expires.
pub fn expires(certificate: &str) -> Result<SystemTime> {
    let unreadable = |reason: String| Error::Read { reason };
    let (_, pem) =
        parse_x509_pem(certificate.as_bytes()).map_err(|error| unreadable(error.to_string()))?;
    let parsed = pem.parse_x509().map_err(|error| unreadable(error.to_string()))?;
    Ok(parsed.validity().not_after.to_datetime().into())
}
