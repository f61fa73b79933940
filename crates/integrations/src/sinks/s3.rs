//! Objects in S3: each batch is one, of compressed lines, under the place of its first event.
//!
//! An object is written with "only if it is not there" (`If-None-Match: *`). One that is there already says in its metadata which
//! places and which events it holds: if they are ours, it was written before, by us, and what is behind it goes on from there. So
//! a batch that is sent again makes nothing twice, and nothing is ever written over. Only a replay whose batch begins in the middle
//! of an object repeats the rest of it.
//!
//! Of the library that the archive of the log uses only the signature is taken (AWS Signature Version 4,
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>): otherwise it finds its own way out, and sends no
//! headers of Object Lock.

use std::{io::Read, time::Duration};

use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use muster_control::sinks::{Item, LockMode, NotSent, Refusal, SinkAddress, SinkFormat, SinkPlace, Verdict};
use muster_model::Timestamp;
use object_store::{
    aws::{AwsAuthorizer, AwsCredential},
    client::{HttpRequest, HttpRequestBody},
};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderValue},
};

use super::{PROBE_BOUNDS, digest_of, failed, misplaced, not_sent, packed, secret, shortened};
use crate::egress::{Answer, Bounds, Egress};

/// Objects that one batch may run into, because other batches were cut elsewhere before.
const OBJECTS_PER_BATCH_MAX: usize = 8;
/// What is read of an object of ours: a batch, which is smaller before it is packed.
const OBJECT_BYTES_MAX: usize = 8 * 1024 * 1024;
const LAST_PLACE: &str = "x-amz-meta-muster-last-place";
const DIGEST: &str = "x-amz-meta-muster-digest";
const DAY: Duration = Duration::from_secs(86_400);

/// One object to be.
struct Object {
    /// Behind the bucket.
    key: String,
    body: Vec<u8>,
    last_place: u64,
    digest: String,
}

/// What came of writing one.
enum Put {
    Written,
    /// There is one of that name.
    Present,
}

pub async fn send(
    egress: &Egress,
    to: &SinkAddress<'_>,
    items: &[Item],
    bounds: Bounds,
) -> Result<Vec<Verdict>, NotSent> {
    let mut rest = items;
    for _ in 0..OBJECTS_PER_BATCH_MAX {
        let Some(first) = rest.first() else { break };
        let name = folder(to, first)? + &format!("/{:020}", first.place);
        let object = object(to, format!("{name}.{}", ending(to.format)), rest)?;
        if let Put::Written = put(egress, to, &object, bounds).await? {
            rest = &[];
            break;
        }
        let known = known(egress, to, &object.key, bounds).await?;
        let end = rest.last().map_or(0, |item| item.place);
        let held = match known {
            None => 0,
            // It was cut further on than this batch is: its beginning has to be what ours is.
            Some((last, _)) if last > end => {
                match begins_with(egress, to, &object.key, rest, bounds).await? {
                    true => rest.len(),
                    false => 0,
                }
            }
            Some((last, digest)) => held(to, rest, last, &digest),
        };
        if held == 0 {
            // Somebody else's, or ours with other settings: it stays, and ours stands beside it.
            let digest = object.digest.get(..16).unwrap_or_default();
            let key = format!("{name}-{digest}.{}", ending(to.format));
            put(egress, to, &Object { key, ..object }, bounds).await?;
            rest = &[];
            break;
        }
        rest = &rest[held..];
    }
    let taken = items.len() - rest.len();
    let later = || Verdict::Later("the rest follows".to_owned());
    Ok((0..items.len())
        .map(|at| if at < taken { Verdict::Taken } else { later() })
        .collect())
}

/// Writes the event of a test into a folder of its own, with the retention of every other; answers where.
pub async fn probe(
    egress: &Egress,
    to: &SinkAddress<'_>,
    item: &Item,
) -> (Result<Vec<Verdict>, NotSent>, String) {
    let SinkPlace::S3 { prefix, .. } = to.place else {
        return (Err(misplaced()), String::new());
    };
    let key = format!("{prefix}/{}/test/{}.{}", to.tenant, item.id, ending(to.format));
    let wrote = format!("a test event is in {key}");
    let items = std::slice::from_ref(item);
    let said = match object(to, key, items) {
        Ok(object) => put(egress, to, &object, PROBE_BOUNDS).await,
        Err(failed) => Err(failed),
    };
    (said.map(|_| vec![Verdict::Taken]), wrote)
}

fn ending(format: SinkFormat) -> &'static str {
    match format.is_json() {
        true => "ndjson.gz",
        false => "cef.gz",
    }
}

fn folder(to: &SinkAddress<'_>, first: &Item) -> Result<String, NotSent> {
    let SinkPlace::S3 { prefix, .. } = to.place else {
        return Err(misplaced());
    };
    Ok(format!("{prefix}/{}/{}", to.tenant, first.stream.as_str()))
}

fn object(to: &SinkAddress<'_>, key: String, items: &[Item]) -> Result<Object, NotSent> {
    Ok(Object {
        key,
        body: packed(lines(items).as_bytes())?,
        last_place: items.last().map_or(0, |item| item.place),
        digest: digest(to, items),
    })
}

