//! Logos: PNG files (W3C Portable Network Graphics, third edition) that are read to the last byte before anybody is shown one.
//!
//! Nothing is drawn. The file is walked chunk by chunk with its checksums, its image data is inflated into a small buffer and counted
//! against what its header says, and what is kept is written anew from the chunks that make the picture (IHDR, PLTE, tRNS, IDAT, IEND):
//! texts, times, places and programs that the file was made with do not reach anybody, nor do hints at its colors. Bounds: [`BYTES_MAX`], [`SIDE_MAX`], and with them what is inflated.

use std::io::Read;

use flate2::{Crc, read::ZlibDecoder};

/// Bytes of a file.
pub const BYTES_MAX: usize = 64 * 1024;
/// Pixels of each side, at least and at most.
pub const SIDE_MIN: u32 = 16;
pub const SIDE_MAX: u32 = 1024;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// Chunks of a file; the smallest has 12 bytes.
const CHUNKS_MAX: usize = 1024;

/// A picture that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Png {
    pub width: u32,
    pub height: u32,
    /// The file, without what does not belong to the picture.
    pub bytes: Vec<u8>,
}

/// Why a file is no logo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PngError {
    #[error("The file is no PNG. Other formats, SVG among them, are not taken.")]
    NoPng,
    #[error("The file is larger than {BYTES_MAX} bytes.")]
    TooLarge,
    #[error("The file is cut off, or has more than {CHUNKS_MAX} parts.")]
    CutOff,
    #[error("A checksum of the file is wrong.")]
    Checksum,
    #[error("The header of the file is not that of a PNG.")]
    Header,
    #[error("A side has {SIDE_MIN} to {SIDE_MAX} pixels; this is {width} by {height}.")]
    Side { width: u32, height: u32 },
    #[error("The file is interlaced. Save it without.")]
    Interlaced,
    #[error("The parts of the file are not in their order.")]
    Order,
    #[error("The file has a part that is needed and not known.")]
    Unknown,
    #[error("The colors of the file are not as its header says.")]
    Palette,
    #[error("The image data is not what the header says.")]
    Data,
    #[error("There is something behind the end of the picture.")]
    Trailing,
}

#[derive(Clone, Copy)]
struct Header {
    width: u32,
    height: u32,
    depth: u8,
    color: u8,
}

impl Header {
    fn read(data: &[u8]) -> Result<Header, PngError> {
        let data: &[u8; 13] = data.try_into().map_err(|_| PngError::Header)?;
        let number = |at: usize| u32::from_be_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
        let (width, height) = (number(0), number(4));
        let [depth, color, compression, filter, interlace] = [data[8], data[9], data[10], data[11], data[12]];
        let depths: &[u8] = match color {
            0 => &[1, 2, 4, 8, 16],
            3 => &[1, 2, 4, 8],
            2 | 4 | 6 => &[8, 16],
            _ => return Err(PngError::Header),
        };
        if !depths.contains(&depth) || compression != 0 || filter != 0 || interlace > 1 {
            return Err(PngError::Header);
        }
        let sides = SIDE_MIN..=SIDE_MAX;
        if !sides.contains(&width) || !sides.contains(&height) {
            return Err(PngError::Side { width, height });
        }
        if interlace == 1 {
            return Err(PngError::Interlaced);
        }
        Ok(Header {
            width,
            height,
            depth,
            color,
        })
    }

    /// Bytes of one row behind its filter byte.
    fn row_bytes(self) -> usize {
        let samples: usize = match self.color {
            2 => 3,
            4 => 2,
            6 => 4,
            _ => 1,
        };
        let bits = self.width as usize * samples * usize::from(self.depth);
        bits.div_ceil(8)
    }
}

/// Where in the file the walk is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    BeforeData,
    InData,
    BehindData,
}

