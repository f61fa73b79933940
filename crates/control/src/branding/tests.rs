//! What may be said of a tenant.

use muster_model::Timestamp;

use super::*;

fn checked(wanted: &Wanted) -> Result<Look, Vec<String>> {
    let by = ("user:ada".to_owned(), Timestamp::from_unix_seconds(1_800_000_000));
    wanted.checked(by).map_err(|problem| {
        let fields = problem.errors.iter().map(|error| error.field.clone());
        fields.collect()
    })
}

#[test]
fn nothing_said_is_muster_as_it_is() {
    let look = checked(&Wanted::default()).expect("nothing is wrong");
    assert_eq!((look.accent, look.display_name), (None, String::new()));
    assert!(look.support.is_empty());
}

#[test]
fn an_accent_gets_one_for_the_dark_theme_where_none_is_given() {
    let accent = |light: &str, dark: Option<&str>| Wanted {
        accent: Some(WantedAccent {
            light: light.to_owned(),
            dark: dark.map(str::to_owned),
        }),
        ..Wanted::default()
    };
    let look = checked(&accent("#7A1FA2", None)).expect("it can be read");
    let made = look.accent.expect("it is there");
    assert_eq!(made.light, "#7a1fa2");
    assert_eq!(check(made.dark.parse().expect("it is a color"), &DARK), Ok(()));
    for (light, dark, field) in [
        ("#ffcc00", None, "accent.light"),
        ("yellow", None, "accent.light"),
        ("#7a1fa2", Some("#7a1fa2"), "accent.dark"),
        ("#7a1fa2", Some("}body{}"), "accent.dark"),
    ] {
        assert_eq!(checked(&accent(light, dark)), Err(vec![field.to_owned()]));
    }
}

#[test]
fn j1_texts_are_plain_and_addresses_are_what_they_seem() {
    let hostile = Wanted {
        display_name: "A\u{202e}cme".to_owned(),
        signin_notice: "one\u{7}".to_owned(),
        support: Support {
            mail: "help@example.com?bcc=x@evil.example".to_owned(),
            phone: "javascript:1".to_owned(),
            url: "javascript:alert(1)".to_owned(),
        },
        accent: None,
    };
    let fields = checked(&hostile).expect_err("everything is wrong");
    assert_eq!(
        fields,
        [
            "display_name",
            "signin_notice",
            "support.mail",
            "support.phone",
            "support.url"
        ]
    );
    for url in [
        "http://example.com",
        "https://",
        "https://ada:secret@example.com/",
        "https://example.com\\@evil.example",
        "https://example.com/ x",
        " https:example.com",
    ] {
        assert!(!is_url(url), "{url}");
    }
    assert!(is_url("https://help.example.com/it?topic=devices#top"));
    assert!(is_mail("help+devices@it.example.com") && is_phone("+49 (30) 123-456"));
    for mail in [
        "help",
        "@example.com",
        "help@",
        "help@example",
        "a b@example.com",
        "<a@b.example>",
    ] {
        assert!(!is_mail(mail), "{mail}");
    }
    let right = Wanted {
        display_name: "  Acme <Ltd> & Söhne ".to_owned(),
        signin_notice: "For staff.\r\nAsk the desk.".to_owned(),
        ..Wanted::default()
    };
    let look = checked(&right).expect("markup is text like any other");
    assert_eq!(
        (look.display_name.as_str(), look.signin_notice.as_str()),
        ("Acme <Ltd> & Söhne", "For staff.\nAsk the desk.")
    );
    let long = Wanted {
        display_name: "x".repeat(61),
        signin_notice: "\n\n\n\n\n\nseven".to_owned() + &"x\n".repeat(7),
        ..Wanted::default()
    };
    assert_eq!(
        checked(&long)
            .map_err(|fields| fields.len())
            .expect_err("both are too long"),
        2
    );
}

#[test]
fn the_same_file_has_another_address_in_another_tenant() {
    let tenant = |n| TenantId::from_uuid(uuid::Uuid::from_u128(n));
    let one = address_of(tenant(1), b"a file");
    assert_eq!(one.len(), ADDRESS_CHARS);
    assert_ne!(one, address_of(tenant(2), b"a file"));
    assert_ne!(one, address_of(tenant(1), b"another"));
}
