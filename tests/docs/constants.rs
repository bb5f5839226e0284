//! The constants of the source, by name, as values: what a page says of one is made from it.
//!
//! `proc_macro2` reads the files; an expression is a literal, another constant, `Duration::from_…`, and `+ - * / << ..=` of these,
//! which all constants that a page speaks of are.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use forebay::internals::config::{Default, Variable};
use proc_macro2::{TokenStream, TokenTree};

/// Value of a constant or a default.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    Number(f64),
    /// A constant whose name says so, or a default with such a unit.
    Bytes(f64),
    Time(Duration),
    Range(f64, f64),
}

/// All constants of one file, and where it is.
struct File {
    module: Vec<String>,
    constants: Vec<(String, Vec<TokenTree>)>,
}

pub struct Constants(Vec<File>);

impl Constants {
    /// Reads the constants of all files below a folder of this repository, without tests.
    pub fn of(folder: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        let mut files = Vec::new();
        read(&root, &mut Vec::new(), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        Self(files)
    }

    /// The value of `room::NAME`, which must be one constant only, or of `FOREBAY_…`, which is a default.
    pub fn value(&self, path: &str) -> Result<Value, String> {
        if path.starts_with("FOREBAY_") {
            return default(path);
        }
        let mut room: Vec<&str> = path.split("::").collect();
        let name = room.pop().unwrap_or_default();
        let found: Vec<(&File, &[TokenTree])> = self.named(&room, name);
        match found[..] {
            [(file, tokens)] => self
                .evaluate(file, tokens)
                .map(|value| value.named(name))
                .ok_or_else(|| format!("{path} is too hard to compute")),
            [] => Err(format!("{path} is no constant")),
            _ => Err(format!(
                "{path} is several constants: name more of its room"
            )),
        }
    }

    /// Constants of that name in a room of that name, or else in one within it.
    fn named(&self, room: &[&str], name: &str) -> Vec<(&File, &[TokenTree])> {
        let within = |is_in: fn(&File, &[&str]) -> bool| {
            let files = self.0.iter().filter(move |file| is_in(file, room));
            files
                .flat_map(|file| file.find(name).map(move |tokens| (file, tokens)))
                .collect::<Vec<_>>()
        };
        let found = within(File::is);
        if found.is_empty() {
            within(File::is_in)
        } else {
            found
        }
    }

    /// A constant as an expression of this file names it: its own, else the one in the room that is nearest.
    fn seen_from(&self, file: &File, name: &str) -> Option<Value> {
        let distance = |other: &File| {
            let common = file.module.iter().zip(&other.module);
            Reverse(common.take_while(|(own, other)| own == other).count())
        };
        let mut known = self.named(&[], name);
        known.sort_by_key(|(other, _)| {
            (
                other.module != file.module,
                distance(other),
                other.module.len(),
            )
        });
        let (file, tokens) = known.first()?;
        self.evaluate(file, tokens)
    }

    fn evaluate(&self, file: &File, tokens: &[TokenTree]) -> Option<Value> {
        let tokens = without_casts(tokens);
        for operator in ["..=", "<<", "+", "-", "*", "/"] {
            if let Some((left, right)) = split(&tokens, operator) {
                let (left, right) = (self.evaluate(file, left)?, self.evaluate(file, right)?);
                return left.with(operator, right);
            }
        }
        match &tokens[..] {
            [TokenTree::Literal(literal)] => number(&literal.to_string()).map(Value::Number),
            [TokenTree::Group(group)] => self.evaluate(file, &trees(group.stream())),
            [.., TokenTree::Ident(made), TokenTree::Group(group)] => {
                let value = self.evaluate(file, &trees(group.stream()))?;
                value.made_by(&made.to_string())
            }
            [.., TokenTree::Ident(name)] => self.seen_from(file, &name.to_string()),
            _ => None,
        }
    }

    /// Every number that the function `test` of a file names: in its own tokens, and in what of its file it mentions, as far as
    /// that goes; and the names of constants among them.
    pub fn told_by(text: &str, test: &str) -> Option<(Vec<f64>, HashSet<String>)> {
        let items = items(&trees(text.parse().ok()?));
        let mut names = HashSet::from([test.to_owned()]);
        let mut numbers = Vec::new();
        let mut open = vec![test.to_owned()];
        items.iter().find(|(name, _)| name == test)?;
        while let Some(wanted) = open.pop() {
            for (_, tokens) in items.iter().filter(|(name, _)| *name == wanted) {
                let mut seen = Vec::new();
                told(tokens, &mut numbers, &mut seen);
                open.extend(seen.into_iter().filter(|name| names.insert(name.clone())));
            }
        }
        Some((numbers, names))
    }
}

impl File {
    fn find(&self, name: &str) -> impl Iterator<Item = &[TokenTree]> {
        let named = self
            .constants
            .iter()
            .filter(move |(known, _)| known == name);
        named.map(|(_, tokens)| &tokens[..])
    }

    fn is(&self, room: &[&str]) -> bool {
        self.module.len() >= room.len() && self.module[self.module.len() - room.len()..] == *room
    }

