//! Checking that a regular expression of JavaScript is certainly valid.
//!
//! V8 compiles an expression when it reads one, and Node ends when the compilation fails. The check
//! covers the common grammar with and without the flag `u`. An expression with rarer syntax (named
//! references, property escapes, modifiers) does not pass, even where V8 would accept it.
//!
//! Pure. Limits: [`NESTING_MAX`].

/// The deepest nesting of groups.
const NESTING_MAX: usize = 64;

/// The characters that must be escaped to match themselves.
const SYNTAX: &str = "^$\\.*+?()[]{}|/";

/// Returns whether `source` is certainly a valid pattern.
pub(crate) fn is_valid(source: &[u16], unicode: bool) -> bool {
    let mut pattern = Pattern { rest: source, unicode, names: Vec::new() };
    pattern.choices(0).is_some() && pattern.rest.is_empty()
}

struct Pattern<'a> {
    rest: &'a [u16],
    unicode: bool,
    names: Vec<&'a [u16]>,
}

/// The kind of term before a quantifier.
#[derive(PartialEq, Eq)]
enum Term {
    Atom,
    /// A term that matches a position and cannot be repeated.
    Place,
}

impl<'a> Pattern<'a> {
    fn choices(&mut self, depth: usize) -> Option<()> {
        if depth > NESTING_MAX {
            return None;
        }
        loop {
            while !matches!(self.peek(), None | Some('|' | ')')) {
                if self.term(depth)? == Term::Atom {
                    self.quantifier()?;
                }
            }
            if !self.eat('|') {
                return Some(());
            }
        }
    }

    fn term(&mut self, depth: usize) -> Option<Term> {
        match self.next()? {
            '^' | '$' => Some(Term::Place),
            '(' => self.group(depth),
            '[' => self.class().map(|()| Term::Atom),
            '\\' if matches!(self.peek(), Some('b' | 'B')) => self.next().map(|_| Term::Place),
            '\\' => self.escape().map(|_| Term::Atom),
            '*' | '+' | '?' | '{' | '}' | ']' | ')' | '|' => None,
            _ => Some(Term::Atom),
        }
    }

    fn group(&mut self, depth: usize) -> Option<Term> {
        let mut term = Term::Atom;
        if self.eat('?') {
            match self.next()? {
                ':' => {}
                '=' | '!' => term = Term::Place,
                '<' if self.eat('=') || self.eat('!') => term = Term::Place,
                '<' => self.name()?,
                _ => return None,
            }
        }
        self.choices(depth + 1)?;
        self.eat(')').then_some(term)
    }

    fn name(&mut self) -> Option<()> {
        let letter = |unit: &u16| u8::try_from(*unit).is_ok_and(|byte| byte.is_ascii_alphabetic());
        let length = self.rest.iter().take_while(|unit| letter(unit)).count();
        let (name, rest) = self.rest.split_at(length);
        if name.is_empty() || self.names.contains(&name) {
            return None;
        }
        self.names.push(name);
        self.rest = rest;
        self.eat('>').then_some(())
    }

    fn quantifier(&mut self) -> Option<()> {
        match self.peek() {
            Some('*' | '+' | '?') => drop(self.next()),
            Some('{') => {
                self.next();
                let least = self.number()?;
                let most = if self.eat(',') && self.peek() != Some('}') {
                    self.number()?
                } else {
                    u32::MAX
                };
                if !self.eat('}') || most < least {
                    return None;
                }
            }
            _ => return Some(()),
        }
        self.eat('?');
        Some(())
    }

    fn number(&mut self) -> Option<u32> {
        let mut number = None;
        while let Some(digit) = self.peek().and_then(|letter| letter.to_digit(10)) {
            self.next();
            number = Some(number.unwrap_or(0_u32).checked_mul(10)?.checked_add(digit)?);
        }
        number
    }

