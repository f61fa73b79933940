//! Certificates as text (RFC 7468 section 5).

use base64::{Engine as _, engine::general_purpose::STANDARD};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";
/// The most certificates of one text.
const CERTIFICATES_MAX: usize = 16;

/// The certificates of a text, as DER; `None` where the text holds none or anything else. What is in a certificate is not
/// looked at, only that each is one DER sequence.
pub fn certificates(text: &str) -> Option<Vec<Vec<u8>>> {
    let (mut rest, mut found) = (text.trim(), Vec::new());
    while !rest.is_empty() {
        let (body, after) = rest.strip_prefix(BEGIN)?.split_once(END)?;
        let digits: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(digits).ok()?;
        if !is_sequence(&der) || found.len() == CERTIFICATES_MAX {
            return None;
        }
        found.push(der);
        rest = after.trim_start();
    }
    (!found.is_empty()).then_some(found)
}

/// Whether the bytes are exactly one DER sequence (X.690 section 8.1.3).
fn is_sequence(der: &[u8]) -> bool {
    let Some((&0x30, rest)) = der.split_first() else {
        return false;
    };
    match rest.split_first() {
        Some((&short, body)) if short < 0x80 => body.len() == usize::from(short),
        Some((&long @ 0x81..=0x84, body)) => {
            let digits = usize::from(long & 0x7f);
            let Some((length, body)) = body.split_at_checked(digits) else {
                return false;
            };
            length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) == body.len()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_of_certificates_is_read_and_anything_else_is_not() {
        let one = format!("{BEGIN}\nMAA=\n{END}\n");
        assert_eq!(certificates(&one), Some(vec![vec![0x30, 0]]));
        assert_eq!(certificates(&format!("{one}{one}")).map(|all| all.len()), Some(2));
        for text in [
            String::new(),
            "MAA=".to_owned(),
            format!("{BEGIN}{END}"),
            format!("{BEGIN}\nMAB=\n{END}"),
            format!("{BEGIN}\nMAE=\n{END}"),
            format!("{one}x"),
            one.repeat(CERTIFICATES_MAX + 1),
            one.replace("CERTIFICATE", "PRIVATE KEY"),
        ] {
            assert_eq!(certificates(&text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_brings_the_reader_down(body in ".{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..8)) {
            certificates(&body);
            let text = format!("{BEGIN}{}{END}", STANDARD.encode(bytes));
            certificates(&text);
        }
    }
}
