//! Many tokens from one table (CSV, RFC 4180), with what is wrong in each row.

use std::collections::BTreeSet;

use muster_model::{
    AttestationLevel, Ownership,
    text::{DeviceUuid, Label, Name, SerialNumber},
};

use super::token::{MadeToken, NewTokenRequest, create_token};
use crate::{
    App,
    access::problem::{CSV_INVALID, FieldError, Problem},
    audit::LoggedTx,
    devices::Protocol,
};

/// Rows that one table may have.
pub const ROWS_MAX: usize = 2_000;
const COLUMNS: [&str; 8] = [
    "device_uuid",
    "serial",
    "owner",
    "ownership",
    "protocol",
    "subject",
    "attestation",
    "ttl_seconds",
];

/// What became of a table.
#[derive(Debug, Clone)]
pub struct BulkOutcome {
    pub made: Vec<BulkRow>,
    /// What is wrong, as `row 3: serial`. Rows count from 2: the first is the header.
    pub errors: Vec<FieldError>,
}

/// A token that a row made.
#[derive(Debug, Clone)]
pub struct BulkRow {
    pub row: usize,
    pub request: NewTokenRequest,
    pub token: MadeToken,
}

/// Makes a token for each good row. With a bad row nothing is made, unless `keep_good_rows`.
pub fn create_tokens(
    tx: &mut LoggedTx<'_>,
    app: &App,
    csv: &[u8],
    keep_good_rows: bool,
) -> Result<BulkOutcome, Problem> {
    let (rows, errors) = read(csv)?;
    if !errors.is_empty() && (!keep_good_rows || rows.is_empty()) {
        let bad = errors
            .iter()
            .map(|error| error.field.split(':').next().unwrap_or_default())
            .collect::<BTreeSet<_>>()
            .len();
        return Err(CSV_INVALID
            .detail(format!(
                "{bad} of {} rows are not valid, so no token was made. Correct them, or ask for partial=true.",
                rows.len() + bad
            ))
            .with_errors(errors));
    }
    let mut made = Vec::with_capacity(rows.len());
    for (row, request) in rows {
        let token = create_token(tx, app, &request)?;
        made.push(BulkRow { row, request, token });
    }
    Ok(BulkOutcome { made, errors })
}

type Rows = Vec<(usize, NewTokenRequest)>;

fn read(csv: &[u8]) -> Result<(Rows, Vec<FieldError>), Problem> {
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(csv.strip_prefix(b"\xef\xbb\xbf").unwrap_or(csv));
    let header = reader
        .headers()
        .map_err(|error| CSV_INVALID.detail(format!("The table cannot be read: {error}")))?
        .clone();
    if let Some(unknown) = header.iter().find(|column| !COLUMNS.contains(column)) {
        return Err(CSV_INVALID.detail(format!(
            "The column {unknown:?} is not known. The first row names the columns: {}.",
            COLUMNS.join(", ")
        )));
    }
    if !header.iter().any(|column| column == "device_uuid") {
        return Err(CSV_INVALID.detail("The first row has to name the columns, device_uuid among them."));
    }
    let (mut rows, mut errors, mut seen) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, record) in reader.records().enumerate() {
        if index >= ROWS_MAX {
            return Err(CSV_INVALID.detail(format!("A table has at most {ROWS_MAX} rows. Split it.")));
        }
        let row = index + 2;
        match record {
            Err(error) => errors.push(wrong(row, "", &error.to_string())),
            Ok(record) => {
                let cell = |name: &str| {
                    let at = header.iter().position(|column| column == name)?;
                    record.get(at).filter(|text| !text.is_empty())
                };
                match request(row, cell) {
                    Err(mut found) => errors.append(&mut found),
                    Ok(request) if !seen.insert(request.device_uuid) => {
                        errors.push(wrong(row, "device_uuid", "An earlier row names the same device."));
                    }
                    Ok(request) => rows.push((row, request)),
                }
            }
        }
    }
    if rows.is_empty() && errors.is_empty() {
        return Err(CSV_INVALID.detail("The table has a header and no row."));
    }
    Ok((rows, errors))
}

