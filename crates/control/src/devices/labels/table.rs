//! A table of labels (CSV, RFC 4180): one column that says which device, one column for each label key.
//!
//! The table is read row by row and never kept: what a row says is read once to check it and once to carry it out.

use muster_model::{
    subject::LABELS_MAX,
    text::{DeviceUuid, LabelKey, LabelValue},
};

use super::LabelChange;
use crate::access::problem::{CSV_INVALID, FieldError, Problem};

/// Rows that one table may have.
pub const ROWS_MAX: usize = 100_000;
/// Bytes of one table.
pub const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Columns of one table: the device and its labels.
const COLUMNS_MAX: usize = 1 + LABELS_MAX;
/// Characters of a refused heading that an error repeats.
const HEADING_CHARS_MAX: usize = 64;
/// The cell that removes a label.
const REMOVE: &str = "-";

/// By what a table names devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Identifier {
    Id,
    Serial,
    DeviceUuid,
    Name,
}

impl Identifier {
    const ALL: [Identifier; 4] = [
        Identifier::Id,
        Identifier::Serial,
        Identifier::DeviceUuid,
        Identifier::Name,
    ];

    pub const fn column(self) -> &'static str {
        match self {
            Identifier::Id => "id",
            Identifier::Serial => "serial",
            Identifier::DeviceUuid => "device_uuid",
            Identifier::Name => "name",
        }
    }
}

/// What the first row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    pub by: Identifier,
    device_at: usize,
    /// Columns with their label keys.
    keys: Vec<(usize, LabelKey)>,
}

/// A table that is being read.
pub struct Table<'a> {
    pub header: Header,
    reader: csv::Reader<&'a [u8]>,
    record: csv::StringRecord,
    row: usize,
}

/// A row that can be carried out, if its device is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// From 2: the first row is the header.
    pub row: usize,
    /// What names the device.
    pub device: String,
    pub change: LabelChange,
}