    fn is_in(&self, room: &[&str]) -> bool {
        self.module.windows(room.len()).any(|parts| parts == room)
    }
}

impl Value {
    fn named(self, name: &str) -> Self {
        match self {
            Self::Number(value) if name.contains("BYTES") => Self::Bytes(value),
            value => value,
        }
    }

    fn with(self, operator: &str, other: Self) -> Option<Self> {
        let (Self::Number(left), Self::Number(right)) = (self, other) else {
            return None;
        };
        Some(match operator {
            "..=" => return Some(Self::Range(left, right)),
            "<<" => Self::Number(left * right.exp2()),
            "+" => Self::Number(left + right),
            "-" => Self::Number(left - right),
            "*" => Self::Number(left * right),
            _ => Self::Number(left / right),
        })
    }

    fn made_by(self, constructor: &str) -> Option<Self> {
        let Self::Number(value) = self else {
            return None;
        };
        match constructor {
            "Self" => Some(self),
            "from_secs" => Some(Self::Time(Duration::from_secs_f64(value))),
            "from_millis" => Some(Self::Time(Duration::from_secs_f64(value / 1000.0))),
            _ => None,
        }
    }

    /// The plain numbers of a value, as a test may write them.
    pub fn numbers(self) -> Vec<f64> {
        match self {
            Self::Number(value) | Self::Bytes(value) => vec![value],
            Self::Time(time) => vec![time.as_secs_f64(), time.as_secs_f64() * 1000.0],
            Self::Range(low, high) => vec![low, high],
        }
    }

    /// As a page writes it: `how` is what stands behind the colon.
    pub fn write(self, how: &str) -> Result<String, String> {
        let text = match (self, how) {
            (Self::Range(low, _), "low") => grouped(low),
            (Self::Range(_, high), "high") => grouped(high),
            (Self::Number(value) | Self::Bytes(value), "plain") => format!("{value}"),
            (Self::Number(value), "") => grouped(value),
            (Self::Number(value), "word") => word(value)?,
            (Self::Number(value), "bytes") | (Self::Bytes(value), "") => bytes(value),
            (Self::Bytes(value), "number") => grouped(value),
            (Self::Number(value), "th") => format!("{value}th"),
            (Self::Time(time), "") => seconds(time),
            (Self::Time(time), "th") => format!("{}th", time.as_secs()),
            (Self::Time(time), "number") => format!("{}", time.as_secs_f64()),
            (Self::Time(time), unit) => {
                let long = [
                    ("min", 60),
                    ("minutes", 60),
                    ("h", 3600),
                    ("hours", 3600),
                    ("days", 86400),
                ];
                let (_, each) = long.iter().find(|(name, _)| *name == unit).ok_or(how)?;
                format!("{} {unit}", time.as_secs() / each)
            }
            _ => return Err(format!("{self:?} cannot be written as {how:?}")),
        };
        Ok(text)
    }
}

fn read(folder: &Path, module: &mut Vec<String>, files: &mut Vec<File>) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        module.push(name.clone());
        if path.is_dir() {
            read(&path, module, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "tests" {
            let text = fs::read_to_string(&path).expect("a source can be read");
            let tokens = trees(text.parse().expect("a source is Rust"));
            files.push(File {
                module: module.clone(),
                constants: constants(&tokens),
            });
        }
        module.pop();
    }
}

fn trees(stream: TokenStream) -> Vec<TokenTree> {
    stream.into_iter().collect()
}

/// `const NAME: T = expression;` at any depth, but in modules of tests.
fn constants(tokens: &[TokenTree]) -> Vec<(String, Vec<TokenTree>)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at..] {
            [TokenTree::Ident(word), TokenTree::Ident(name), ..]
                if word == "mod" && name == "tests" =>
            {
                at += 2
            }
            [TokenTree::Ident(word), TokenTree::Ident(name), rest @ ..] if word == "const" => {
                let end = rest
                    .iter()
                    .position(|token| is(token, ';'))
                    .unwrap_or(rest.len());
                if let Some(equals) = rest[..end].iter().position(|token| is(token, '=')) {
                    found.push((name.to_string(), rest[equals + 1..end].to_vec()));
                }
                at += 1 + end;
            }
            [TokenTree::Group(group), ..] => found.extend(constants(&trees(group.stream()))),
            _ => {}
        }
        at += 1;
    }
    found
}

/// Functions and constants at any depth, with what stands between their name and their end.
fn items(tokens: &[TokenTree]) -> Vec<(String, Vec<TokenTree>)> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let name = tokens.get(at + 1).filter(|_| {
            ["fn", "const", "static"]
                .iter()
                .any(|word| is_word(token, word))
        });
        if let Some(TokenTree::Ident(name)) = name {
            let ends = |token: &&TokenTree| {
                is(token, ';')
                    || matches!(token, TokenTree::Group(group) if group.delimiter() == proc_macro2::Delimiter::Brace)
            };
            let rest = &tokens[at + 2..];
            let end = rest
                .iter()
                .position(|token| ends(&token))
                .map_or(rest.len(), |end| end + 1);
            found.push((name.to_string(), rest[..end].to_vec()));
        }
        if let TokenTree::Group(group) = token {
            found.extend(items(&trees(group.stream())));
        }
    }
    found
}

