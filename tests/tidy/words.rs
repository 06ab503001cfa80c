//! The words of the field: no private word in a name, no riddle in a sentence.
//!
//! Names are compared as a whole, so that `own` and `end` stay free. In prose the list is short,
//! because most of these words are ordinary English elsewhere.

use std::fs;
use std::path::Path;

use crate::source::{assert_none, root, sources, walk};

/// Words of an earlier vocabulary, with the field's word for each.
const PRIVATE: &[(&str, &str)] = &[
    ("deal", "dispatch"),
    ("deals", "dispatches"),
    ("dealt", "dispatched"),
    ("lane", "backend"),
    ("lanes", "backends"),
    ("looked", "polled"),
    ("look_at", "poll_at"),
    ("take_back", "reclaim"),
    ("taken_back", "reclaimed"),
    ("held_back", "paused"),
    ("stuck", "stalled"),
    ("desk", "session"),
    ("guest", "session"),
    ("wish", "request"),
    ("wishes", "requests"),
    ("claim", "registration"),
    ("take_up", "register"),
    ("gate", "limited_socket or acknowledgement_window"),
    ("stand_in", "accept_on_behalf"),
    ("intake", "queue_reader"),
    ("tally", "closed_count"),
    ("heir", "reservation"),
    ("heirs", "reservations"),
    ("disinherit", "release"),
    ("last_words", "stderr_tail"),
    ("blame", "startup_failure"),
    ("blamed", "reported"),
    ("twin", "try_clone"),
    ("tell", "notify or emit"),
    ("told", "notified or emitted"),
    ("hear", "handle"),
    ("heard", "received"),
    ("let_go", "release"),
    ("farewell", "disconnect"),
    ("part_from", "disconnect"),
    ("emptied", "all_gone"),
    ("emptying", "disconnecting_all"),
    ("hub", "subscribers"),
    ("outlet", "link_sender"),
    ("greeting", "handshake"),
    ("greeted", "sent"),
    ("hurry", "coalesce"),
    ("scratch", "thread pool of buffers"),
    ("lend", "take"),
    ("deposit", "side_table"),
    ("giving", "extract"),
    ("keyed", "server_connections"),
    ("beside", "attachments"),
    ("mended", "repaired"),
    ("recipe", "attributes"),
    ("blueprint", "plan"),
    ("glass", "harness"),
    ("calm", "control"),
];

/// Words and phrases that are unmistakable in a sentence.
const RIDDLES: &[&str] = &[
    "dealt",
    "lane",
    "lanes",
    "heir",
    "heirs",
    "disinherit",
    "disinherited",
    "desk",
    "taken back",
    "takes back",
    "take back",
    "last words",
    "farewell",
    "let go",
    "lets go",
    "parts from",
    "part from",
    "wish",
    "wishes",
    "twin",
    "blamed",
    "is told",
    "are told",
    "has heard",
    "hears",
    "has to know",
    "whoever",
    "somebody",
    "everybody",
    "to and fro",
    "ping-pong",
    "handed round",
    "says so",
    "say so",
];

/// Words with which no sentence begins, because the subject is missing then.
const FRAGMENTS: &[&str] = &[
    "What",
    "Whatever",
    "Who",
    "Whom",
    "Whose",
    "Whoever",
    "Which",
    "Whichever",
    "Of",
    "So many",
    "So much",
    "Nobody",
    "So",
];

/// Converts `takenBack`, `TakenBack` and `TAKEN_BACK` to `taken_back`.
fn snake(name: &str) -> String {
    if !name.chars().any(char::is_lowercase) {
        return name.to_lowercase();
    }
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

fn the_fields_word(name: &str) -> Option<&'static str> {
    let name = snake(name.trim_start_matches('_'));
    PRIVATE.iter().find(|(private, _)| *private == name).map(|(_, field)| *field)
}

#[test]
fn names_and_files_use_the_words_of_the_field() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.path.starts_with("tests/tidy/")) {
        let stem = Path::new(&source.path).file_stem().unwrap().to_str().unwrap();
        if stem == "core" {
            broken.push(format!("{}: hides the crate `core`", source.path));
        }
        if let Some(field) = the_fields_word(stem) {
            broken.push(format!("{}: a file named {stem}, better {field}", source.path));
        }
        for (number, line) in (1..).zip(source.code.lines()) {
            let names = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            for name in names {
                if let Some(field) = the_fields_word(name) {
                    broken.push(format!("{}:{number}: {name}, better {field}", source.path));
                }
            }
        }
    }
    assert_none(&broken, "words of our own where the field has one");
}

/// One paragraph of prose, with the line at which it begins.
struct Paragraph {
    line: usize,
    text: String,
}

