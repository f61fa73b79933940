//! A certificate authority of somebody else.

use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

pub struct TestAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl TestAuthority {
    pub fn new(name: &str) -> TestAuthority {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.self_signed(&key).expect("it signs itself");
        TestAuthority {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for these names that began a minute ago and lives on for so long, with its key: both PEM.
    pub fn issue(&self, names: &[&str], lifetime: Duration) -> (String, String) {
        let key = KeyPair::generate().expect("a key can be made");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = with_names(CertificateParams::default(), &names, lifetime);
        let leaf = params.signed_by(&key, &self.issuer).expect("it signs");
        (leaf.pem() + &self.pem(), key.serialize_pem())
    }

    /// As [`TestAuthority::issue`], for the key of a request (PEM).
    pub fn certify_request(&self, csr: &str, names: &[String], lifetime: Duration) -> Option<String> {
        let mut request = CertificateSigningRequestParams::from_pem(csr).ok()?;
        request.params = with_names(CertificateParams::default(), names, lifetime);
        Some(request.signed_by(&self.issuer).ok()?.pem())
    }
}

fn with_names(mut params: CertificateParams, names: &[String], lifetime: Duration) -> CertificateParams {
    let now = UNIX_EPOCH + Duration::from_secs(super::unix_seconds().unsigned_abs());
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + lifetime).into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let first = names.first().cloned().unwrap_or_default();
    params.distinguished_name.push(DnType::CommonName, first);
    let name = |name: &String| SanType::DnsName(name.as_str().try_into().expect("it is a name"));
    params.subject_alt_names = names.iter().map(name).collect();
    params
}
