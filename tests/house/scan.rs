//! Reads Rust sources as far as the order of the house needs it: their tokens without literals, and the paths that code
//! names. `proc_macro2` is the lexer, so that what is in comments and strings never counts.
//!
//! A `super::` inside an inline module that is no test is taken for the file's own.

use std::ops::Range;
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// One file under `src/`.
pub struct Source {
    /// Relative to `src/`.
    pub file: String,
    /// `sink/kafka/verify.rs` is `sink::kafka::verify`.
    pub module: Vec<String>,
    pub text: String,
    /// Tokens of the file without its test modules.
    pub tokens: Vec<Token>,
    /// Lines outside of test modules.
    pub lines: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// An identifier, `::`, or one character.
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
        let parts = file.trim_end_matches(".rs").split('/');
        let (tokens, test_lines) = without_tests(tokens(text));
        Self {
            file: file.to_owned(),
            module: parts.map(str::to_owned).collect(),
            lines: text.lines().count() - test_lines,
            text: text.to_owned(),
            tokens,
        }
    }

    /// Whether this is a file of its own for tests: `tests.rs` beside what it tests.
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
    let source = |file: &PathBuf| {
        let name = file.strip_prefix(folder).unwrap().to_str().unwrap();
        Source::new(name, &std::fs::read_to_string(file).unwrap())
    };
    files.iter().map(source).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
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
    match path.split_last() {
        Some((_, rest)) => rest.to_vec(),
        None => Vec::new(),
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// The tokens of a source, without comments and literals.
fn tokens(text: &str) -> Vec<Token> {
    let stream: TokenStream = text.parse().expect("a source that the compiler reads");
    let mut tokens = Vec::new();
    flatten(stream, &mut tokens);
    tokens
}

fn flatten(stream: TokenStream, into: &mut Vec<Token>) {
    for tree in stream {
        match tree {
            TokenTree::Ident(ident) => push(into, ident.to_string(), ident.span()),
            TokenTree::Punct(punct) => push_punct(into, &punct),
            TokenTree::Literal(_) => {}
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::None => ("", ""),
                };
                push(into, open.to_owned(), group.span_open());
                flatten(group.stream(), into);
                push(into, close.to_owned(), group.span_close());
            }
        }
    }
}

/// The second colon of `::` joins the first one.
fn push_punct(into: &mut Vec<Token>, punct: &proc_macro2::Punct) {
    match into.last_mut() {
        Some(last) if last.text == ":" && punct.as_char() == ':' => last.text.push(':'),
        _ => push(into, punct.as_char().to_string(), punct.span()),
    }
}

fn push(into: &mut Vec<Token>, text: String, span: proc_macro2::Span) {
    let line = span.start().line;
    into.push(Token { text, line });
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
        let texts = window.iter().map(|token| token.text.as_str());
        texts.take(ATTRIBUTE.len()).eq(ATTRIBUTE) && window[9].text == "{"
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
