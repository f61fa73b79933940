//! `certs.trusted_roots`: a file per authority among the system's local ones, and its bundle rebuilt.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use muster_model::settings::SettingValue;
use x509_parser::pem::Pem;

use super::super::effects::Effect;
use super::super::enforce::{Finding, Machine, Plan, Refusal};
use super::super::files::{FileError, Root};

/// Debian's update-ca-certificates(8), then Fedora's update-ca-trust(8).
const DEBIAN_FOLDER: &str = "/usr/local/share/ca-certificates";
const FEDORA_FOLDER: &str = "/etc/pki/ca-trust/source/anchors";
/// The bundle that the first makes.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const PEM_COLUMNS: usize = 64;
const CERTIFICATES_MAX: usize = 256;

pub(super) fn plan(machine: Machine<'_>, value: &SettingValue, plan: &mut Plan) -> Result<(), Refusal> {
    let authorities = parse(value).map_err(Refusal::Failed)?;
    if machine.root.is_real()
        && !machine.tools.has("update-ca-certificates")
        && !machine.tools.has("update-ca-trust")
    {
        return Err(Refusal::Failed(
            "neither update-ca-certificates nor update-ca-trust is installed".to_owned(),
        ));
    }
    for der in &authorities {
        plan.own(
            &file(machine.root, der),
            "#",
            &pem(der),
            0o644,
            &[Effect::CertificatesUpdate],
        );
    }
    Ok(())
}

pub(super) fn observe(machine: Machine<'_>, value: &SettingValue) -> Result<Finding, FileError> {
    let authorities = match parse(value) {
        Ok(authorities) => authorities,
        Err(why) => return Ok(Finding::Missing { observed: None, why }),
    };
    let bundle = if machine.root.is_real() && folder(machine.root) == DEBIAN_FOLDER {
        Some(machine.root.read(BUNDLE)?.unwrap_or_default())
    } else {
        None
    };
    let mut present = Vec::new();
    let mut why = None;
    for der in &authorities {
        let path = file(machine.root, der);
        let found = machine
            .root
            .read(&path)?
            .and_then(|text| certificates(&text).ok())
            .unwrap_or_default();
        if found.iter().all(|other| other != der) {
            why = why.or(Some(format!("{path} does not hold the authority")));
        } else if bundle.as_ref().is_some_and(|bundle| !bundle.contains(&body(der))) {
            why = why.or(Some(format!("{BUNDLE} does not hold the authority of {path}")));
        } else {
            present.push(SettingValue::Text(fingerprint(der)));
        }
    }
    let observed = SettingValue::List(present);
    Ok(match why {
        None => Finding::InForce {
            observed,
            note: Some("observed: SHA-256 of each certificate".to_owned()),
        },
        Some(why) => Finding::Missing {
            observed: Some(observed),
            why,
        },
    })
}

/// Every certificate of every text, as DER. Each must be an authority.
fn parse(value: &SettingValue) -> Result<Vec<Vec<u8>>, String> {
    let items = super::list(value).ok_or("the value is not of the setting's kind")?;
    let mut authorities = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let text = super::text(item).ok_or("the value is not of the setting's kind")?;
        let found = certificates(text).map_err(|why| format!("item {}: {why}", index + 1))?;
        if found.is_empty() {
            return Err(format!("item {} holds no certificate", index + 1));
        }
        authorities.extend(found);
        if authorities.len() > CERTIFICATES_MAX {
            return Err(format!("there are more than {CERTIFICATES_MAX} certificates"));
        }
    }
    Ok(authorities)
}

fn certificates(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut found = Vec::new();
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|error| format!("not PEM: {error}"))?;
        if block.label != "CERTIFICATE" {
            return Err(format!("a {} is no certificate", block.label));
        }
        let certificate = block
            .parse_x509()
            .map_err(|error| format!("not a certificate: {error}"))?;
        if !certificate.is_ca() {
            return Err("the certificate is not of an authority".to_owned());
        }
        found.push(block.contents);
    }
    Ok(found)
}

fn folder(root: &Root) -> &'static str {
    if root.exists("/etc/pki/ca-trust/source") {
        FEDORA_FOLDER
    } else {
        DEBIAN_FOLDER
    }
}

fn file(root: &Root, der: &[u8]) -> String {
    format!("{}/muster-{}.crt", folder(root), &fingerprint(der)[..16])
}

fn fingerprint(der: &[u8]) -> String {
    hex::encode(digest(&SHA256, der))
}

fn pem(der: &[u8]) -> String {
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        body(der)
    )
}

fn body(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines = text.as_bytes().chunks(PEM_COLUMNS).map(String::from_utf8_lossy);
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::test_machine::TestMachine;
    use muster_model::report::SettingState;
    use serde_json::json;

    const KEY: &str = "certs.trusted_roots";

    fn authority(is_ca: bool) -> String {
        let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        if is_ca {
            parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        parameters
            .self_signed(&rcgen::KeyPair::generate().unwrap())
            .unwrap()
            .pem()
    }

    #[test]
    fn authorities_become_files_and_go_again() {
        let (one, two) = (authority(true), authority(true));
        TestMachine::new().check_lifecycle(
            json!({KEY: [one, format!("comment\n{two}")]}),
            |machine, reports| {
                assert_eq!(reports[KEY].state, SettingState::Verified, "{reports:?}");
                let count = std::fs::read_dir(machine.path("/usr/local/share/ca-certificates"))
                    .unwrap()
                    .count();
                assert_eq!(count, 2);
            },
        );
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for text in [
            authority(false),
            "x".to_owned(),
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
        ] {
            let machine = TestMachine::new();
            assert_eq!(
                machine.apply(json!({KEY: [text]}))[KEY].state,
                SettingState::Failed
            );
            assert!(!machine.exists("/usr"));
        }
    }

    #[test]
    fn a_replaced_file_is_found() {
        let machine = TestMachine::new();
        let settings = json!({KEY: [authority(true)]});
        machine.apply(settings.clone());
        for entry in std::fs::read_dir(machine.path("/usr/local/share/ca-certificates")).unwrap() {
            std::fs::write(entry.unwrap().path(), authority(true)).unwrap();
        }
        assert_eq!(machine.read_back(settings)[KEY].state, SettingState::Failed);
    }
}