fn lines(items: &[Item]) -> String {
    let lines = items.iter().flat_map(|item| [item.document.as_str(), "\n"]);
    lines.collect()
}

/// What tells these events in this format from others.
fn digest(to: &SinkAddress<'_>, items: &[Item]) -> String {
    let ids = items.iter().map(|item| item.id.as_bytes());
    digest_of([to.format.as_str().as_bytes()].into_iter().chain(ids))
}

/// How many of these events an object holds that says of itself where it ends and what is in it.
fn held(to: &SinkAddress<'_>, items: &[Item], last_place: u64, found: &str) -> usize {
    let count = items.iter().take_while(|item| item.place <= last_place).count();
    match digest(to, &items[..count]) == found {
        true => count,
        false => 0,
    }
}

async fn put(egress: &Egress, to: &SinkAddress<'_>, object: &Object, bounds: Bounds) -> Result<Put, NotSent> {
    let SinkPlace::S3 { lock, .. } = to.place else {
        return Err(misplaced());
    };
    let checksum = STANDARD.encode(digest::digest(&digest::SHA256, &object.body).as_ref());
    let mut headers = vec![
        ("content-type", "application/gzip".to_owned()),
        ("if-none-match", "*".to_owned()),
        (LAST_PLACE, object.last_place.to_string()),
        (DIGEST, object.digest.clone()),
        // An object under retention is taken only with a checksum.
        ("x-amz-checksum-sha256", checksum),
        ("x-amz-sdk-checksum-algorithm", "SHA256".to_owned()),
    ];
    if let Some(lock) = lock {
        let mode = match lock.mode {
            LockMode::Governance => "GOVERNANCE",
            LockMode::Compliance => "COMPLIANCE",
        };
        let until = Timestamp::from_unix_seconds(to.now.plus(DAY * lock.days).as_unix_seconds());
        headers.push(("x-amz-object-lock-mode", mode.to_owned()));
        headers.push(("x-amz-object-lock-retain-until-date", until.to_string()));
    }
    let answer = ask(
        egress,
        to,
        Method::PUT,
        &object.key,
        headers,
        object.body.clone(),
        bounds,
    )
    .await?;
    match answer.status {
        200..=299 => Ok(Put::Written),
        412 => Ok(Put::Present),
        _ => Err(judged(&answer)),
    }
}

/// What an object says of itself: its last place, and the digest of its events.
async fn known(
    egress: &Egress,
    to: &SinkAddress<'_>,
    key: &str,
    bounds: Bounds,
) -> Result<Option<(u64, String)>, NotSent> {
    let answer = ask(egress, to, Method::HEAD, key, Vec::new(), Vec::new(), bounds).await?;
    if !(200..300).contains(&answer.status) {
        return Err(judged(&answer));
    }
    let header = |name: &str| answer.headers.get(name)?.to_str().ok();
    let last = header(LAST_PLACE).and_then(|text| text.parse().ok());
    Ok(last.zip(header(DIGEST).map(str::to_owned)))
}

/// Whether an object begins with these events, as they are written.
async fn begins_with(
    egress: &Egress,
    to: &SinkAddress<'_>,
    key: &str,
    items: &[Item],
    bounds: Bounds,
) -> Result<bool, NotSent> {
    let bounds = Bounds {
        answer_bytes_max: OBJECT_BYTES_MAX,
        ..bounds
    };
    let answer = ask(egress, to, Method::GET, key, Vec::new(), Vec::new(), bounds).await?;
    if !(200..300).contains(&answer.status) {
        return Err(judged(&answer));
    }
    let ours = lines(items);
    // No more is unpacked than there is to compare.
    let mut found = Vec::new();
    let mut unpacked = GzDecoder::new(&answer.body[..]).take(ours.len() as u64);
    let is_read = unpacked.read_to_end(&mut found).is_ok();
    Ok(is_read && found == ours.as_bytes())
}

async fn ask(
    egress: &Egress,
    to: &SinkAddress<'_>,
    method: Method,
    key: &str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    bounds: Bounds,
) -> Result<Answer, NotSent> {
    let SinkPlace::S3 {
        url,
        region,
        bucket,
        access_key_id,
        ..
    } = to.place
    else {
        return Err(misplaced());
    };
    let base = url.trim_end_matches('/');
    let url = match bucket {
        Some(bucket) => format!("{base}/{bucket}/{key}"),
        None => format!("{base}/{key}"),
    };
    let signed = signed(
        method.clone(),
        &url,
        headers,
        &body,
        (access_key_id, secret(to)?),
        region,
    )?;
    let sent = egress.exchange_within(bounds, &url, |http, url| {
        http.request(method, url).headers(signed).body(body)
    });
    sent.await.map_err(failed)
}

