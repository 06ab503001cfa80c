//! Rust files as text: code without comments and literals, cut into the program and its tests.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file, cut into the program and its tests.
pub(crate) struct Source {
    /// The path from the root of the project.
    pub(crate) path: String,
    /// The text without comments, and with empty literals; the lines are those of the file.
    pub(crate) code: String,
    /// The header: the lines that begin with `//!`.
    pub(crate) header: String,
    /// The line with which the tests begin, counted from 0; the length when there are none.
    pub(crate) tests_at: usize,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let code = without_comments_and_literals(&text);
        let header = text.lines().take_while(|line| line.starts_with("//!"));
        let header: Vec<&str> = header.collect();
        let lines: Vec<&str> = code.lines().collect();
        // The tests begin with `#[cfg(test)]` and `mod name {`, and end with the file.
        let tests_at = (0..lines.len()).find(|&at| {
            lines[at].trim() == "#[cfg(test)]"
                && lines.get(at + 1).is_some_and(|next| {
                    next.trim().starts_with("mod ") && next.trim().ends_with('{')
                })
        });
        let tests_at = if is_test(path) { 0 } else { tests_at.unwrap_or(lines.len()) };
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        Self { path, header: header.join("\n"), tests_at, code }
    }

    /// Returns the lines outside of tests, with line numbers from 1.
    pub(crate) fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines().take(self.tests_at))
    }

    pub(crate) fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines()).skip(self.tests_at)
    }

    pub(crate) fn is_pure(&self) -> bool {
        self.header.lines().any(|line| line.trim_start_matches("//!").trim().starts_with("Pure."))
    }

    pub(crate) fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

/// Returns whether only tests compile a file: by its place, by its name, or by `#[cfg(test)] mod
/// name;` in the file of the module above, of the file itself or of a module around it.
pub(crate) fn is_test(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).unwrap();
    inside.components().any(|part| part.as_os_str() == "tests")
        || inside
            .ancestors()
            .take_while(|it| it.parent().is_some())
            .any(|module| is_declared_as_test(&root().join(module)))
}

fn is_declared_as_test(module: &Path) -> bool {
    let (Some(name), Some(folder)) =
        (module.file_stem().and_then(|it| it.to_str()), module.parent())
    else {
        return false;
    };
    let doors = [folder.join("lib.rs"), folder.with_extension("rs")];
    let needle = format!("mod {name};");
    doors.iter().filter_map(|door| fs::read_to_string(door).ok()).any(|door| {
        let lines: Vec<&str> = door.lines().map(str::trim).collect();
        lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1] == needle)
    })
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file of the workspace and of the packages beside it.
pub(crate) fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["crates", "src", "tests", "examples", "bench", "fuzz"] {
        walk(&root().join(folder), &mut files);
    }
    let rust = files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| Source::read(path)).collect()
}

pub(crate) fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            files.push(path);
        } else if !path.ends_with("target") {
            walk(&path, files);
        }
    }
}

/// Blanks comments and the inside of string and character literals; keeps every line break.
pub(crate) fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, kept.chars().last()) {
            length
        } else if rest.starts_with('"') {
            quoted(rest, b'"')
        } else if rest.starts_with('\'') && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            0
        };
        if skip > 0 {
            kept.extend(rest[..skip].matches('\n'));
            at += skip;
        } else {
            let next = rest.chars().next().unwrap();
            kept.push(next);
            at += next.len_utf8();
        }
    }
    kept
}

pub(crate) fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            Some(_) => at += 1,
            None => return rest.len(),
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Returns the length of a raw string that begins here; `before` distinguishes an `r` from the end
/// of a name.
pub(crate) fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    let inside = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(rest.len() - inside.len() + length)
}

pub(crate) fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Returns true for `'a'` and `'\n'`, and false for the lifetime `'a`.
pub(crate) fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Returns true when `word` stands in `line` on its own; `a::b` matches at the end of a longer path.
pub(crate) fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[track_caller]
pub(crate) fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Returns the lines in `lines` of `source` that use one of `words`.
pub(crate) fn found<'a>(
    source: &'a Source,
    lines: impl Iterator<Item = (usize, &'a str)>,
    words: &[&str],
) -> Vec<String> {
    lines
        .flat_map(|(number, line)| {
            let hits = words.iter().filter(move |word| names(line, word));
            hits.map(move |word| format!("{}:{number}: {word}", source.path))
        })
        .collect()
}

#[test]
fn the_reader_of_sources_sees_code_and_nothing_else() {
    let text = "let a = \"unsafe\"; // unsafe\nlet b = 'u'; /* un\nsafe */ let c: &'static str;\n\
                let d = r#\"unsafe \" \"#; br\"x\"; b'\\''; '\"'; e\n";
    let code = without_comments_and_literals(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!names(&code, "unsafe") && code.contains("&'static str") && code.contains("; e"));
    assert!(names("use std::fs;", "std::fs") && !names("unsafe_code", "unsafe"));
    assert!(names("a sys::x", "sys") && !names("system", "sys"));
}