impl<'a> Table<'a> {
    /// Reads the header.
    pub fn open(csv: &'a [u8]) -> Result<Table<'a>, Problem> {
        if csv.len() > BYTES_MAX {
            return Err(CSV_INVALID.detail("The table has more than 8 MiB. Split it."));
        }
        let mut reader = csv::ReaderBuilder::new()
            .trim(csv::Trim::All)
            .from_reader(csv.strip_prefix(b"\xef\xbb\xbf").unwrap_or(csv));
        let header = reader
            .headers()
            .map_err(|error| CSV_INVALID.detail(format!("The table cannot be read: {error}")))?;
        Ok(Table {
            header: read_header(header)?,
            reader,
            record: csv::StringRecord::new(),
            row: 1,
        })
    }

    /// The next row, or what is wrong in it; nothing at the end. A table with too many rows is refused whole.
    pub fn next(&mut self) -> Result<Option<Result<TableRow, Vec<FieldError>>>, Problem> {
        self.row += 1;
        match self.reader.read_record(&mut self.record) {
            Ok(false) => return Ok(None),
            Ok(true) => {}
            Err(error) => {
                // The parser's sentence names bytes and lines, never a cell.
                let why = error.to_string();
                return self.counted().map(|row| Some(Err(vec![wrong(row, "", &why)])));
            }
        }
        let row = self.counted()?;
        Ok(Some(read_row(&self.header, &self.record, row)))
    }

    fn counted(&self) -> Result<usize, Problem> {
        if self.row > ROWS_MAX + 1 {
            return Err(CSV_INVALID.detail(format!("A table has at most {ROWS_MAX} rows. Split it.")));
        }
        Ok(self.row)
    }
}

fn read_header(header: &csv::StringRecord) -> Result<Header, Problem> {
    if header.len() > COLUMNS_MAX {
        return Err(CSV_INVALID.detail(format!(
            "The table has {} columns, at most {COLUMNS_MAX} are allowed: one for the device and one for each label.",
            header.len()
        )));
    }
    let mut by: Option<(usize, Identifier)> = None;
    let mut keys: Vec<(usize, LabelKey)> = Vec::new();
    for (at, heading) in header.iter().enumerate() {
        if let Some(identifier) = Identifier::ALL
            .into_iter()
            .find(|known| known.column() == heading)
        {
            if by.replace((at, identifier)).is_some() {
                return Err(CSV_INVALID
                    .detail("Two columns say which device. Keep one of id, serial, device_uuid and name."));
            }
            continue;
        }
        let key = LabelKey::parse(heading).map_err(|error| {
            let heading: String = heading.chars().take(HEADING_CHARS_MAX).collect();
            CSV_INVALID.detail(format!(
                "The column {heading:?} is no label key: it {error}. A key is a small letter, then small letters, digits \
                 and . _ -, together at most 63."
            ))
        })?;
        if keys.iter().any(|(_, known)| *known == key) {
            return Err(CSV_INVALID.detail(format!("The column {key} is there twice.")));
        }
        keys.push((at, key));
    }
    let Some((device_at, by)) = by else {
        return Err(CSV_INVALID
            .detail("The first row names the columns, one of id, serial, device_uuid or name among them."));
    };
    if keys.is_empty() {
        return Err(CSV_INVALID.detail("The table has no column with a label key."));
    }
    Ok(Header { by, device_at, keys })
}

fn read_row(header: &Header, record: &csv::StringRecord, row: usize) -> Result<TableRow, Vec<FieldError>> {
    let mut errors = Vec::new();
    let device = record.get(header.device_at).unwrap_or_default();
    if device.is_empty() {
        errors.push(wrong(row, header.by.column(), "It is empty."));
    } else if header.by == Identifier::DeviceUuid
        && let Err(error) = DeviceUuid::parse(device)
    {
        errors.push(wrong(row, header.by.column(), &format!("It {error}.")));
    }
    let mut change = LabelChange::default();
    for (at, key) in &header.keys {
        match record.get(*at).unwrap_or_default() {
            "" => {}
            REMOVE => {
                change.removed.insert(key.clone());
            }
            value => match LabelValue::parse(value) {
                Ok(value) => {
                    change.set.insert(key.clone(), value);
                }
                Err(error) => errors.push(wrong(row, key.as_str(), &format!("It {error}."))),
            },
        }
    }
    if errors.is_empty() {
        Ok(TableRow {
            row,
            device: device.to_owned(),
            change,
        })
    } else {
        Err(errors)
    }
}

/// An error of a row, and of a column where it is one's.
pub fn wrong(row: usize, column: &str, detail: &str) -> FieldError {
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

    fn rows(csv: &[u8]) -> Result<Vec<Result<TableRow, Vec<FieldError>>>, Problem> {
        let mut table = Table::open(csv)?;
        let mut rows = Vec::new();
        while let Some(row) = table.next()? {
            rows.push(row);
        }
        Ok(rows)
    }

    fn fields(csv: &str) -> Vec<String> {
        let rows = rows(csv.as_bytes()).expect("it is a table");
        let errors = rows.into_iter().filter_map(Result::err).flatten();
        errors.map(|error| error.field).collect()
    }

    #[test]
    fn cells_set_leave_and_remove() {
        let csv = "\u{feff}serial,department,site\r\nS1,\"Sales, \"\"EMEA\"\"\",-\r\nS2,, north \r\n";
        let rows = rows(csv.as_bytes()).expect("it is a table");
        let first = rows[0].as_ref().expect("it is right");
        let set: Vec<_> = first.change.set.values().map(LabelValue::as_str).collect();
        assert_eq!((first.row, first.device.as_str()), (2, "S1"));
        assert_eq!(
            (set.as_slice(), first.change.removed.len()),
            (&["Sales, \"EMEA\""][..], 1)
        );
        let second = rows[1].as_ref().expect("it is right");
        assert_eq!((second.change.set.len(), second.change.removed.len()), (1, 0));
    }

    #[test]
    fn every_bad_cell_is_named_and_not_repeated() {
        let long = "x".repeat(100_000);
        let csv =
            format!("device_uuid,site\nnobody,a\n,b\n4c4c4544-0042-3510-8052-b4c04f4b3132,{long}\nshort\n");
        assert_eq!(
            fields(&csv),
            ["row 2: device_uuid", "row 3: device_uuid", "row 4: site", "row 5"]
        );
        let found = rows(csv.as_bytes()).expect("it is a table");
        let errors = found.into_iter().filter_map(Result::err).flatten();
        assert!(errors.map(|error| error.detail.len()).max() < Some(200));
    }

    #[test]
    fn what_is_no_table_is_refused_whole() {
        let wide = (0..100_000)
            .map(|number| format!("k{number}"))
            .collect::<Vec<_>>()
            .join(",");
        for bad in [
            "".to_owned(),
            "serial\nS1\n".to_owned(),
            "site\na\n".to_owned(),
            "serial,id,site\n".to_owned(),
            "serial,site,site\n".to_owned(),
            "serial,Site\n".to_owned(),
            "serial,${jndi:x}\n".to_owned(),
            "serial,\"\"\n".to_owned(),
            "serial,".to_owned() + &wide,
            "\u{0}\u{1}".to_owned(),
        ] {
            let problem = rows(bad.as_bytes()).expect_err("it is no table");
            assert!(problem.detail.len() < 400, "{}", problem.detail);
        }
        assert!(rows(b"serial,s\xff\n").is_err());
        assert!(rows(&vec![b'a'; BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn a_table_has_a_hundred_thousand_rows_and_no_more() {
        let table = |rows: usize| format!("serial,s\n{}", "a,b\n".repeat(rows));
        assert_eq!(rows(table(ROWS_MAX).as_bytes()).expect("it fits").len(), ROWS_MAX);
        assert!(rows(table(ROWS_MAX + 1).as_bytes()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_table_or_a_refusal(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300),
            text in "(serial,a,b\n)?[a-z,\"\r\n\\-;]{0,200}",
        ) {
            let _ = rows(&bytes);
            let _ = rows(text.as_bytes());
        }
    }
}
