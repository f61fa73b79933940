use proptest::prelude::*;

use crate::ber::{put, put_number};
use crate::*;

fn entry_bytes(id: u32, dn: &str, attributes: &[(&str, &[&[u8]])]) -> Vec<u8> {
    let mut listed = Vec::new();
    for (name, values) in attributes {
        let (mut one, mut set) = (Vec::new(), Vec::new());
        put(&mut one, 0x04, name.as_bytes());
        values.iter().for_each(|value| put(&mut set, 0x04, value));
        put(&mut one, 0x31, &set);
        put(&mut listed, 0x30, &one);
    }
    let mut content = Vec::new();
    put(&mut content, 0x04, dn.as_bytes());
    put(&mut content, 0x30, &listed);
    message_bytes(id, 0x64, &content, &[])
}

fn message_bytes(id: u32, tag: u8, content: &[u8], controls: &[u8]) -> Vec<u8> {
    let (mut parts, mut message) = (Vec::new(), Vec::new());
    put_number(&mut parts, 0x02, id);
    put(&mut parts, tag, content);
    parts.extend_from_slice(controls);
    put(&mut message, 0x30, &parts);
    message
}

fn outcome_bytes(code: u32, text: &str) -> Vec<u8> {
    let mut content = Vec::new();
    put_number(&mut content, 0x0a, code);
    put(&mut content, 0x04, b"");
    put(&mut content, 0x04, text.as_bytes());
    content
}

#[test]
fn an_entry_is_read() {
    let long = vec![b'x'; 300];
    let bytes = entry_bytes(7, "uid=ada,dc=ex", &[("UID", &[b"ada"]), ("cn", &[b" ", &long])]);
    assert_eq!(frame_length(&bytes), Ok(Some(bytes.len())));
    assert_eq!(frame_length(&bytes[..3]), Ok(None));
    let message = Message::decode(&bytes).expect("a message");
    let Response::Entry(entry) = message.response else {
        panic!("no entry: {message:?}");
    };
    assert_eq!((message.id, entry.dn.as_str()), (7, "uid=ada,dc=ex"));
    assert_eq!(entry.text("uid"), Some("ada"));
    assert_eq!(entry.text("CN").map(str::len), Some(300));
    assert_eq!(entry.text("sn"), None);
}

#[test]
fn the_end_of_a_page_says_where_the_next_begins() {
    let (mut parts, mut value) = (Vec::new(), Vec::new());
    put_number(&mut parts, 0x02, 0);
    put(&mut parts, 0x04, b"cookie");
    put(&mut value, 0x30, &parts);
    let (mut control, mut listed, mut controls) = (Vec::new(), Vec::new(), Vec::new());
    put(&mut control, 0x04, PAGED_RESULTS.as_bytes());
    put(&mut control, 0x04, &value);
    put(&mut listed, 0x30, &control);
    put(&mut controls, 0xa0, &listed);
    let bytes = message_bytes(2, 0x65, &outcome_bytes(0, ""), &controls);
    let message = Message::decode(&bytes).expect("a message");
    assert_eq!(message.next_page(), Ok(Some(b"cookie".to_vec())));
    let bare = Message::decode(&message_bytes(2, 0x65, &outcome_bytes(4, "a\u{1b}[2J"), &[]));
    let bare = bare.expect("a message");
    assert_eq!(bare.next_page(), Ok(None));
    let Response::SearchDone(outcome) = bare.response else {
        panic!("no end");
    };
    assert!(outcome.is_cut_off());
    assert_eq!(outcome.sentence(), "sizeLimitExceeded (4): a[2J");
}

#[test]
fn lengths_in_four_bytes_are_read_as_active_directory_writes_them() {
    let bytes = [
        0x30, 0x84, 0, 0, 0, 0x10, 0x02, 0x01, 0x01, 0x61, 0x84, 0, 0, 0, 0x07, 0x0a, 0x01, 0x00, 0x04, 0x00,
        0x04, 0x00,
    ];
    let message = Message::decode(&bytes).expect("a message");
    assert!(matches!(message.response, Response::Bound(outcome) if outcome.is_success()));
}

#[test]
fn what_is_too_long_or_no_message_is_refused_before_it_is_read() {
    assert_eq!(
        frame_length(&[0x30, 0x84, 0x7f, 0xff, 0xff, 0xff]),
        Err(DecodeError::TooLong)
    );
    assert_eq!(frame_length(b"HTTP/1.1 400"), Err(DecodeError::Shape));
    assert_eq!(frame_length(&[0x30, 0x80]), Err(DecodeError::Shape));
    let nested: Vec<u8> = [0x30, 0x83, 0x01, 0, 0].repeat(10_000);
    assert!(Message::decode(&nested).is_err());
}

