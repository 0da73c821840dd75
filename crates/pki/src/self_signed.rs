//! Certificates that nobody signs but themselves: those who know the certificate trust it.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::error::{Error, Result};
use crate::leaf::{Issued, LeafRequest, Usage, ia5};
use crate::pki::Validity;
use crate::secret::Secret;

/// Makes a key and a certificate for it that is valid as long as an authority is: there is nobody to renew it without everybody who
/// knows it. Who would sign the request is not asked.
///
/// # Errors
/// When a name cannot be in a certificate, or the system has no randomness.
pub fn self_signed(request: &LeafRequest, validity: &Validity) -> Result<Issued> {
    let make = || -> Result<Issued, rcgen::Error> {
        let key = KeyPair::generate()?;
        let certificate = params(request, validity)?.self_signed(&key)?;
        Ok(Issued { certificate: certificate.pem(), key: Secret::new(key.serialize_pem()) })
    };
    make().map_err(|source| Error::Issue { subject: request.common_name.clone(), source })
}

fn params(request: &LeafRequest, validity: &Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "bivouac");
    params.distinguished_name.push(DnType::CommonName, &request.common_name);
    for name in &request.dns_names {
        params.subject_alt_names.push(SanType::DnsName(ia5(name)?));
    }
    params.subject_alt_names.extend(request.addresses.iter().copied().map(SanType::IpAddress));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match request.usage {
        Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
        Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
        Usage::ServerAndClient => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
    };
    params.not_before = validity.not_before();
    params.not_after = validity.authority_end();
    Ok(params)
}
