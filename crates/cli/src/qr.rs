//! QR codes in a terminal, two modules to a character (ISO/IEC 18004).

use qrcode::{Color, EcLevel, QrCode};

/// Light modules around the code, which readers need.
const QUIET: usize = 4;
/// Black on white, whatever the terminal's own colors are; and back.
const BLACK_ON_WHITE: &str = "\u{1b}[30;107m";
const RESET: &str = "\u{1b}[0m";

/// How the terminal shows dark modules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Colors are set: a dark module is written.
    Colored,
    /// The terminal's own colors, light text on a dark ground most often: a light module is written.
    Plain,
}

/// Draws a text; `None` if it is too long for a code.
pub fn draw(text: &str, ink: Ink) -> Option<String> {
    let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L).ok()?;
    let width = code.width();
    let colors = code.to_colors();
    let side = width + 2 * QUIET;
    let is_dark = |x: usize, y: usize| {
        let (x, y) = (x.checked_sub(QUIET), y.checked_sub(QUIET));
        match (x, y) {
            (Some(x), Some(y)) if x < width && y < width => colors.get(y * width + x) == Some(&Color::Dark),
            _ => false,
        }
    };
    let mut drawing = String::new();
    for y in (0..side).step_by(2) {
        if ink == Ink::Colored {
            drawing.push_str(BLACK_ON_WHITE);
        }
        for x in 0..side {
            let written = |y| is_dark(x, y) == (ink == Ink::Colored);
            drawing.push(match (written(y), written(y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        if ink == Ink::Colored {
            drawing.push_str(RESET);
        }
        drawing.push('\n');
    }
    Some(drawing)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a drawing back into modules, without the quiet zone.
    fn modules(drawing: &str, ink: Ink) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in drawing.lines() {
            let line = line.replace(BLACK_ON_WHITE, "").replace(RESET, "");
            let written = |half: char| {
                let pick = |c: char| c == '█' || c == half;
                line.chars()
                    .map(|c| pick(c) == (ink == Ink::Colored))
                    .collect::<Vec<bool>>()
            };
            rows.push(written('▀'));
            rows.push(written('▄'));
        }
        let side = rows[0].len();
        rows[QUIET..side - QUIET]
            .iter()
            .map(|row| row[QUIET..side - QUIET].to_vec())
            .collect()
    }

    #[test]
    fn a_drawing_has_the_modules_of_the_code() {
        let text = "a".repeat(700);
        let code = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L).expect("it fits");
        let expected: Vec<Vec<bool>> = code
            .to_colors()
            .chunks(code.width())
            .map(|row| row.iter().map(|color| *color == Color::Dark).collect())
            .collect();
        for ink in [Ink::Colored, Ink::Plain] {
            let drawing = draw(&text, ink).expect("it fits");
            assert_eq!(modules(&drawing, ink), expected, "{ink:?}");
        }
    }

    #[test]
    fn a_book_is_not_drawn() {
        assert_eq!(draw(&"a".repeat(5000), Ink::Plain), None);
    }
}
