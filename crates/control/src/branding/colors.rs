//! Colors of a tenant, checked against what the console puts on them and puts them on. Pure.
//!
//! Contrast is that of WCAG 2.2: relative luminance of sRGB, and at least 4.5 to 1 for text (success criterion 1.4.3).

use std::{fmt, str::FromStr};

/// What the console has of one theme: the text on the accent, and the grounds on which the accent is text. A test of the console holds
/// this to its style sheet.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    pub name: &'static str,
    /// The text on buttons.
    pub on_accent: Color,
    /// Pages, cards, and what is sunk into them.
    pub grounds: [(&'static str, Color); 3],
    /// The surface into which a little of the accent is mixed for soft grounds.
    pub surface: Color,
    /// The text of pages.
    pub ink: Color,
}

pub const LIGHT: Theme = Theme {
    name: "light",
    on_accent: Color([0xff, 0xff, 0xff]),
    grounds: [
        ("paper", Color([0xf6, 0xf5, 0xf1])),
        ("surface", Color([0xff, 0xff, 0xff])),
        ("sunken", Color([0xef, 0xed, 0xe7])),
    ],
    surface: Color([0xff, 0xff, 0xff]),
    ink: Color([0x1c, 0x24, 0x26]),
};
pub const DARK: Theme = Theme {
    name: "dark",
    on_accent: Color([0x0b, 0x21, 0x27]),
    grounds: [
        ("paper", Color([0x12, 0x17, 0x1a])),
        ("surface", Color([0x1a, 0x21, 0x25])),
        ("sunken", Color([0x15, 0x1b, 0x1f])),
    ],
    surface: Color([0x1a, 0x21, 0x25]),
    ink: Color([0xe7, 0xec, 0xec]),
};

/// The least contrast of text.
const CONTRAST_MIN: f64 = 4.5;
const WHITE: Color = Color([0xff, 0xff, 0xff]);
/// How much of the accent is in a soft ground at most, in hundredths.
const SOFT_PERCENT_MAX: u32 = 14;

/// A color of sRGB, written `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Color(pub [u8; 3]);

/// A text that is no color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("A color is written as # and six hex digits, such as #0f5a69.")]
pub struct NoColor;

impl FromStr for Color {
    type Err = NoColor;

    fn from_str(text: &str) -> Result<Color, NoColor> {
        let digits = text.strip_prefix('#').ok_or(NoColor)?;
        let mut channels = [0; 3];
        // Not every text of six bytes is one of six hex digits.
        hex::decode_to_slice(digits, &mut channels).map_err(|_| NoColor)?;
        Ok(Color(channels))
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", hex::encode(self.0))
    }
}

impl Color {
    fn luminance(self) -> f64 {
        let channel = |value: u8| {
            let value = f64::from(value) / 255.0;
            if value <= 0.04045 {
                value / 12.92
            } else {
                ((value + 0.055) / 1.055).powf(2.4)
            }
        };
        let [red, green, blue] = self.0.map(channel);
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }

    /// From 1 to 21.
    pub fn contrast(self, other: Color) -> f64 {
        let (one, other) = (self.luminance(), other.luminance());
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    /// So many hundredths of `other`, and the rest of this one.
    fn mixed(self, other: Color, percent: u32) -> Color {
        let mix = |at: usize| {
            let (own, other) = (u32::from(self.0[at]), u32::from(other.0[at]));
            let mixed = (own * (100 - percent) + other * percent + 50) / 100;
            u8::try_from(mixed).unwrap_or(u8::MAX)
        };
        Color([mix(0), mix(1), mix(2)])
    }
}

/// A color that cannot be read where the console would use it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Unreadable {
    pub theme: &'static str,
    pub accent: Color,
    /// What it stands with: the text on it, or the ground beneath it.
    pub with: &'static str,
    pub other: Color,
    pub contrast: f64,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = if self.theme == LIGHT.name {
            "darker"
        } else {
            "lighter"
        };
        write!(
            f,
            "In the {} theme {} has a contrast of {:.2} with {} ({}); 4.5 is the least. Take a {way} one.",
            self.theme, self.accent, self.contrast, self.with, self.other
        )
    }
}

