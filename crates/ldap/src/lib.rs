//! LDAP version 3 (RFC 4511) without I/O, as far as a reader of people and groups needs it: messages as bytes, filters and
//! names as text, and the values that directories write in forms of their own.
//!
//! Everything a directory sends is read here. Nothing panics on it, nothing recurses on it, and each part has a bound with a
//! name. There is no way to write anything into a directory with this crate.

mod ber;
mod dn;
mod filter;
mod message;
#[cfg(test)]
mod tests;
mod value;

pub use ber::MESSAGE_BYTES_MAX;
pub use dn::{NAME_BYTES_MAX, dn_key};
pub use filter::{FILTER_BYTES_MAX, Filter, FilterError, escape};
pub use message::{
    Control, DecodeError, Entry, Message, Outcome, PAGED_RESULTS, Page, Response, START_TLS, Scope, Search,
    VALUES_MAX, bind_external, bind_simple, frame_length, search, start_tls, unbind,
};
pub use value::{
    DAYS_PER_ACCOUNT_MAX, Range, file_time, generalized_time, guid_bytes, guid_text, is_disabled_account,
    parse_range, shadow_days, truth,
};
