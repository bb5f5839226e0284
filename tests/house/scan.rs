//! Reads Rust sources as far as the order of the house needs it: tokens without comments and literals, and the paths
//! that code names. Not a parser: a `super::` inside an inline module that is no test is taken for the file's own.

use std::ops::Range;
use std::path::Path;

/// One file under `src/`.
pub struct Source {
    /// Relative to `src/`.
    pub file: String,
    /// `sink/kafka/verify.rs` is `sink::kafka::verify`.
    pub module: Vec<String>,
    pub text: String,
    /// What is left without test modules.
    pub tokens: Vec<Token>,
    /// Lines outside of test modules.
    pub lines: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// An identifier or number, `::`, or one character.
    pub text: String,
    pub line: usize,
}

/// A path or a crate that code names, and where.
#[derive(Debug, PartialEq, Eq)]
pub struct Use {
    pub path: Vec<String>,
    pub line: usize,
}

impl Source {
    pub fn new(file: &str, text: &str) -> Self {
        let module: Vec<_> = file
            .trim_end_matches(".rs")
            .split('/')
            .map(str::to_owned)
            .collect();
        let (tokens, test_lines) = without_tests(tokens(text));
        Self {
            file: file.to_owned(),
            module,
            lines: text.lines().count() - test_lines,
            text: text.to_owned(),
            tokens,
        }
    }

    /// A file of its own for tests: `tests.rs` beside what it tests.
    pub fn is_test(&self) -> bool {
        self.module.iter().any(|part| part == "tests")
    }

    /// Paths inside this crate, from its root: `crate::…`, `super::…`, `forebay::…`, each leaf of a braced list.
    pub fn paths(&self) -> Vec<Use> {
        let mut uses = Vec::new();
        for at in 0..self.tokens.len() {
            let starts = !self.follows_colons(at) && self.has(at + 1, "::");
            let line = self.tokens[at].line;
            let mut prefix = match self.tokens[at].text.as_str() {
                "crate" | "forebay" if starts => Vec::new(),
                "super" if starts => parent(&self.module),
                _ => continue,
            };
            let mut next = at + 2;
            while self.has(next, "super") {
                prefix = parent(&prefix);
                next += 2;
            }
            self.leaves(next, prefix, line, &mut uses);
        }
        uses
    }

    /// First parts of paths, where a crate's name stands: `hyper` in `hyper::body::Body`.
    pub fn roots(&self) -> impl Iterator<Item = (&str, usize)> {
        let is_root = |at: &usize| self.has(at + 1, "::") && !self.follows_colons(*at);
        (0..self.tokens.len())
            .filter(is_root)
            .map(|at| (self.tokens[at].text.as_str(), self.tokens[at].line))
    }

    fn has(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.text == text)
    }

    fn follows_colons(&self, at: usize) -> bool {
        at > 0 && self.has(at - 1, "::")
    }

    /// Collects the leaves of the use tree at `at`; returns where it ends.
    fn leaves(
        &self,
        mut at: usize,
        mut path: Vec<String>,
        line: usize,
        into: &mut Vec<Use>,
    ) -> usize {
        while let Some(token) = self.tokens.get(at) {
            if token.text == "{" {
                return self.group(at + 1, &path, line, into);
            }
            if !is_name(&token.text) {
                break;
            }
            if token.text != "self" {
                path.push(token.text.clone());
            }
            at += 1;
            if !self.has(at, "::") {
                break;
            }
            at += 1;
        }
        into.push(Use { path, line });
        at
    }

    fn group(&self, mut at: usize, path: &[String], line: usize, into: &mut Vec<Use>) -> usize {
        while at < self.tokens.len() && !self.has(at, "}") {
            let starts =
                is_name(&self.tokens[at].text) && (self.has(at - 1, "{") || self.has(at - 1, ","));
            at = if starts {
                self.leaves(at, path.to_vec(), line, into)
            } else {
                at + 1
            };
        }
        at + 1
    }
}

/// All sources under a folder, in the order of their names.
pub fn read_sources(folder: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    collect(folder, &mut files);
    files.sort();
    let source = |file: &std::path::PathBuf| {
        let name = file.strip_prefix(folder).unwrap().to_str().unwrap();
        Source::new(name, &std::fs::read_to_string(file).unwrap())
    };
    files.iter().map(source).collect()
}