/// Every header to be sent, with the signature among them.
fn signed(
    method: Method,
    url: &str,
    headers: Vec<(&'static str, String)>,
    body: &[u8],
    (id, key): (&str, &str),
    region: &str,
) -> Result<HeaderMap, NotSent> {
    let unsigned = || not_sent("the request cannot be signed".to_owned(), Refusal::Later);
    // The body itself is not looked at: its digest is.
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().map_err(|_| unsigned())?;
    for (name, value) in headers {
        let value = HeaderValue::from_str(&value).map_err(|_| unsigned())?;
        request.headers_mut().insert(name, value);
    }
    let credential = AwsCredential {
        key_id: id.to_owned(),
        secret_key: key.to_owned(),
        token: None,
    };
    let digest = digest::digest(&digest::SHA256, body);
    AwsAuthorizer::new(&credential, "s3", region)
        .try_authorize(&mut request, Some(digest.as_ref()))
        .map_err(|_| unsigned())?;
    Ok(request.headers().clone())
}

/// Nothing that S3 refuses is an event's fault, unless there is too much of it.
fn judged(answer: &Answer) -> NotSent {
    let text = String::from_utf8_lossy(&answer.body);
    let (code, message) = (element(&text, "Code"), element(&text, "Message"));
    let why = match code {
        "" => format!("it answered {}", answer.status),
        code => format!(
            "it answered {} {}: {}",
            answer.status,
            shortened(code),
            shortened(message)
        ),
    };
    NotSent {
        why,
        refusal: match (answer.status, code) {
            (413, _) | (_, "EntityTooLarge") => Refusal::TooMuch,
            _ => Refusal::Later,
        },
        status: Some(answer.status),
        retry_after: answer.retry_after,
    }
}

/// The text of the first element of a name. What else an error says may repeat what was signed.
fn element<'a>(text: &'a str, name: &str) -> &'a str {
    let found = text.split_once(&format!("<{name}>"));
    let found = found.and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    found.map_or("", |(inner, _)| inner)
}

#[cfg(test)]
mod tests {
    use muster_control::sinks::StreamKind;
    use muster_model::TenantId;

    use super::*;

    #[test]
    fn whatever_goes_out_is_signed() {
        let headers = vec![
            ("x-amz-object-lock-mode", "COMPLIANCE".to_owned()),
            ("if-none-match", "*".to_owned()),
        ];
        let url = "https://s3.example.com/audit/muster/1.ndjson.gz";
        let signed = signed(Method::PUT, url, headers, b"x", ("AK", "secret"), "eu-1").expect("it is signed");
        let value = signed["authorization"].to_str().expect("it is text");
        let names = "if-none-match;x-amz-content-sha256;x-amz-date;x-amz-object-lock-mode";
        assert!(
            value.starts_with("AWS4-HMAC-SHA256 Credential=AK/") && value.contains(names),
            "{value}"
        );
        assert!(!value.contains("secret"));
    }

    #[test]
    fn an_object_holds_what_it_says_and_only_in_its_format() {
        let place = SinkPlace::S3 {
            url: "https://s3.example.com".to_owned(),
            region: "eu-1".to_owned(),
            bucket: None,
            prefix: "muster".to_owned(),
            access_key_id: "AK".to_owned(),
            lock: None,
            flush_seconds: 60,
        };
        let to = |format| SinkAddress {
            tenant: TenantId::from_uuid(uuid::Uuid::nil()),
            name: "lake",
            place: &place,
            format,
            secret: None,
            now: Timestamp::from_unix_seconds(1_800_000_000),
        };
        let items: Vec<Item> = (3..8)
            .map(|place| Item {
                stream: StreamKind::Log,
                place,
                id: format!("e{place}"),
                at: Timestamp::from_unix_seconds(1_800_000_000),
                name: "x".to_owned(),
                severity: 1,
                document: "{}".to_owned(),
            })
            .collect();
        let json = to(SinkFormat::Json);
        let first = digest(&json, &items[..3]);
        assert_eq!(held(&json, &items, 5, &first), 3);
        assert_eq!(held(&json, &items, 6, &first), 0);
        assert_eq!(held(&to(SinkFormat::Ocsf), &items, 5, &first), 0);
        assert_eq!(held(&json, &items[1..], 5, &first), 0);
        let one = object(&json, "k".to_owned(), &items).expect("it is packed");
        let two = object(&json, "k".to_owned(), &items).expect("it is packed");
        assert_eq!(one.body, two.body, "the same bytes every time");
    }

    #[test]
    fn an_error_is_told_without_what_was_signed() {
        let body = b"<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we \
                     calculated does not match</Message><StringToSign>AWS4-HMAC</StringToSign></Error>";
        let answer = Answer {
            status: 403,
            retry_after: None,
            location: None,
            headers: HeaderMap::new(),
            body: body.to_vec(),
        };
        let judged = judged(&answer);
        assert!(
            judged.why.contains("SignatureDoesNotMatch") && !judged.why.contains("AWS4"),
            "{}",
            judged.why
        );
        assert_eq!(judged.refusal, Refusal::Later);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), status in 100_u16..600) {
            let _ = judged(&Answer { status, retry_after: None, location: None, headers: HeaderMap::new(), body: bytes });
        }
    }
}