    /// Reads the escape behind a backslash. Returns its character, or `None` inside for a whole
    /// class.
    fn escape(&mut self) -> Option<Option<u16>> {
        let letter = self.next()?;
        let plain = |code: u16| Some(Some(code));
        match letter {
            'd' | 'D' | 'w' | 'W' | 's' | 'S' => Some(None),
            'f' => plain(12),
            'n' => plain(10),
            'r' => plain(13),
            't' => plain(9),
            'v' => plain(11),
            '0' if self.peek().is_none_or(|next| !next.is_ascii_digit()) => plain(0),
            'x' => self.hex(2).map(Some),
            // With the flag `u`, a pair of surrogates would be one character.
            'u' => self.hex(4).filter(|unit| !(0xd800..0xe000).contains(unit)).map(Some),
            letter if SYNTAX.contains(letter) => plain(letter as u16),
            '-' if !self.unicode => plain(u16::from(b'-')),
            _ => None,
        }
    }

    fn hex(&mut self, digits: usize) -> Option<u16> {
        let mut number = 0;
        for _ in 0..digits {
            number = number * 16 + self.next()?.to_digit(16)? as u16;
        }
        Some(number)
    }

    fn class(&mut self) -> Option<()> {
        self.eat('^');
        while !self.eat(']') {
            let from = self.class_atom()?;
            if self.peek() == Some('-') && self.rest.get(1) != Some(&u16::from(b']')) {
                self.next();
                let to = self.class_atom()?;
                if from? > to? {
                    return None;
                }
            }
        }
        Some(())
    }

    fn class_atom(&mut self) -> Option<Option<u16>> {
        let unit = *self.rest.first()?;
        self.rest = &self.rest[1..];
        match char::from_u32(unit.into()) {
            Some('\\') if self.eat('b') => Some(Some(8)),
            Some('\\') => self.escape(),
            Some('[') => None,
            Some(_) => Some(Some(unit)),
            // Half of a pair: a range of such halves is ambiguous.
            None if self.peek() == Some('-') => None,
            None => Some(None),
        }
    }

    /// Returns the next character. Half of a surrogate pair counts as a character.
    fn peek(&self) -> Option<char> {
        self.rest.first().map(|unit| char::from_u32(u32::from(*unit)).unwrap_or('\u{fffd}'))
    }

    fn next(&mut self) -> Option<char> {
        let letter = self.peek()?;
        self.rest = &self.rest[1..];
        Some(letter)
    }

    fn eat(&mut self, letter: char) -> bool {
        let there = self.peek() == Some(letter);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(source: &str, unicode: bool) -> bool {
        is_valid(&source.encode_utf16().collect::<Vec<_>>(), unicode)
    }

    #[test]
    fn everyday_patterns_are_valid() {
        for source in [
            "",
            "ab+",
            "a|b|",
            "^\\d{2,3}?-[a-z_\\]]*$",
            "(?:a(b)(?<year>\\d{4}))+",
            "(?=x)(?<!y)z",
            "[^\\s\\-x-]",
            "\\u00e9\\x41\\/",
            "ß+\u{1f600}",
            ".\\0",
            "a{3}b{3,}",
        ] {
            assert!(check(source, false), "{source}");
        }
        assert!(check("[a-z]\\/\\.", true));
    }

    #[test]
    fn invalid_or_unknown_patterns_are_not_valid() {
        for source in [
            "(",
            ")",
            "[",
            "a**",
            "+",
            "{1}",
            "\\",
            "a{2,1}",
            "[b-a]",
            "(?<a>)(?<a>)",
            "(?<>x)",
            "(?i:x)",
            "\\p{L}",
            "\\k<a>",
            "\\u12",
            "\\c",
            "^*",
            "a{99999999999}",
            "[\\d-z]",
            "a]",
            "\\01",
        ] {
            assert!(!check(source, false), "{source}");
        }
        assert!(!check("\\-", true));
        assert!(!check(&"(".repeat(10_000), false));
    }
}