fn collect(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn parent(path: &[String]) -> Vec<String> {
    path.split_last()
        .map_or_else(Vec::new, |(_, rest)| rest.to_vec())
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens of a source, without comments, strings, characters and lifetimes.
pub fn tokens(text: &str) -> Vec<Token> {
    let text: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < text.len() {
        let end = skip(&text, at).unwrap_or(at);
        line += text[at..end]
            .iter()
            .filter(|character| **character == '\n')
            .count();
        at = end;
        let Some(token) = token(&text[at..]) else {
            continue;
        };
        at += token.chars().count();
        tokens.push(Token { text: token, line });
    }
    tokens
}

/// The token at the start; `None` where there is something to skip first.
fn token(text: &[char]) -> Option<String> {
    if skip(text, 0).is_some() {
        return None;
    }
    let name: String = text
        .iter()
        .take_while(|c| c.is_alphanumeric() || **c == '_')
        .collect();
    match text {
        _ if !name.is_empty() => Some(name),
        [':', ':', ..] => Some("::".into()),
        [first, ..] => Some(first.to_string()),
        [] => None,
    }
}

/// Where what is no token ends, if that is what starts here.
fn skip(text: &[char], at: usize) -> Option<usize> {
    let is_inside_name = at > 0 && (text[at - 1].is_alphanumeric() || text[at - 1] == '_');
    let end = match &text[at..] {
        [first, ..] if first.is_whitespace() => at + 1,
        ['/', '/', ..] => find(text, at, '\n'),
        ['/', '*', ..] => block_comment_end(text, at),
        ['"', ..] => literal_end(text, at, '"'),
        ['\'', '\\', ..] => literal_end(text, at, '\''),
        ['\'', _, '\'', ..] => at + 3,
        ['\'', ..] => at + 1,
        ['r', '"' | '#', ..] if !is_inside_name => raw_string_end(text, at + 1)?,
        ['b' | 'c', 'r', '"' | '#', ..] if !is_inside_name => raw_string_end(text, at + 2)?,
        _ => return None,
    };
    Some(end.min(text.len()))
}

fn find(text: &[char], from: usize, wanted: char) -> usize {
    text[from..]
        .iter()
        .position(|character| *character == wanted)
        .map_or(text.len(), |offset| from + offset)
}

fn literal_end(text: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// `None` for a raw identifier: `r#type`.
fn raw_string_end(text: &[char], hashes_at: usize) -> Option<usize> {
    let hashes = text[hashes_at..]
        .iter()
        .take_while(|character| **character == '#')
        .count();
    let mut at = hashes_at + hashes;
    if text.get(at) != Some(&'"') {
        return None;
    }
    loop {
        at = find(text, at + 1, '"');
        let after = &text[text.len().min(at + 1)..];
        if at >= text.len()
            || after
                .iter()
                .take(hashes)
                .filter(|character| **character == '#')
                .count()
                == hashes
        {
            return Some(at + 1 + hashes);
        }
    }
}

fn block_comment_end(text: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start + 2, 1);
    while at < text.len() && depth > 0 {
        match &text[at..] {
            ['/', '*', ..] => (at, depth) = (at + 2, depth + 1),
            ['*', '/', ..] => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
    }
    at
}

/// Cuts `#[cfg(test)] mod … { … }` out; also how many lines these have.
fn without_tests(mut tokens: Vec<Token>) -> (Vec<Token>, usize) {
    let mut lines = 0;
    while let Some(range) = test_module(&tokens) {
        lines += tokens[range.end - 1].line + 1 - tokens[range.start].line;
        tokens.drain(range);
    }
    (tokens, lines)
}

fn test_module(tokens: &[Token]) -> Option<Range<usize>> {
    const ATTRIBUTE: [&str; 8] = ["#", "[", "cfg", "(", "test", ")", "]", "mod"];
    let is_start = |window: &[Token]| {
        window
            .iter()
            .zip(ATTRIBUTE)
            .all(|(token, expected)| token.text == expected)
            && window[9].text == "{"
    };
    let start = tokens.windows(10).position(is_start)?;
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(start + 9) {
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(start..at + 1);
        }
    }
    Some(start..tokens.len())
}