/// Reads a file to its end.
pub fn read(file: &[u8]) -> Result<Png, PngError> {
    if file.len() > BYTES_MAX {
        return Err(PngError::TooLarge);
    }
    let mut rest = file.strip_prefix(SIGNATURE).ok_or(PngError::NoPng)?;
    let mut kept = SIGNATURE.to_vec();
    let (mut header, mut place, mut colors, mut clear) = (None, Place::Header, None, None);
    let mut data = Vec::new();
    for _ in 0..CHUNKS_MAX {
        let chunk;
        (chunk, rest) = next(rest)?;
        match (&chunk.name, place) {
            (b"IHDR", Place::Header) => {
                header = Some(Header::read(chunk.data)?);
                place = Place::BeforeData;
            }
            (_, Place::Header) | (b"IHDR", _) => return Err(PngError::Order),
            (b"PLTE", Place::BeforeData) if colors.is_none() && clear.is_none() => {
                let (count, is_whole) = (chunk.data.len() / 3, chunk.data.len() % 3 == 0);
                if !is_whole || !(1..=256).contains(&count) {
                    return Err(PngError::Palette);
                }
                colors = Some(count);
            }
            (b"tRNS", Place::BeforeData) if clear.is_none() => clear = Some(chunk.data.len()),
            (b"IDAT", Place::BeforeData | Place::InData) => {
                data.extend_from_slice(chunk.data);
                place = Place::InData;
            }
            (b"IEND", Place::InData | Place::BehindData) => {
                if !chunk.data.is_empty() {
                    return Err(PngError::Order);
                }
                if !rest.is_empty() {
                    return Err(PngError::Trailing);
                }
                kept.extend_from_slice(chunk.whole);
                let header = header.ok_or(PngError::Order)?;
                check(header, colors, &data)?;
                check_clear(header, colors, clear)?;
                return Ok(Png {
                    width: header.width,
                    height: header.height,
                    bytes: kept,
                });
            }
            (b"PLTE" | b"tRNS" | b"IDAT" | b"IEND", _) => return Err(PngError::Order),
            (name, _) => {
                // A capital letter first: no picture without it (section 5.4).
                if name[0].is_ascii_uppercase() {
                    return Err(PngError::Unknown);
                }
                if place == Place::InData {
                    place = Place::BehindData;
                }
                continue;
            }
        }
        kept.extend_from_slice(chunk.whole);
    }
    Err(PngError::CutOff)
}

struct Chunk<'a> {
    name: [u8; 4],
    data: &'a [u8],
    /// With its length and checksum.
    whole: &'a [u8],
}

/// The first chunk and what follows it.
fn next(rest: &[u8]) -> Result<(Chunk<'_>, &[u8]), PngError> {
    let length = rest.first_chunk::<4>().ok_or(PngError::CutOff)?;
    let length = u32::from_be_bytes(*length) as usize;
    // No file is that long, so the sum does not overflow.
    if length > BYTES_MAX || rest.len() < length + 12 {
        return Err(PngError::CutOff);
    }
    let (whole, behind) = rest.split_at(length + 12);
    let (named, checksum) = whole[4..].split_at(length + 4);
    let mut crc = Crc::new();
    crc.update(named);
    if checksum != crc.sum().to_be_bytes() {
        return Err(PngError::Checksum);
    }
    let (name, data) = named.split_first_chunk::<4>().ok_or(PngError::CutOff)?;
    if !name.iter().all(u8::is_ascii_alphabetic) {
        return Err(PngError::Unknown);
    }
    let chunk = Chunk {
        name: *name,
        data,
        whole,
    };
    Ok((chunk, behind))
}

/// What is seen through has as many bytes as the header says (section 11.3.1.1).
fn check_clear(header: Header, colors: Option<usize>, clear: Option<usize>) -> Result<(), PngError> {
    let Some(bytes) = clear else { return Ok(()) };
    let is_right = match header.color {
        0 => bytes == 2,
        2 => bytes == 6,
        3 => bytes >= 1 && colors.is_some_and(|colors| bytes <= colors),
        _ => false,
    };
    if is_right { Ok(()) } else { Err(PngError::Palette) }
}

