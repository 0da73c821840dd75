//! The three certificate authorities of a cluster and the keys of service account tokens.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::leaf::ia5;
use crate::pki::Validity;
use crate::secret::Secret;

/// Which authority signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signer {
    /// `ca`: API server, kubelets, users.
    Cluster,
    /// `front-proxy-ca`: the API server towards extension API servers.
    FrontProxy,
    /// `etcd/ca`: etcd members and their clients.
    Etcd,
}

/// A certificate authority, as PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authority {
    /// The certificate, self-signed.
    pub certificate: String,
    /// Its private key (PKCS #8).
    pub key: Secret,
}

/// The key pair of service account tokens, as PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountKeys {
    /// `sa.pub`.
    pub public_key: String,
    /// `sa.key` (PKCS #8).
    pub key: Secret,
}

/// Everything from which the rest is made. Keys are ECDSA P-256.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authorities {
    /// `ca.crt`, `ca.key`.
    pub cluster: Authority,
    /// `front-proxy-ca.crt`, `front-proxy-ca.key`.
    pub front_proxy: Authority,
    /// `etcd/ca.crt`, `etcd/ca.key`.
    pub etcd: Authority,
    /// `sa.pub`, `sa.key`.
    pub service_account: ServiceAccountKeys,
}

impl Authorities {
    /// Makes new authorities and keys.
    pub fn generate(validity: &Validity) -> Result<Self> {
        let keys = KeyPair::generate().map_err(|source| issue("service account keys", source))?;
        Ok(Self {
            cluster: Authority::generate("kubernetes", validity)?,
            front_proxy: Authority::generate("front-proxy-ca", validity)?,
            etcd: Authority::generate("etcd-ca", validity)?,
            service_account: ServiceAccountKeys {
                public_key: keys.public_key_pem(),
                key: Secret::new(keys.serialize_pem()),
            },
        })
    }

    /// One of the three.
    pub fn authority(&self, signer: Signer) -> &Authority {
        match signer {
            Signer::Cluster => &self.cluster,
            Signer::FrontProxy => &self.front_proxy,
            Signer::Etcd => &self.etcd,
        }
    }
}

impl Authority {
    fn generate(common_name: &str, validity: &Validity) -> Result<Self> {
        let make = || -> Result<(Certificate, KeyPair), rcgen::Error> {
            let key = KeyPair::generate()?;
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, common_name);
            // kubeadm names an authority by its common name here too.
            params.subject_alt_names = vec![rcgen::SanType::DnsName(ia5(common_name)?)];
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages =
                vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
            params.not_before = validity.not_before();
            params.not_after = validity.authority_end();
            Ok((params.self_signed(&key)?, key))
        };
        let (certificate, key) = make().map_err(|source| issue(common_name, source))?;
        Ok(Self { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
    }

    /// Signs; `params` say what.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        key: &KeyPair,
    ) -> Result<Certificate, rcgen::Error> {
        let own_key = KeyPair::from_pem(self.key.expose())?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, own_key)?;
        params.signed_by(key, &issuer)
    }
}

fn issue(subject: &str, source: rcgen::Error) -> Error {
    Error::Issue { subject: subject.to_owned(), source }
}
