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
    for (place, color) in code.to_colors().into_iter().enumerate() {
        if color == Color::Dark {
            path.push_str(&format!(
                "M{} {}h1v1h-1z",
                place % width + QUIET,
                place / width + QUIET
            ));
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
            drawing.path.starts_with("M4 4h1v1h-1z"),
            "the corner of the first finder pattern is dark"
        );
        assert!(draw(&"a".repeat(5000)).is_none());
    }
}