#[test]
fn the_values_of_one_answer_are_counted_together() {
    let empty: Vec<&[u8]> = vec![b""; VALUES_MAX / 2];
    let whole = entry_bytes(1, "cn=x", &[("a", &empty), ("b", &empty)]);
    assert!(Message::decode(&whole).is_ok());
    let over = entry_bytes(1, "cn=x", &[("a", &empty), ("b", &empty), ("c", &[b""])]);
    assert_eq!(Message::decode(&over), Err(DecodeError::TooMany));
}

#[test]
fn a_bind_is_what_the_standard_says_whatever_its_length() {
    let bytes = bind_simple(2, "cn=a", b"secret");
    let expected = b"\x30\x16\x02\x01\x02\x60\x11\x02\x01\x03\x04\x04cn=a\x80\x06secret";
    assert_eq!(bytes, expected);
    let long = bind_simple(u32::MAX >> 1, &"d".repeat(70_000), &[b'p'; 70_000]);
    assert_eq!(frame_length(&long), Ok(Some(long.len())));
}

#[test]
fn names_with_values_that_are_no_text_are_never_one() {
    assert_ne!(dn_key("cn=\\ff,dc=ex"), dn_key("cn=\\fe,dc=ex"));
    assert_eq!(dn_key("CN=\\FF,dc=ex"), dn_key("cn=\\ff,dc=ex"));
}

#[test]
fn filters_are_read_and_written_as_the_standard_says() {
    let filter =
        Filter::parse("(&(objectClass=person)(!(uid=a\\2ab))(mail=*@ex*.com)(cn=*))").expect("a filter");
    let Filter::And(parts) = &filter else {
        panic!("{filter:?}");
    };
    assert_eq!(
        parts[1],
        Filter::Not(Box::new(Filter::Equal("uid".to_owned(), b"a*b".to_vec())))
    );
    assert_eq!(
        parts[2],
        Filter::Substrings(
            "mail".to_owned(),
            None,
            vec![b"@ex".to_vec()],
            Some(b".com".to_vec())
        )
    );
    assert_eq!(parts[3], Filter::Present("cn".to_owned()));
    let rule = Filter::parse("(userAccountControl:1.2.840.113556.1.4.803:=2)").expect("a filter");
    let name = Some("userAccountControl".to_owned());
    let oid = Some("1.2.840.113556.1.4.803".to_owned());
    assert_eq!(rule, Filter::Extensible(oid, name, b"2".to_vec(), false));
    let mut bytes = Vec::new();
    Filter::parse("uid=a").expect("a filter").encode(&mut bytes);
    assert_eq!(bytes, [0xa3, 8, 4, 3, b'u', b'i', b'd', 4, 1, b'a']);
    for wrong in [
        "",
        "(",
        "(uid)",
        "(uid=a",
        "uid=a)",
        "(=a)",
        "(uid=(a)",
        "(uid=\\zz)",
        "(uid>=a*)",
        "(a=**b)",
    ] {
        assert!(Filter::parse(wrong).is_err(), "{wrong}");
    }
    assert!(Filter::parse(&format!("{}(a=b){}", "(!".repeat(40), ")".repeat(40))).is_err());
}

#[test]
fn s6_a_value_cannot_become_a_part_of_a_filter() {
    let hostile = "*)(uid=*\\\0";
    assert_eq!(escape(hostile), "\\2a\\29\\28uid=\\2a\\5c\\00");
    let filter = Filter::parse(&format!("(uid={})", escape(hostile)));
    assert_eq!(
        filter,
        Ok(Filter::Equal("uid".to_owned(), hostile.as_bytes().to_vec()))
    );
    assert!(Filter::parse(&format!("(uid={hostile})")).is_err());
}

#[test]
fn spellings_of_one_name_are_one_key() {
    let key = dn_key("CN=Ada  Lovelace,OU=People,DC=ex");
    for same in [
        "cn=ada lovelace, ou=people , dc=EX",
        "cn=ada\\20lovelace,ou=people,dc=ex",
        "cn= Ada Lovelace;ou=People;dc=ex",
    ] {
        assert_eq!(dn_key(same), key, "{same}");
    }
    for other in [
        "cn=ada lovelace\\,ou=people,dc=ex",
        "cn=ada,ou=people,dc=ex",
        "cn=ada lovelace,ou=people",
    ] {
        assert_ne!(dn_key(other), key, "{other}");
    }
    assert_eq!(dn_key("cn=a+uid=b,dc=ex"), dn_key("UID=b + CN=A,dc=ex"));
    assert_eq!(dn_key("cn=Lu\\C4\\8Di\\C4\\87"), dn_key("cn=Lučić"));
    assert_eq!(dn_key("Not A Name"), "not a name");
}

