//! The file form of a loadable TPM key that other programs know: "TPM 2.0 Key Format", draft-bottomley-tpm2-keys, section 3.
//!
//! ```text
//! TPMKey ::= SEQUENCE {
//!     type        OBJECT IDENTIFIER,             -- id-loadablekey 2.23.133.10.1.3
//!     emptyAuth   [0] EXPLICIT BOOLEAN OPTIONAL,
//!     parent      INTEGER,
//!     pubkey      OCTET STRING,                  -- TPM2B_PUBLIC
//!     privkey     OCTET STRING }                 -- TPM2B_PRIVATE
//! ```

/// Label of the PEM block.
pub const LABEL: &str = "TSS2 PRIVATE KEY";

const LOADABLE_KEY: [u8; 8] = [0x06, 0x06, 0x67, 0x81, 0x05, 0x0a, 0x01, 0x03];
const EMPTY_AUTH: [u8; 5] = [0xa0, 0x03, 0x01, 0x01, 0xff];
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

/// The key as DER. `parent` is a persistent handle, or the owner hierarchy, whose storage root key of the standard template
/// is then made anew; `public` and `private` are `TPMT_PUBLIC` and `TPM2B_PRIVATE` without their lengths.
pub fn loadable_key(parent: u32, public: &[u8], private: &[u8]) -> Vec<u8> {
    // An integer is signed, so a handle from 0x80000000 on has a zero before it.
    let mut handle = parent.to_be_bytes().to_vec();
    if handle[0] & 0x80 != 0 {
        handle.insert(0, 0);
    }
    let parts = [
        LOADABLE_KEY.to_vec(),
        EMPTY_AUTH.to_vec(),
        element(INTEGER, &handle),
        element(OCTET_STRING, &sized(public)),
        element(OCTET_STRING, &sized(private)),
    ];
    element(SEQUENCE, &parts.concat())
}

fn sized(bytes: &[u8]) -> Vec<u8> {
    // What a TPM gives is far below 64 KiB; the codec refused anything else.
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], bytes].concat()
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut der = vec![tag];
    match content.len() {
        short @ 0..=0x7f => der.push(short as u8),
        long => {
            let bytes = long.to_be_bytes();
            let bytes = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(0)..];
            der.push(0x80 | bytes.len() as u8);
            der.extend_from_slice(bytes);
        }
    }
    der.extend_from_slice(content);
    der
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_the_documented_form() {
        let der = loadable_key(0x4000_0001, &[1; 200], &[2]);
        assert_eq!(der[..3], [0x30, 0x81, (der.len() - 3) as u8]);
        assert_eq!(
            der[3..22],
            [
                0x06, 0x06, 0x67, 0x81, 0x05, 0x0a, 0x01, 0x03, 0xa0, 0x03, 0x01, 0x01, 0xff, 0x02, 0x04,
                0x40, 0, 0, 1
            ]
        );
        assert_eq!(der[22..27], [0x04, 0x81, 202, 0, 200]);
        assert_eq!(der[der.len() - 5..], [0x04, 3, 0, 1, 2]);
        let persistent = loadable_key(0x8100_0001, &[], &[]);
        assert!(
            persistent
                .windows(7)
                .any(|window| window == [0x02, 5, 0, 0x81, 0, 0, 1])
        );
    }
}
