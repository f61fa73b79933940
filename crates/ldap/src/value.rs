//! Values that directories write in forms of their own.

/// Days that an account can last: the year 9999, as days since 1970.
pub const DAYS_PER_ACCOUNT_MAX: i64 = 2_932_896;
/// Hundred-nanosecond steps of a second (MS-DTYP, section 2.3.3).
const FILE_TIME_STEPS_PER_SECOND: i64 = 10_000_000;
/// From 1601 to 1970.
const FILE_TIME_EPOCH_SECONDS: i64 = 11_644_473_600;
/// ADS_UF_ACCOUNTDISABLE.
const ACCOUNT_DISABLED: u32 = 0x2;

/// An objectGUID as its text: the first three groups are stored with their lowest byte first (MS-DTYP, section 2.3.4).
/// Nothing where it does not have 16 bytes.
pub fn guid_text(bytes: &[u8]) -> Option<String> {
    let bytes: &[u8; 16] = bytes.try_into().ok()?;
    let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
    let mut text = String::with_capacity(36);
    for (at, byte) in [d, c, b, a, f, e, h, g].into_iter().chain(rest).enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Some(text)
}

/// The bytes of an objectGUID that has this text; nothing where it is none. The way back of [`guid_text`].
pub fn guid_bytes(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let mut read = [0_u8; 16];
    if digits.len() != 32 {
        return None;
    }
    for (pair, byte) in digits.chunks_exact(2).zip(&mut read) {
        let digits = std::str::from_utf8(pair).ok()?;
        let is_hex = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = is_hex.then(|| u8::from_str_radix(digits, 16).ok()).flatten()?;
    }
    let [d, c, b, a, f, e, h, g, rest @ ..] = read;
    let mut bytes = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0];
    for (byte, read) in bytes.iter_mut().skip(8).zip(rest) {
        *byte = read;
    }
    (guid_text(&bytes)? == text).then_some(bytes)
}

/// Which part of an attribute's values an answer holds (MS-ADTS, section 3.1.1.3.1.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub first: u32,
    /// Nothing where these are the last ones.
    pub last: Option<u32>,
}

/// The name and the range of a description such as `member;range=0-1499`; nothing where it has no range.
pub fn parse_range(description: &str) -> Option<(&str, Range)> {
    let (name, option) = description.split_once(';')?;
    let (key, range) = option.split_once('=')?;
    if !key.eq_ignore_ascii_case("range") {
        return None;
    }
    let (first, last) = range.split_once('-')?;
    let number = |text: &str| -> Option<u32> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    let first = number(first)?;
    let last = match last {
        "*" => None,
        last => Some(number(last)?),
    };
    if last.is_some_and(|last| last < first) {
        return None;
    }
    Some((name, Range { first, last }))
}

/// Whether `userAccountControl` says that the account is disabled; nothing where it is no number.
pub fn is_disabled_account(text: &str) -> Option<bool> {
    // It is a signed number of 32 bits in the schema.
    let flags: i64 = text.trim().parse().ok()?;
    let flags = u32::try_from(flags & 0xffff_ffff).ok()?;
    Some(flags & ACCOUNT_DISABLED != 0)
}

/// Seconds since 1970 of a time such as `accountExpires`. Two numbers mean never (MS-ADA1, section 2.2): nothing inside.
/// Nothing at all where it is no number.
pub fn file_time(text: &str) -> Option<Option<i64>> {
    let steps: i64 = text.trim().parse().ok()?;
    if steps <= 0 || steps == i64::MAX {
        return Some(None);
    }
    Some(Some(steps / FILE_TIME_STEPS_PER_SECOND - FILE_TIME_EPOCH_SECONDS))
}

/// Seconds since 1970 of `shadowExpire`, which counts days; negative means never. Nothing at all where it is no number.
pub fn shadow_days(text: &str) -> Option<Option<i64>> {
    let days: i64 = text.trim().parse().ok()?;
    if days < 0 {
        return Some(None);
    }
    Some(Some(days.min(DAYS_PER_ACCOUNT_MAX) * 86_400))
}

/// A truth value (RFC 4517, section 3.3.3), in any case.
pub fn truth(text: &str) -> Option<bool> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("true") {
        return Some(true);
    }
    text.eq_ignore_ascii_case("false").then_some(false)
}

/// Seconds since 1970 of a generalized time (RFC 4517, section 3.3.13): `YYYYMMDDHH[MM[SS]][.fraction](Z|±HH[MM])`.
/// Fractions are dropped.
pub fn generalized_time(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if !matches!(digits, 10 | 12 | 14) {
        return None;
    }
    let (number, rest) = text.split_at_checked(digits)?;
    let field = |from: usize, to: usize| -> Option<i64> {
        number.get(from..to).map_or(Some(0), |part| part.parse().ok())
    };
    let (year, month, day) = (field(0, 4)?, field(4, 6)?, field(6, 8)?);
    let (hour, minute, second) = (field(8, 10)?, field(10, 12)?, field(12, 14)?);
    let is_time = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..61).contains(&second);
    if !is_time || !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let rest = match rest.strip_prefix(['.', ',']) {
        Some(fraction) => {
            let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
            fraction.get(digits..).filter(|_| digits > 0)?
        }
        None => rest,
    };
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds - offset_seconds(rest)?)
}

fn offset_seconds(text: &str) -> Option<i64> {
    if text == "Z" || text == "z" {
        return Some(0);
    }
    let (sign, digits) = match text.split_at_checked(1)? {
        ("+", digits) => (1, digits),
        ("-", digits) => (-1, digits),
        _ => return None,
    };
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number || !matches!(digits.len(), 2 | 4) {
        return None;
    }
    let hours: i64 = digits.get(..2)?.parse().ok()?;
    let minutes: i64 = digits
        .get(2..)
        .filter(|part| !part.is_empty())
        .map_or(Some(0), |part| part.parse().ok())?;
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to a day of the Gregorian calendar, of years 0 to 9999.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let before = |year: i64| year * 365 + (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    before(year) - before(1970) + months + day - 1
}
