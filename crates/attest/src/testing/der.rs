//! Writes DER: enough to make certificates and attestation extensions, right or wrong.

use muster_model::time::Timestamp;

pub use crate::key::{bits, positive, sequence, tlv};

/// An object identifier from its encoded octets.
pub fn oid(octets: &[u8]) -> Vec<u8> {
    tlv(0x06, octets)
}

/// An object identifier from its dotted text, without tag and length.
pub fn oid_octets(dotted: &str) -> Vec<u8> {
    let arcs: Vec<u64> = dotted
        .split('.')
        .map(|arc| arc.parse().expect("a number"))
        .collect();
    let (first, second) = (arcs[0], arcs[1]);
    let mut octets = Vec::new();
    for arc in std::iter::once(first * 40 + second).chain(arcs[2..].iter().copied()) {
        let groups = (0..10).rev().map(|group| (arc >> (7 * group) & 0x7f) as u8);
        let significant: Vec<u8> = groups.skip_while(|group| *group == 0).collect();
        let significant = if significant.is_empty() {
            vec![0]
        } else {
            significant
        };
        let last = significant.len() - 1;
        octets.extend(
            significant
                .iter()
                .enumerate()
                .map(|(index, group)| if index == last { *group } else { group | 0x80 }),
        );
    }
    octets
}

/// An INTEGER.
pub fn integer(value: u64) -> Vec<u8> {
    positive(&value.to_be_bytes())
}

/// An ENUMERATED.
pub fn enumerated(value: u8) -> Vec<u8> {
    tlv(0x0a, &[value])
}

/// An OCTET STRING.
pub fn octets(value: &[u8]) -> Vec<u8> {
    tlv(0x04, value)
}

/// A BOOLEAN.
pub fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

/// A SET of elements as given.
pub fn set(value: &[u8]) -> Vec<u8> {
    tlv(0x31, value)
}

/// An explicit context-specific tag of any number.
pub fn explicit(number: u32, value: &[u8]) -> Vec<u8> {
    if number < 31 {
        return tlv(0xa0 | number as u8, value);
    }
    let mut groups: Vec<u8> = (0..5)
        .rev()
        .map(|group| (number >> (7 * group) & 0x7f) as u8)
        .collect();
    let significant = groups.iter().position(|group| *group != 0).unwrap_or(4);
    groups.drain(..significant);
    let last = groups.len() - 1;
    for group in &mut groups[..last] {
        *group |= 0x80;
    }
    let rest = tlv(0, value);
    [&[0xbf][..], &groups, &rest[1..]].concat()
}

/// A name of one attribute each per relative name, in UTF-8: object identifier in dotted form and text.
pub fn name(attributes: &[(&str, &str)]) -> Vec<u8> {
    let relative: Vec<u8> = attributes
        .iter()
        .flat_map(|(attribute, text)| {
            let value = tlv(0x0c, text.as_bytes());
            set(&sequence(&[oid(&oid_octets(attribute)), value].concat()))
        })
        .collect();
    sequence(&relative)
}

/// A name that is a common name alone.
pub fn common_name(text: &str) -> Vec<u8> {
    name(&[("2.5.4.3", text)])
}

/// A time of a certificate's validity.
pub fn time(at: Timestamp) -> Vec<u8> {
    let text = Timestamp::from_unix_seconds(at.as_unix_seconds()).to_string();
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    if digits.as_str() < "2050" {
        tlv(0x17, format!("{}Z", &digits[2..]).as_bytes())
    } else {
        tlv(0x18, format!("{digits}Z").as_bytes())
    }
}