/// Looks whether an accent can be read in a theme: text on it, and itself as text on every ground.
pub fn check(accent: Color, theme: &Theme) -> Result<(), Unreadable> {
    let text = ("the text of buttons", theme.on_accent);
    for (with, other) in [text].into_iter().chain(theme.grounds) {
        let contrast = accent.contrast(other);
        if contrast < CONTRAST_MIN {
            return Err(Unreadable {
                theme: theme.name,
                accent,
                with,
                other,
                contrast,
            });
        }
    }
    Ok(())
}

/// The accent of the dark theme for one of the light theme: as much lighter as it takes.
pub fn for_dark(light: Color) -> Color {
    let lighter = (0..=20).map(|step| light.mixed(WHITE, step * 5));
    let mut readable = lighter.filter(|color| check(*color, &DARK).is_ok());
    readable.next().unwrap_or(WHITE)
}

/// A ground with a little of the accent, on which both the accent and the text of pages can be read.
fn soft(accent: Color, theme: &Theme) -> Color {
    let grounds = (0..=SOFT_PERCENT_MAX)
        .rev()
        .map(|percent| theme.surface.mixed(accent, percent));
    let is_readable = |ground: &Color| {
        [accent, theme.ink]
            .iter()
            .all(|text| text.contrast(*ground) >= CONTRAST_MIN)
    };
    let mut readable = grounds.filter(is_readable);
    readable.next().unwrap_or(theme.surface)
}

/// The style sheet of an accent that was checked.
pub fn style(light: Color, dark: Color) -> String {
    format!(
        ":root {{ --accent: light-dark({light}, {dark}); --accent-soft: light-dark({}, {}); }}\n",
        soft(light, &LIGHT),
        soft(dark, &DARK)
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn color(text: &str) -> Color {
        text.parse().expect("it is a color")
    }

    #[test]
    fn a_color_is_read_as_it_is_written_and_nothing_else_is_one() {
        assert_eq!(color("#0F5a69").to_string(), "#0f5a69");
        for text in [
            "", "#", "0f5a69", "#0f5a6", "#0f5a699", "#0f5a6g", "red", "#éaa1", "#fff",
        ] {
            assert_eq!(text.parse::<Color>(), Err(NoColor), "{text}");
        }
    }

    #[test]
    fn contrast_is_that_of_wcag() {
        assert!((color("#000000").contrast(WHITE) - 21.0).abs() < 1e-9);
        assert!((WHITE.contrast(WHITE) - 1.0).abs() < 1e-9);
        // The gray that just meets 4.5 on white, and the one that just does not.
        assert!(color("#767676").contrast(WHITE) >= 4.5);
        assert!(color("#777777").contrast(WHITE) < 4.5);
    }

    #[test]
    fn our_own_accent_is_readable_and_a_pale_one_is_refused_with_what_it_stands_on() {
        assert_eq!(check(color("#0f5a69"), &LIGHT), Ok(()));
        assert_eq!(check(color("#6fc7d6"), &DARK), Ok(()));
        let pale = check(color("#ffcc00"), &LIGHT).expect_err("yellow on white");
        assert_eq!(pale.with, "the text of buttons");
        assert!(
            pale.to_string().contains("has a contrast of 1.5") && pale.to_string().contains("darker"),
            "{pale}"
        );
        // It meets white and not the sunken ground.
        let nearly = check(color("#767676"), &LIGHT).expect_err("gray on gray");
        assert_ne!(nearly.with, "the text of buttons");
        let deep = check(color("#0f5a69"), &DARK).expect_err("dark on dark");
        assert!(deep.to_string().contains("lighter"), "{deep}");
    }

    proptest! {
        #[test]
        fn every_color_has_a_lighter_one_for_the_dark_theme(channels: [u8; 3]) {
            let dark = for_dark(Color(channels));
            prop_assert_eq!(check(dark, &DARK), Ok(()));
        }

        #[test]
        fn soft_grounds_can_be_read(channels: [u8; 3]) {
            for theme in [&LIGHT, &DARK] {
                if check(Color(channels), theme).is_ok() {
                    let ground = soft(Color(channels), theme);
                    prop_assert!(Color(channels).contrast(ground) >= 4.5);
                    prop_assert!(theme.ink.contrast(ground) >= 4.5);
                }
            }
        }

        #[test]
        fn any_text_is_a_color_or_refused(text in ".{0,12}") {
            if let Ok(color) = text.parse::<Color>() {
                prop_assert_eq!(color.to_string(), text.to_lowercase());
            }
        }
    }
}