/// Inflates the image data and counts it: rows as the header says, each with a filter that there is, and not a byte more.
fn check(header: Header, colors: Option<usize>, data: &[u8]) -> Result<(), PngError> {
    let most = 1_usize << header.depth.min(8);
    match (header.color, colors) {
        (3, None) | (0 | 4, Some(_)) => return Err(PngError::Palette),
        (3, Some(count)) if count > most => return Err(PngError::Palette),
        _ => {}
    }
    let row = header.row_bytes() + 1;
    let whole = row * header.height as usize;
    let mut inflated = ZlibDecoder::new(data);
    let (mut seen, mut buffer) = (0, [0; 8 * 1024]);
    loop {
        let count = inflated.read(&mut buffer).map_err(|_| PngError::Data)?;
        if count == 0 {
            break;
        }
        if seen + count > whole {
            return Err(PngError::Data);
        }
        // The first byte of each row says how it is filtered: 0 to 4 (section 9).
        let to_next_row = (row - seen % row) % row;
        let mut filters = buffer[..count].iter().skip(to_next_row).step_by(row);
        if filters.any(|filter| *filter > 4) {
            return Err(PngError::Data);
        }
        seen += count;
    }
    // Behind the compressed data nothing may hide.
    let is_all = inflated.total_in() == data.len() as u64;
    if seen == whole && is_all {
        Ok(())
    } else {
        Err(PngError::Data)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut crc = Crc::new();
        crc.update(name);
        crc.update(data);
        let length = u32::try_from(data.len()).expect("a test's chunk is short");
        [&length.to_be_bytes()[..], name, data, &crc.sum().to_be_bytes()].concat()
    }

    fn header(width: u32, height: u32, rest: [u8; 5]) -> Vec<u8> {
        let data = [&width.to_be_bytes()[..], &height.to_be_bytes(), &rest].concat();
        chunk(b"IHDR", &data)
    }

    fn deflated(raw: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(raw).expect("a vector takes everything");
        encoder.finish().expect("a vector takes everything")
    }

    fn file(chunks: &[Vec<u8>]) -> Vec<u8> {
        [SIGNATURE.to_vec(), chunks.concat()].concat()
    }

    /// 16 by 16 pixels of eight bits of red, green and blue.
    fn parts() -> Vec<Vec<u8>> {
        vec![
            header(16, 16, [8, 2, 0, 0, 0]),
            chunk(b"IDAT", &deflated(&[0; 16 * 49])),
            chunk(b"IEND", &[]),
        ]
    }

    fn with(at: usize, part: Vec<u8>) -> Result<Png, PngError> {
        let mut parts = parts();
        parts.insert(at, part);
        read(&file(&parts))
    }

    fn instead(at: usize, part: Vec<u8>) -> Result<Png, PngError> {
        let mut parts = parts();
        parts[at] = part;
        read(&file(&parts))
    }

    #[test]
    fn a_picture_is_taken_and_what_is_no_part_of_it_is_left_out() {
        let plain = read(&file(&parts())).expect("it is a picture");
        assert_eq!((plain.width, plain.height), (16, 16));
        assert_eq!(plain.bytes, file(&parts()));
        for name in [b"tEXt", b"iTXt", b"eXIf", b"tIME", b"iCCP", b"acTL", b"gAMA"] {
            let told = with(1, chunk(name, b"who made it, and where")).expect("it is a picture");
            assert_eq!(told.bytes, plain.bytes, "{name:?}");
        }
        let kept = with(1, chunk(b"tRNS", &[0; 6])).expect("it is a picture");
        assert_eq!(kept.bytes.len(), plain.bytes.len() + 18);
        assert_eq!(with(1, chunk(b"tRNS", &[0; 7])), Err(PngError::Palette));
        assert_eq!(with(2, chunk(b"tRNS", &[0; 6])), Err(PngError::Order));
        let twice = [chunk(b"tRNS", &[0; 6]), chunk(b"tRNS", &[0; 6])].concat();
        assert_eq!(with(1, twice), Err(PngError::Order));
        let mut split = parts();
        let data = deflated(&[0; 16 * 49]);
        split[1] = [chunk(b"IDAT", &data[..5]), chunk(b"IDAT", &data[5..])].concat();
        assert!(read(&file(&split)).is_ok(), "image data may come in parts");
    }

    #[test]
    fn what_is_no_png_or_has_more_or_less_than_its_header_says_is_refused() {
        assert_eq!(
            read(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
            Err(PngError::NoPng)
        );
        assert_eq!(read(&[0; BYTES_MAX + 1]), Err(PngError::TooLarge));
        assert_eq!(read(SIGNATURE), Err(PngError::CutOff));
        for (width, height) in [(15, 16), (16, 1025), (0, 16), (u32::MAX, u32::MAX)] {
            let side = instead(0, header(width, height, [8, 2, 0, 0, 0]));
            assert_eq!(side, Err(PngError::Side { width, height }));
        }
        for rest in [
            [8, 1, 0, 0, 0],
            [4, 2, 0, 0, 0],
            [8, 2, 1, 0, 0],
            [8, 2, 0, 9, 0],
            [8, 2, 0, 0, 2],
        ] {
            assert_eq!(
                instead(0, header(16, 16, rest)),
                Err(PngError::Header),
                "{rest:?}"
            );
        }
        let interlaced = header(16, 16, [8, 2, 0, 0, 1]);
        assert_eq!(instead(0, interlaced), Err(PngError::Interlaced));
        for raw in [
            vec![0; 16 * 49 - 1],
            vec![0; 16 * 49 + 1],
            vec![5; 16 * 49],
            vec![0; 20_000_000],
        ] {
            assert_eq!(instead(1, chunk(b"IDAT", &deflated(&raw))), Err(PngError::Data));
        }
        let mut hidden = deflated(&[0; 16 * 49]);
        hidden.extend_from_slice(b"<script>");
        assert_eq!(instead(1, chunk(b"IDAT", &hidden)), Err(PngError::Data));
        assert_eq!(instead(1, chunk(b"IDAT", b"not deflated")), Err(PngError::Data));
        let mut trailing = file(&parts());
        trailing.extend_from_slice(b"PK");
        assert_eq!(read(&trailing), Err(PngError::Trailing));
        let mut changed = file(&parts());
        changed[20] ^= 1;
        assert_eq!(read(&changed), Err(PngError::Checksum));
    }

    #[test]
    fn the_parts_of_a_file_come_in_their_order_and_are_known() {
        assert_eq!(with(0, chunk(b"gAMA", &[0; 4])), Err(PngError::Order));
        assert_eq!(with(1, header(16, 16, [8, 2, 0, 0, 0])), Err(PngError::Order));
        assert_eq!(with(2, chunk(b"PLTE", &[0; 3])), Err(PngError::Order));
        assert_eq!(with(1, chunk(b"EVIL", &[])), Err(PngError::Unknown));
        assert_eq!(with(1, chunk(b"ev1l", &[])), Err(PngError::Unknown));
        let data = deflated(&[0; 16 * 49]);
        let apart = [
            chunk(b"IDAT", &data[..5]),
            chunk(b"tEXt", b"x"),
            chunk(b"IDAT", &data[5..]),
        ];
        assert_eq!(instead(1, apart.concat()), Err(PngError::Order));
        assert_eq!(with(1, chunk(b"PLTE", &[0; 4])), Err(PngError::Palette));
        let indexed = vec![
            header(16, 16, [2, 3, 0, 0, 0]),
            chunk(b"IDAT", &deflated(&[0; 16 * 5])),
            chunk(b"IEND", &[]),
        ];
        assert_eq!(read(&file(&indexed)), Err(PngError::Palette), "it has no palette");
        let mut colored = indexed.clone();
        colored.insert(1, chunk(b"PLTE", &[0; 12]));
        assert!(read(&file(&colored)).is_ok());
        colored[1] = chunk(b"PLTE", &[0; 15]);
        assert_eq!(
            read(&file(&colored)),
            Err(PngError::Palette),
            "two bits name four"
        );
    }

    proptest! {
        #[test]
        fn random_bytes_are_a_picture_or_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..400), signed: bool) {
            if signed {
                bytes.splice(0..0, SIGNATURE.iter().copied());
            }
            let _ = read(&bytes);
        }

        #[test]
        fn a_picture_with_bytes_changed_is_a_picture_or_refused(at in 8_usize..100, to: u8, cut in 0_usize..100) {
            let mut bytes = file(&parts());
            let place = at % bytes.len();
            bytes[place] = to;
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Ok(png) = read(&bytes) {
                prop_assert!(png.bytes.len() <= bytes.len());
            }
        }

        #[test]
        fn any_image_data_is_counted_and_never_kept_in_memory(raw in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = instead(1, chunk(b"IDAT", &deflated(&raw)));
        }
    }
}
