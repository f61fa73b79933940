//! Finite numbers on the wire: whole ones as integers, which are shorter in both encodings.

use std::fmt;

use serde::{Deserializer, Serializer, de};

/// Up to here every whole number has an exact `f64`.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Writes a whole number as an integer, any other as a float.
pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        serializer.serialize_i64(*value as i64)
    } else {
        serializer.serialize_f64(*value)
    }
}

/// Reads an integer or a float; infinities and what is not a number are refused.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    struct Number;
    impl de::Visitor<'_> for Number {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a finite number")
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<f64, E> {
            if value.is_finite() {
                Ok(value)
            } else {
                Err(E::custom("a number is not finite"))
            }
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<f64, E> {
            Ok(value as f64)
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<f64, E> {
            Ok(value as f64)
        }
    }
    deserializer.deserialize_any(Number)
}
