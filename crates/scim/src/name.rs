//! When two names are the same name.

use icu_normalizer::ComposingNormalizerBorrowed;

/// The text by which names are compared: without compatibility differences and without case (Unicode, annex 15). Names whose
/// keys are equal look alike, so that nobody takes over an account by another spelling of its name.
pub fn name_key(name: &str) -> String {
    let normalizer = ComposingNormalizerBorrowed::new_nfkc();
    let folded = normalizer.normalize(name.trim()).to_lowercase();
    normalizer.normalize(&folded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s1_other_spellings_are_the_same_name() {
        for other in [
            "Zoe\u{308}@Example.com",
            " zo\u{eb}@example.com ",
            "ZO\u{cb}@EXAMPLE.COM",
            "\u{ff5a}o\u{eb}@example.com",
        ] {
            assert_eq!(name_key(other), "zo\u{eb}@example.com");
        }
        assert_ne!(name_key("zoe@example.com"), name_key("zo\u{eb}@example.com"));
    }
}
