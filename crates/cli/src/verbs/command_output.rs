//! `muster command output …`: what a command printed or collected.

use std::io::Read as _;
use std::path::Path;

use flate2::read::GzDecoder;
use reqwest::header::CONTENT_TYPE;
use serde_json::json;

use crate::CliError;
use crate::api::{Api, Call};
use crate::output::{Printer, Sheet};

/// Most that a packed output may unpack to on this machine.
const TEXT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Where a tar archive says that it is one (POSIX.1-1988, ustar).
const TAR_MARK: std::ops::Range<usize> = 257..262;

/// Prints an output that is text, or writes any to a file as it came.
pub async fn run(id: &str, out: Option<&Path>, api: &Api, printer: &Printer) -> Result<(), CliError> {
    let answer = api
        .send_raw(Call::get(&["commands", id, "output"]).accept("*/*"))
        .await?;
    let media_type = answer
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned();
    if let Some(out) = out {
        std::fs::write(out, &answer.bytes).map_err(|source| CliError::File {
            path: out.to_owned(),
            source,
        })?;
        let value = json!({"file": out, "bytes": answer.bytes.len(), "media_type": media_type});
        return printer.answer(&value, |_| {
            Sheet::new().fields(vec![
                ("file", Some(out.display().to_string())),
                ("bytes", Some(answer.bytes.len().to_string())),
                ("media type", Some(media_type.clone())),
            ])
        });
    }
    let bytes = if media_type == "application/gzip" {
        unpack(&answer.bytes)?
    } else {
        answer.bytes
    };
    if bytes.get(TAR_MARK).is_some_and(|mark| mark == b"ustar") {
        return Err(CliError::Usage(
            "the output is an archive of files: name a file for it with --out FILE.tar.gz".to_owned(),
        ));
    }
    let text = String::from_utf8_lossy(&bytes);
    if printer.is_json() {
        return printer.json(&json!({"output": text}));
    }
    printer.line(&readable(&text))
}

fn unpack(gzip: &[u8]) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    let read = GzDecoder::new(gzip)
        .take(TEXT_BYTES_MAX + 1)
        .read_to_end(&mut bytes);
    read.map_err(|error| CliError::Answer(format!("the output is no gzip file: {error}")))?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(CliError::Failed(format!(
            "the output unpacks to more than {TEXT_BYTES_MAX} bytes: write it to a file with --out"
        )));
    }
    Ok(bytes)
}

/// Text of a device without what could move the cursor or change the terminal.
fn readable(text: &str) -> String {
    let plain = |c: char| {
        if c.is_control() && c != '\n' && c != '\t' {
            '\u{fffd}'
        } else {
            c
        }
    };
    text.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_device_writes_no_escape_sequences_to_a_terminal() {
        assert_eq!(readable("a\tb\n\u{1b}[2J"), "a\tb\n\u{fffd}[2J");
    }

    #[test]
    fn a_small_file_that_unpacks_to_a_large_one_is_refused() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let chunk = vec![0; 1024 * 1024];
        for _ in 0..257 {
            encoder.write_all(&chunk).expect("memory takes it");
        }
        let bomb = encoder.finish().expect("memory takes it");
        assert!(bomb.len() < 1024 * 1024);
        assert!(matches!(unpack(&bomb), Err(CliError::Failed(_))));
        assert!(unpack(b"not gzip").is_err());
    }
}