#[test]
fn values_of_directories_are_read() {
    let guid = [
        0x78, 0x56, 0x34, 0x12, 0xbc, 0x9a, 0xf0, 0xde, 1, 2, 3, 4, 5, 6, 7, 8,
    ];
    assert_eq!(
        guid_text(&guid).as_deref(),
        Some("12345678-9abc-def0-0102-030405060708")
    );
    assert_eq!(guid_text(&guid[1..]), None);
    let range = |text| parse_range(text).map(|(name, range)| (name, range.first, range.last));
    assert_eq!(range("member;range=0-1499"), Some(("member", 0, Some(1499))));
    assert_eq!(range("member;Range=1500-*"), Some(("member", 1500, None)));
    for wrong in [
        "member",
        "member;lang-en",
        "member;range=5-4",
        "member;range=-",
        "member;range=+1-2",
    ] {
        assert_eq!(range(wrong), None, "{wrong}");
    }
    assert_eq!(is_disabled_account("514"), Some(true));
    assert_eq!(is_disabled_account("512"), Some(false));
    assert_eq!(is_disabled_account("-2147483646"), Some(true));
    assert_eq!(is_disabled_account(""), None);
    assert_eq!(file_time("0"), Some(None));
    assert_eq!(file_time("9223372036854775807"), Some(None));
    assert_eq!(file_time("116444736000000000"), Some(Some(0)));
    assert_eq!(shadow_days("-1"), Some(None));
    assert_eq!(shadow_days("1"), Some(Some(86_400)));
    assert_eq!(truth("TRUE"), Some(true));
    assert_eq!(truth("1"), None);
    assert_eq!(generalized_time("19700101000000Z"), Some(0));
    assert_eq!(generalized_time("20240229120000.5+0200"), Some(1_709_200_800));
    assert_eq!(generalized_time("2026112903Z"), Some(1_795_921_200));
    assert_eq!(generalized_time("000001010000Z"), Some(-62_167_219_200));
    for wrong in [
        "",
        "20230229000000Z",
        "20260101240000Z",
        "20260101",
        "20260101000000",
        "2026010100+9",
    ] {
        assert_eq!(generalized_time(wrong), None, "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_bytes_of_a_directory_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = frame_length(&bytes);
        if let Ok(message) = Message::decode(&bytes) {
            let _ = message.next_page();
        }
        let _ = guid_text(&bytes);
        let _ = guid_bytes(&String::from_utf8_lossy(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        let _ = Filter::parse(&text);
        let _ = dn_key(&text);
    }

    #[test]
    fn a_damaged_entry_is_read_or_refused(at in 0_usize..60, byte in any::<u8>()) {
        let mut bytes = entry_bytes(3, "uid=ada,dc=ex", &[("uid", &[b"ada"]), ("mail", &[b"a@ex", b"b@ex"])]);
        if let Some(place) = bytes.get_mut(at) {
            *place = byte;
        }
        let _ = Message::decode(&bytes);
    }

    #[test]
    fn texts_of_a_directory_never_panic(text in "\\PC{0,60}") {
        let _ = (parse_range(&text), is_disabled_account(&text), file_time(&text), shadow_days(&text), truth(&text));
        let _ = (generalized_time(&text), dn_key(&text));
    }

    #[test]
    fn numbers_of_a_directory_never_panic(number in any::<i64>(), text in "[0-9]{0,20}(\\.[0-9]{0,3})?(Z|[+-][0-9]{0,5})?") {
        let number = number.to_string();
        let _ = (is_disabled_account(&number), file_time(&number), shadow_days(&number));
        let _ = generalized_time(&text);
    }

    #[test]
    fn an_escaped_value_is_always_one_value(value in "\\PC{1,40}|[*()\\\\a]{1,20}") {
        let filter = Filter::parse(&format!("(uid={})", escape(&value)));
        prop_assert_eq!(filter, Ok(Filter::Equal("uid".to_owned(), value.into_bytes())));
    }

    #[test]
    fn a_guid_has_one_text(bytes in any::<[u8; 16]>()) {
        let text = guid_text(&bytes).expect("16 bytes");
        prop_assert_eq!(text.len(), 36);
        prop_assert_eq!(guid_bytes(&text), Some(bytes));
        prop_assert_eq!(text.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    }
}