/// Returns the paragraphs of the texts that `prose` finds in the lines. A line without text, and an
/// empty text, end a paragraph.
fn paragraphs<'a>(
    lines: impl Iterator<Item = &'a str>,
    prose: impl Fn(&'a str) -> Option<&'a str>,
) -> Vec<Paragraph> {
    let (mut all, mut open, mut in_code) = (Vec::new(), None::<Paragraph>, false);
    for (number, line) in (1..).zip(lines) {
        let text = prose(line).map(str::trim);
        let fence = text.is_some_and(|text| text.starts_with("```"));
        in_code = in_code != fence && text.is_some();
        let text = text.filter(|text| !fence && !in_code && !text.is_empty());
        let starts = |text: &str| text.starts_with(['-', '#', '|', '>']) || text.starts_with("1.");
        if text.is_none_or(starts) {
            all.extend(open.take());
        }
        let Some(text) = text.filter(|text| !text.starts_with(['#', '|'])) else { continue };
        let text = text.trim_start_matches(['-', '>', ' ']);
        match &mut open {
            Some(paragraph) => {
                paragraph.text.push(' ');
                paragraph.text.push_str(text);
            }
            None => open = Some(Paragraph { line: number, text: text.to_owned() }),
        }
    }
    all.extend(open);
    all
}

/// Returns the text behind `//`, `///` or `//!`.
fn comment(line: &str) -> Option<&str> {
    let text = line.trim_start().strip_prefix("//")?;
    Some(text.trim_start_matches(['/', '!']))
}

/// Removes the texts between backticks, which are code.
fn without_code(text: &str) -> String {
    text.split('`').step_by(2).collect::<Vec<_>>().join("`")
}

fn contains_words(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric) && !after.is_some_and(char::is_alphanumeric)
    })
}

/// Returns the sentences of a paragraph: one from the beginning, and one behind each full stop.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(". ").map(|sentence| sentence.trim_start_matches(['*', '(', '"', ' ', '[']))
}

fn faults_of(text: &str) -> Vec<String> {
    let text = without_code(text);
    let lower = text.to_lowercase();
    let riddles = RIDDLES.iter().filter(|words| contains_words(&lower, words));
    let mut faults: Vec<String> = riddles.map(|words| format!("“{words}”")).collect();
    for sentence in sentences(&text).filter(|sentence| !sentence.trim_end().ends_with('?')) {
        let begins = |words: &&&str| {
            sentence.strip_prefix(**words).is_some_and(|rest| rest.starts_with([' ', ',']))
        };
        if let Some(words) = FRAGMENTS.iter().find(begins) {
            faults.push(format!("begins with “{words}”"));
        }
    }
    faults
}

#[test]
fn sentences_have_a_subject_and_no_riddle() {
    let mut files = Vec::new();
    for folder in ["crates", "tests", "examples", "bench", "fuzz", "docs"] {
        walk(&root().join(folder), &mut files);
    }
    for page in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        files.push(root().join(page));
    }
    let mut broken = Vec::new();
    for path in &files {
        let name = path.strip_prefix(root()).unwrap().display().to_string();
        // The table of renamed items and the lists of this rule name the old words on purpose.
        if name == "docs/renamed.md" || name.starts_with("tests/tidy/") {
            continue;
        }
        let end = path.extension().and_then(|end| end.to_str());
        let Ok(text) = fs::read_to_string(path) else { continue };
        let paragraphs = match end {
            Some("rs" | "js" | "cjs") => paragraphs(text.lines(), comment),
            Some("md") => paragraphs(text.lines(), Some),
            _ => continue,
        };
        for Paragraph { line, text } in paragraphs {
            broken.extend(faults_of(&text).iter().map(|fault| format!("{name}:{line}: {fault}")));
        }
    }
    assert_none(&broken, "prose that a stranger has to guess at");
}

/// Returns the texts between the quotes of a line. A text of several lines is seen in part only.
fn literals(line: &str) -> impl Iterator<Item = &str> {
    line.split('"').skip(1).step_by(2)
}

#[test]
fn messages_and_other_literals_have_no_riddle() {
    let mut broken = Vec::new();
    for path in sources().iter().map(|source| &source.path) {
        if path.starts_with("tests/tidy/") {
            continue;
        }
        let text = fs::read_to_string(root().join(path)).unwrap();
        for (number, line) in (1..).zip(text.lines()) {
            let literals: Vec<String> = literals(line).map(str::to_lowercase).collect();
            let riddle = |words: &&&str| literals.iter().any(|text| contains_words(text, words));
            if let Some(words) = RIDDLES.iter().find(riddle) {
                broken.push(format!("{path}:{number}: “{words}”"));
            }
        }
    }
    assert_none(&broken, "texts that a stranger has to guess at");
}

#[test]
fn private_words_are_found_in_every_spelling_and_ordinary_ones_are_not() {
    for name in ["taken_back", "TakenBack", "TAKEN_BACK", "_lane"] {
        assert!(the_fields_word(name).is_some(), "{name}");
    }
    for name in ["own", "end", "given", "planet", "taken", "ledger"] {
        assert!(the_fields_word(name).is_none(), "{name}");
    }
    let text = "Sends it.\nWhat is\nleft waits.\n\n```\nWho\n```\n- Of these.\n# So\n";
    let found = paragraphs(text.lines(), Some);
    let found: Vec<_> = found.iter().map(|it| (it.line, faults_of(&it.text).len())).collect();
    assert_eq!(found, [(1, 1), (8, 1)]);
    assert_eq!(faults_of("The `heir` waits. What is this?").len(), 0);
    assert_eq!(faults_of("The heirs wait.").len(), 1);
    assert_eq!(literals(r#"panic!("a {b}", "c")"#).collect::<Vec<_>>(), ["a {b}", "c"]);
}
