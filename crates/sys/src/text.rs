//! Foreign text in messages: text of another process, which may be meant to deceive the reader of
//! a log or a terminal.
//!
//! Escaped are control characters, among them line breaks and the first byte of terminal commands,
//! the separators of Unicode that break lines, characters that change the direction of text, and
//! bytes that are not UTF-8. All other characters, also the backslash, stay as they are.
//!
//! Pure.

use std::fmt::{self, Write as _};

/// The longest text that [`Escaped::cut`] writes, in bytes of the source.
pub const CUT_BYTES_MAX: usize = 1000;

/// Foreign text; `Display` writes it escaped.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a> {
    bytes: &'a [u8],
    keeps_lines: bool,
    cut_from: Option<usize>,
}

/// Returns foreign text as a part of one line.
#[must_use]
pub fn line<T: AsRef<[u8]> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped { bytes: text.as_ref(), keeps_lines: false, cut_from: None }
}

/// Returns foreign text in which line breaks and tabs stay.
#[must_use]
pub fn lines<T: AsRef<[u8]> + ?Sized>(text: &T) -> Escaped<'_> {
    Escaped { keeps_lines: true, ..line(text) }
}

impl Escaped<'_> {
    /// Leaves out what follows the first [`CUT_BYTES_MAX`] bytes, and writes the length instead.
    #[must_use]
    pub fn cut(self) -> Self {
        if self.bytes.len() <= CUT_BYTES_MAX {
            return self;
        }
        let is_start = |at: &usize| self.bytes[*at] & 0xc0 != 0x80;
        let at = (0..=CUT_BYTES_MAX).rev().find(is_start).unwrap_or(CUT_BYTES_MAX);
        Self { bytes: &self.bytes[..at], cut_from: Some(self.bytes.len()), ..self }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                let stays = self.keeps_lines && matches!(character, '\n' | '\t');
                if stays || !is_deceptive(character) {
                    f.write_char(character)?;
                } else {
                    write!(f, "{}", character.escape_default())?;
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        self.cut_from.map_or(Ok(()), |bytes| write!(f, "… ({bytes} bytes)"))
    }
}

/// Returns whether a character has an effect on the text around it.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200e}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_has_an_effect_on_other_text_is_escaped() {
        for (text, escaped) in [
            ("/run/app-é-中.sock", "/run/app-é-中.sock"),
            (r#"C:\x "y" 'z'"#, r#"C:\x "y" 'z'"#),
            ("x\n2026 exit 1\r\tz\0", r"x\n2026 exit 1\r\tz\u{0}"),
            ("\x1b[31m\x7f\u{9b}31m", r"\u{1b}[31m\u{7f}\u{9b}31m"),
            ("a\u{202e}b\u{2066}c\u{2028}d\u{200f}", r"a\u{202e}b\u{2066}c\u{2028}d\u{200f}"),
        ] {
            assert_eq!(line(text).to_string(), escaped);
        }
        assert_eq!(line(b"a\xff\xe2\x80b").to_string(), r"a\xff\xe2\x80b");
        assert_eq!(lines("a\n\tb\r\x1b").to_string(), "a\n\tb\\r\\u{1b}");
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let text = "é".repeat(CUT_BYTES_MAX);
        let cut = line(&format!("x{text}")).cut().to_string();
        let kept = "é".repeat(CUT_BYTES_MAX / 2 - 1);
        assert_eq!(cut, format!("x{kept}… ({} bytes)", 2 * CUT_BYTES_MAX + 1));
        assert_eq!(line("short").cut().to_string(), "short");
        assert!(line(&[0x80_u8; 2 * CUT_BYTES_MAX]).cut().to_string().ends_with("(2000 bytes)"));
    }
}
