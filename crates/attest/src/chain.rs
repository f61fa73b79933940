//! Path validation: a small subset of RFC 5280, section 6, for the chains that hardware manufacturers issue.
//!
//! Stricter than a TLS library in what matters here: anchors expire, an issuer must be meant for signing certificates,
//! name constraints and unknown critical extensions are refused, SHA-1 and short keys too. Looser in one thing: critical
//! certificate policies are let through, since no policy is asked for and most TPM makers mark theirs.

use muster_model::time::Timestamp;

use crate::anchors::{Anchor, Anchors};
pub use crate::certificate::CERTIFICATE_BYTES_MAX;
use crate::certificate::Certificate;
use crate::reject::Reject;

/// Most certificates in a chain of a TPM or of Apple, the leaf included.
pub const CERTIFICATES_MAX: usize = 4;

const KEY_USAGE_CERT_SIGN: u8 = 0x04;

/// What a format asks of its chains.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub order: Order,
    pub certificates_max: usize,
    pub leaf_dates: LeafDates,
    pub leaf_authority: LeafAuthority,
    pub issuers: Issuers,
}

/// The order of the certificates after the leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any; a certificate may also be of no use.
    Any,
    /// Each is issued by the one after it. The last is an anchor, or issued by one.
    Strict,
}

/// Whether the validity of the leaf counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafDates {
    Checked,
    /// The device sets it and has no clock yet.
    Free,
}

/// Whether the leaf may be an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeafAuthority {
    Refused,
    Free,
}

/// What is asked of the certificates between leaf and anchor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Issuers {
    Strict,
    /// May have expired; the one above the leaf need not be an authority.
    AndroidFactory,
}

/// Reads the certificates of a chain, each bounded before it is read.
pub(crate) fn parse<'a>(
    certificates: &[&'a [u8]],
    certificates_max: usize,
) -> Result<Vec<Certificate<'a>>, Reject> {
    if certificates.is_empty() {
        return Err(Reject::ChainEmpty);
    }
    if certificates.len() > certificates_max {
        return Err(Reject::ChainTooLong);
    }
    if certificates
        .iter()
        .any(|certificate| certificate.len() > CERTIFICATE_BYTES_MAX)
    {
        return Err(Reject::CertificateTooLarge);
    }
    certificates
        .iter()
        .map(|certificate| Certificate::parse(certificate))
        .collect()
}

