//! QR codes as one path of a drawing (ISO/IEC 18004).

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code, which readers need.
const QUIET: usize = 4;

/// A code to draw: the side of its square, and the dark modules as a path.
#[derive(Debug)]
pub struct Drawing {
    pub side: usize,
    pub path: String,
}

/// Draws a text; `None` if it is too long for a code.
pub fn draw(text: &str) -> Option<Drawing> {
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L).ok()?;
    let width = code.width();
    let mut path = String::new();
    for (y, row) in code.to_colors().chunks(width).enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|left, right| left == right) {
            if run.first() == Some(&Color::Dark) {
                let (left, top, length) = (x + QUIET, y + QUIET, run.len());
                path.push_str(&format!("M{left} {top}h{length}v1h-{length}z"));
            }
            x += run.len();
        }
    }
    Some(Drawing {
        side: width + 2 * QUIET,
        path,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_fits_and_a_book_does_not() {
        let drawing = draw(&"a".repeat(700)).expect("a token fits");
        assert!(
            drawing.path.starts_with("M4 4h7v1h-7z"),
            "the first finder pattern begins with seven dark modules"
        );
        assert!(draw(&"a".repeat(5000)).is_none());
    }
}