/// Numbers, products and sums of two, and names.
fn told(tokens: &[TokenTree], numbers: &mut Vec<f64>, names: &mut Vec<String>) {
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Literal(literal) => {
                let Some(value) = number(&literal.to_string()) else {
                    continue;
                };
                numbers.push(value);
                let pair = tokens[at + 1..].split_first().and_then(|(operator, rest)| {
                    let rest = rest.iter().skip_while(|token| is(token, '<'));
                    Some((operator, number(&rest.peekable().peek()?.to_string())?))
                });
                if let Some((operator, other)) = pair {
                    numbers.extend(match operator.to_string().as_str() {
                        "*" => Some(value * other),
                        "<" => Some(value * other.exp2()),
                        "+" => Some(value + other),
                        _ => None,
                    });
                }
            }
            TokenTree::Ident(name) => names.push(name.to_string()),
            TokenTree::Group(group) => told(&trees(group.stream()), numbers, names),
            TokenTree::Punct(_) => {}
        }
    }
}

fn is(token: &TokenTree, letter: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == letter)
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident == word)
}

/// The expression without `as T`.
fn without_casts(tokens: &[TokenTree]) -> Vec<TokenTree> {
    let mut left = tokens.to_vec();
    while let Some(at) = left.iter().position(|token| is_word(token, "as")) {
        left.drain(at..(at + 2).min(left.len()));
    }
    left
}

/// Both sides of the last such operator, which is the one to compute last.
fn split<'a>(
    tokens: &'a [TokenTree],
    operator: &str,
) -> Option<(&'a [TokenTree], &'a [TokenTree])> {
    let is_here = |at: &usize| {
        let mut letters = operator.chars().enumerate();
        letters.all(|(place, letter)| {
            tokens
                .get(at + place)
                .is_some_and(|token| is(token, letter))
        })
    };
    let at = (1..tokens.len()).rev().find(is_here)?;
    Some((&tokens[..at], &tokens[at + operator.len()..]))
}

fn number(literal: &str) -> Option<f64> {
    let digits = literal.replace('_', "");
    let kinds = [
        "u8", "u16", "u32", "u64", "u128", "usize", "i32", "i64", "f64",
    ];
    let bare = kinds
        .iter()
        .find_map(|kind| digits.strip_suffix(kind))
        .unwrap_or(&digits);
    match bare.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(|value| value as f64),
        None => bare.parse().ok(),
    }
}

fn default(name: &str) -> Result<Value, String> {
    let variable = Variable::find(name).ok_or_else(|| format!("{name} is no variable"))?;
    let Default::Value(text) = variable.default else {
        return Err(format!("{name} has no fixed default"));
    };
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let value: f64 = digits
        .parse()
        .map_err(|_| format!("{name}: {text} is no number"))?;
    Ok(match &text[digits.len()..] {
        "" => Value::Number(value),
        "KiB" => Value::Bytes(value * 1024.0),
        "MiB" => Value::Bytes(value * 1024.0 * 1024.0),
        "GiB" => Value::Bytes(value * 1024.0 * 1024.0 * 1024.0),
        "ms" => Value::Time(Duration::from_secs_f64(value / 1000.0)),
        "s" => Value::Time(Duration::from_secs_f64(value)),
        "m" => Value::Time(Duration::from_secs_f64(value * 60.0)),
        "h" => Value::Time(Duration::from_secs_f64(value * 3600.0)),
        "d" => Value::Time(Duration::from_secs_f64(value * 86400.0)),
        unit => return Err(format!("{name}: {unit} is no unit")),
    })
}

/// 16384 as 16,384.
fn grouped(value: f64) -> String {
    let digits = format!("{value}");
    let (whole, rest) = digits
        .split_once('.')
        .map_or((&digits[..], ""), |(whole, rest)| (whole, rest));
    let mut text = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if rest.is_empty() {
        text
    } else {
        format!("{text}.{rest}")
    }
}

fn bytes(value: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fits = |(_, bits): &&(&str, i32)| (value / 2_f64.powi(*bits)).fract() == 0.0 && value > 0.0;
    match units.iter().find(fits) {
        Some((unit, bits)) => format!("{} {unit}", value / 2_f64.powi(*bits)),
        None => format!("{} bytes", grouped(value)),
    }
}

fn seconds(time: Duration) -> String {
    if time.subsec_millis() == 0 {
        format!("{} s", time.as_secs())
    } else {
        format!("{} ms", time.as_millis())
    }
}

fn word(value: f64) -> Result<String, String> {
    let words = [
        "no", "one", "two", "three", "four", "five", "six", "seven", "eight",
    ];
    let word = words.get(value as usize).filter(|_| value.fract() == 0.0);
    word.map(|word| (*word).to_owned())
        .ok_or_else(|| format!("no word for {value}"))
}