/// Validates the path from the first certificate to an anchor.
pub(crate) fn validate(
    certificates: &[Certificate<'_>],
    anchors: &Anchors,
    now: Timestamp,
    rules: Rules,
) -> Result<(), Reject> {
    let Some(leaf) = certificates.first() else {
        return Err(Reject::ChainEmpty);
    };
    if certificates.len() > rules.certificates_max {
        return Err(Reject::ChainTooLong);
    }
    if rules.leaf_authority == LeafAuthority::Refused && leaf.basic_constraints()?.authority {
        return Err(Reject::ChainLeafIsAuthority);
    }
    match rules.order {
        Order::Strict => validate_in_order(certificates, anchors, now, rules),
        Order::Any => search(&mut vec![leaf], &certificates[1..], anchors, now, rules),
    }
}

/// Whether the key usage of a certificate, if it has any, is to sign certificates.
pub(crate) fn may_sign_certificates(certificate: &Certificate<'_>) -> Result<bool, Reject> {
    Ok(certificate
        .key_usage()?
        .is_none_or(|usage| usage & KEY_USAGE_CERT_SIGN != 0))
}

fn validate_in_order(
    certificates: &[Certificate<'_>],
    anchors: &Anchors,
    now: Timestamp,
    rules: Rules,
) -> Result<(), Reject> {
    let mut path: Vec<&Certificate<'_>> = Vec::new();
    for (index, certificate) in certificates.iter().enumerate() {
        // A root that was sent along is trusted for its key, so its own dates and signature say nothing.
        let sent_root = index > 0 && index + 1 == certificates.len();
        if let Some(anchor) = sent_root.then(|| same_anchor(certificate, anchors)).flatten() {
            return check_path(&path, anchor, now, rules);
        }
        path.push(certificate);
        let Some(issuer) = certificates.get(index + 1) else {
            break;
        };
        if certificate.issuer != issuer.subject {
            return Err(Reject::ChainOrder);
        }
        certificate.verify(&issuer.key()?)?;
    }
    let anchor = match path.last() {
        Some(last) => issuing_anchor(last, anchors)?,
        None => None,
    };
    check_path(&path, anchor.ok_or(Reject::ChainUnknownRoot)?, now, rules)
}

/// Depth first over the certificates that are left; at most three of them, so at most six paths.
fn search<'c, 'a>(
    path: &mut Vec<&'c Certificate<'a>>,
    rest: &'c [Certificate<'a>],
    anchors: &Anchors,
    now: Timestamp,
    rules: Rules,
) -> Result<(), Reject> {
    let Some(last) = path.last().copied() else {
        return Err(Reject::ChainEmpty);
    };
    let mut first_reject = None;
    match issuing_anchor(last, anchors) {
        Ok(Some(anchor)) => match check_path(path, anchor, now, rules) {
            Ok(()) => return Ok(()),
            Err(reject) => first_reject = Some(reject),
        },
        Ok(None) => {}
        Err(reject) => first_reject = Some(reject),
    }
    for issuer in rest {
        let used = path.iter().any(|used| std::ptr::eq(*used, issuer));
        if used || issuer.subject != last.issuer {
            continue;
        }
        let found = issuer.key().and_then(|key| last.verify(&key)).and_then(|()| {
            path.push(issuer);
            let found = search(path, rest, anchors, now, rules);
            path.pop();
            found
        });
        match found {
            Ok(()) => return Ok(()),
            // That an anchor of the name has another key says less than what is wrong with a path that was tried.
            Err(reject) if first_reject.is_none_or(|first| first == Reject::ChainSignature) => {
                first_reject = Some(reject);
            }
            Err(_) => {}
        }
    }
    Err(first_reject.unwrap_or(Reject::ChainUnknownRoot))
}

/// The anchor whose name and key a certificate holds.
pub(crate) fn same_anchor<'a>(certificate: &Certificate<'_>, anchors: &'a Anchors) -> Option<&'a Anchor> {
    let key = certificate.key().ok()?;
    anchors.anchor_of(certificate.subject, &key)
}

/// The anchor that issued a certificate. Fails if anchors of that name exist and none signed it.
fn issuing_anchor<'a>(
    certificate: &Certificate<'_>,
    anchors: &'a Anchors,
) -> Result<Option<&'a Anchor>, Reject> {
    let mut reject = None;
    for anchor in anchors.named(certificate.issuer) {
        match certificate.verify(&anchor.key) {
            Ok(()) => return Ok(Some(anchor)),
            Err(failed) => reject = Some(failed),
        }
    }
    reject.map_or(Ok(None), Err)
}

/// Checks what the certificates of a path, leaf first, say about themselves. Signatures have been checked.
fn check_path(
    path: &[&Certificate<'_>],
    anchor: &Anchor,
    now: Timestamp,
    rules: Rules,
) -> Result<(), Reject> {
    if now < anchor.not_before || now > anchor.not_after {
        return Err(Reject::ChainAnchorExpired);
    }
    // Certificates between the leaf and the anchor, which its path length counts.
    let below_anchor = path.len().saturating_sub(1) as u64;
    if anchor
        .constraints
        .path_length
        .is_some_and(|length| below_anchor > length)
    {
        return Err(Reject::ChainPathLength);
    }
    for (index, certificate) in path.iter().enumerate() {
        check_dates(index, certificate, now, rules)?;
        if index == 0 {
            continue;
        }
        let constraints = certificate.basic_constraints()?;
        let below = index as u64 - 1;
        if constraints.path_length.is_some_and(|length| below > length) {
            return Err(Reject::ChainPathLength);
        }
        if index == 1 && rules.issuers == Issuers::AndroidFactory {
            continue;
        }
        if !constraints.authority {
            return Err(Reject::ChainIssuerNotAuthority);
        }
        if !may_sign_certificates(certificate)? {
            return Err(Reject::ChainIssuerKeyUsage);
        }
    }
    Ok(())
}

fn check_dates(
    index: usize,
    certificate: &Certificate<'_>,
    now: Timestamp,
    rules: Rules,
) -> Result<(), Reject> {
    if index == 0 && rules.leaf_dates == LeafDates::Free {
        return Ok(());
    }
    if now < certificate.not_before {
        return Err(Reject::ChainNotYetValid);
    }
    let expiry_counts = index == 0 || rules.issuers == Issuers::Strict;
    if expiry_counts && now > certificate.not_after {
        return Err(Reject::ChainExpired);
    }
    Ok(())
}