fn request<'a>(
    row: usize,
    cell: impl Fn(&str) -> Option<&'a str>,
) -> Result<NewTokenRequest, Vec<FieldError>> {
    let mut errors = Vec::new();
    let mut request = NewTokenRequest::for_device(uuid::Uuid::nil());
    match cell("device_uuid").map(DeviceUuid::parse) {
        Some(Ok(device_uuid)) => request.device_uuid = device_uuid.uuid(),
        Some(Err(error)) => errors.push(wrong(row, "device_uuid", &format!("It {error}."))),
        None => errors.push(wrong(row, "device_uuid", "It is empty.")),
    }
    let mut text = |name: &str, parse: fn(&str) -> Result<String, String>| -> Option<String> {
        match cell(name).map(parse) {
            None => None,
            Some(Ok(value)) => Some(value),
            Some(Err(why)) => {
                errors.push(wrong(row, name, &why));
                None
            }
        }
    };
    request.serial = text("serial", |text| {
        let serial = SerialNumber::parse(text).map_err(|error| format!("It {error}."))?;
        Ok(serial.as_str().to_owned())
    });
    request.owner = text("owner", |text| {
        let owner = Name::parse(text).map_err(|error| format!("It {error}."))?;
        Ok(owner.as_str().to_owned())
    });
    request.subject = text("subject", |text| {
        let subject = Label::parse(text).map_err(|error| format!("It {error}."))?;
        Ok(subject.as_str().to_owned())
    });
    if let Some(text) = cell("ownership") {
        match Ownership::parse(text) {
            Some(ownership) => request.ownership = ownership,
            None => errors.push(wrong(row, "ownership", "It is company or personal.")),
        }
    }
    if let Some(text) = cell("protocol") {
        match Protocol::parse(text) {
            Some(protocol) => request.protocol = protocol,
            None => errors.push(wrong(row, "protocol", "It is agent, acme, scep or est.")),
        }
    }
    for word in cell("attestation").unwrap_or_default().split_whitespace() {
        match AttestationLevel::parse(word) {
            Some(level) => {
                request.attestation.insert(level);
            }
            None => errors.push(wrong(
                row,
                "attestation",
                &format!("{word:?} is no kind of proof."),
            )),
        }
    }
    if let Some(text) = cell("ttl_seconds") {
        match text.parse() {
            Ok(seconds) => request.ttl_seconds = Some(seconds),
            Err(_) => errors.push(wrong(row, "ttl_seconds", "It is a whole number of seconds.")),
        }
    }
    if errors.is_empty()
        && let Err(problem) = request.check()
    {
        errors.push(wrong(row, "", &problem.detail));
    }
    if errors.is_empty() {
        Ok(request)
    } else {
        Err(errors)
    }
}

fn wrong(row: usize, column: &str, detail: &str) -> FieldError {
    FieldError {
        field: if column.is_empty() {
            format!("row {row}")
        } else {
            format!("row {row}: {column}")
        },
        code: "invalid".to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUIDS: [&str; 2] = [
        "4c4c4544-0042-3510-8052-b4c04f4b3132",
        "4c4c4544-0042-3510-8052-b4c04f4b3133",
    ];

    #[test]
    fn good_rows_become_requests() {
        let csv = format!(
            "\u{feff}device_uuid,owner,protocol,attestation,ownership\r\n{},\"Person, A.\",agent,tpm2 apple,personal\r\n{},,scep,,\r\n",
            UUIDS[0], UUIDS[1]
        );
        let (rows, errors) = read(csv.as_bytes()).expect("it is a table");
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(rows[0].1.owner.as_deref(), Some("Person, A."));
        assert_eq!(rows[0].1.attestation.len(), 2);
        assert_eq!(rows[0].1.ownership, Ownership::Personal);
        assert_eq!((rows[1].0, rows[1].1.protocol), (3, Protocol::Scep));
    }

    #[test]
    fn every_bad_cell_is_named_with_its_row() {
        let csv = format!(
            "device_uuid,serial,ownership,protocol,attestation,ttl_seconds\n\
             nonsense,,mine,fax,magic,soon\n\
             {0},,,,,\n{0},,,,,\n{1},,,scep,tpm2,\n",
            UUIDS[0], UUIDS[1]
        );
        let (rows, errors) = read(csv.as_bytes()).expect("it is a table");
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "row 2: device_uuid",
                "row 2: ownership",
                "row 2: protocol",
                "row 2: attestation",
                "row 2: ttl_seconds",
                "row 4: device_uuid",
                "row 5",
            ]
        );
        assert_eq!(rows.len(), 1);
    }

    #[test]
    fn what_is_no_table_is_refused_whole() {
        for bad in ["", "device_uuid\n", "uuid\n1\n", "serial\nS1\n", "\u{0}\u{1}"] {
            assert!(read(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
