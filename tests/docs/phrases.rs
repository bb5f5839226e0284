//! Phrases of pages with numbers in them: found, held against the constants, and written anew.

use std::fs;
use std::ops::Range;
use std::path::Path;

use crate::constants::Constants;
use crate::figures::{FIGURES, OTHERS};

/// Letters that a number and its unit have at most.
const HOLE_LETTERS_MAX: usize = 16;

/// Units behind a number that make it a figure.
const UNITS: [&str; 25] = [
    "KiB",
    "MiB",
    "GiB",
    "kB",
    "MB",
    "GB",
    "KB",
    "ms",
    "s",
    "min",
    "minutes",
    "h",
    "hours",
    "days",
    "bytes",
    "byte",
    "fields",
    "characters",
    "frames",
    "streams",
    "records",
    "lines",
    "connections",
    "sessions",
    "ranges",
];

/// A phrase of a page: text, and between its pieces a number.
pub struct Phrase {
    /// Constant behind each number.
    pub constants: Vec<String>,
    pieces: Vec<String>,
    values: Vec<String>,
}

/// Place of a phrase in a page: the whole, and the text in the place of each number.
struct Place {
    whole: Range<usize>,
    holes: Vec<Range<usize>>,
}

#[test]
fn numbers_of_pages_are_those_of_the_constants() {
    let constants = Constants::of("src");
    let mut faults = Vec::new();
    for (name, phrases) in FIGURES {
        let page = read(name);
        let current = renewed(&page, phrases, &constants, name, &mut faults);
        if current == page {
            continue;
        }
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(path(name), current).expect("the page can be written");
        } else {
            faults.push(format!(
                "{name} is not current: run UPDATE_DOCS=1 cargo test --test docs"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every number in a page is a constant's, or said not to be.
#[test]
fn every_number_with_a_unit_is_a_constants_or_excused() {
    let constants = Constants::of("src");
    let mut faults = Vec::new();
    for (name, phrases) in FIGURES {
        let page = read(name);
        let excused = OTHERS
            .iter()
            .filter(|(page, _)| page == name)
            .flat_map(|(_, others)| *others);
        let mut places: Vec<Range<usize>> = Vec::new();
        for phrase in phrases.iter().chain(excused) {
            match span(&page, phrase, &constants) {
                Ok(span) => places.push(span),
                Err(fault) => faults.push(format!("{name}: {fault}")),
            }
        }
        for number in numbers(&page) {
            if !places
                .iter()
                .any(|place| place.start <= number.start && number.end <= place.end)
            {
                let line = page[..number.start].lines().count();
                faults.push(format!(
                    "{name}:{line}: {} is no phrase of tests/docs/figures.rs",
                    &page[number]
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Finds the phrase's place; one that ends with an ellipsis reaches to the end of its paragraph.
fn span(page: &str, phrase: &str, constants: &Constants) -> Result<Range<usize>, String> {
    let place = Phrase::parse(phrase.trim_end_matches('…'), constants)?
        .find(page)?
        .whole;
    if !phrase.ends_with('…') {
        return Ok(place);
    }
    let end = page[place.start..].find("\n\n");
    Ok(place.start..end.map_or(page.len(), |end| place.start + end))
}

/// The page with the values of today.
fn renewed(
    page: &str,
    phrases: &[&str],
    constants: &Constants,
    name: &str,
    faults: &mut Vec<String>,
) -> String {
    let mut text = page.to_owned();
    for phrase in phrases {
        let found = Phrase::parse(phrase, constants)
            .and_then(|phrase| Ok((phrase.find(&text)?, phrase.values)));
        let (place, values) = match found {
            Ok(found) => found,
            Err(fault) => {
                faults.push(format!("{name}: {fault}"));
                continue;
            }
        };
        for (hole, value) in place.holes.into_iter().zip(values).rev() {
            if words(&text[hole.clone()]) != words(&value) {
                text.replace_range(hole, &value);
            }
        }
    }
    text
}

impl Phrase {
    pub fn parse(text: &str, constants: &Constants) -> Result<Self, String> {
        let mut constants_of = Vec::new();
        let mut pieces = Vec::new();
        let mut values = Vec::new();
        let mut rest = text;
        while let Some((piece, behind)) = rest.split_once('{') {
            let (hole, behind) = behind.split_once('}').ok_or("a brace is open")?;
            let (constant, how) = match hole.rsplit_once(':') {
                Some((constant, how)) if !constant.ends_with(':') => (constant, how),
                _ => (hole, ""),
            };
            values.push(constants.value(constant)?.write(how)?);
            constants_of.push(constant.to_owned());
            pieces.push(piece.to_owned());
            rest = behind;
        }
        if rest.is_empty() {
            return Err(format!(
                "{text:?} ends with a number: where that ends is not seen"
            ));
        }
        pieces.push(rest.to_owned());
        Ok(Self {
            constants: constants_of,
            pieces,
            values,
        })
    }

    /// Blanks of the phrase are any blanks of the page.
    fn find(&self, page: &str) -> Result<Place, String> {
        let starts = page.char_indices().map(|(at, _)| at);
        let mut places = starts.filter_map(|at| self.find_at(page, at));
        let place = places
            .next()
            .ok_or_else(|| format!("{:?} is not there", self.text()))?;
        match places.next() {
            Some(_) => Err(format!("{:?} is there twice", self.text())),
            None => Ok(place),
        }
    }

    fn find_at(&self, page: &str, start: usize) -> Option<Place> {
        let is_inside =
            page[..start].ends_with(|letter: char| letter.is_ascii_alphanumeric() || letter == ',');
        if self.pieces[0].is_empty() && is_inside {
            return None;
        }
        let mut at = follow(page, start, &self.pieces[0])?;
        let mut holes = Vec::new();
        for piece in &self.pieces[1..] {
            let (hole, end) = hole(page, at, piece)?;
            holes.push(hole);
            at = end;
        }
        Some(Place {
            whole: start..at,
            holes,
        })
    }

    /// As it stands in the page.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (at, piece) in self.pieces.iter().enumerate() {
            text += piece;
            text += self.values.get(at).map_or("", String::as_str);
        }
        text
    }
}

/// A number from here on, behind which the piece follows, and where that ends.
fn hole(page: &str, at: usize, piece: &str) -> Option<(Range<usize>, usize)> {
    let letters = page[at..].char_indices().skip(1).take(HOLE_LETTERS_MAX);
    for (length, _) in letters {
        let end = at + length;
        if let Some(behind) = follow(page, end, piece).filter(|_| is_value(&page[at..end])) {
            return Some((at..end, behind));
        }
    }
    None
}

/// `16,384`, `10th`, `64 KiB`, `five`.
fn is_value(text: &str) -> bool {
    let mut parts = text.split([' ', '\n']).filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default().trim_end_matches("th");
    let is_number = first.starts_with(|letter: char| letter.is_ascii_digit())
        && first
            .chars()
            .all(|letter| letter.is_ascii_digit() || ",.".contains(letter));
    let is_word = |part: &str| part.chars().all(|letter| letter.is_ascii_alphabetic());
    let unit = parts.next();
    (is_number && unit.is_none_or(is_word) || is_word(first) && unit.is_none())
        && parts.next().is_none()
        && !text.ends_with([' ', '\n'])
}

/// Finds the end of the piece that stands here.
fn follow(page: &str, start: usize, piece: &str) -> Option<usize> {
    let mut at = start;
    for letter in piece.chars() {
        let rest = &page[at..];
        if letter == ' ' {
            let blanks = rest.len() - rest.trim_start_matches([' ', '\n']).len();
            at += (blanks > 0).then_some(blanks)?;
        } else {
            at += rest.starts_with(letter).then_some(letter.len_utf8())?;
        }
    }
    Some(at)
}

/// Digits with one of the units behind them.
fn numbers(page: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(digit) = page[at..].find(|letter: char| letter.is_ascii_digit()) {
        let start = at + digit;
        let is_part = |letter: char| letter.is_ascii_digit() || letter == ',' || letter == '.';
        let digits = page[start..]
            .find(|letter| !is_part(letter))
            .unwrap_or(page.len() - start);
        let end = start
            + page[start..start + digits]
                .trim_end_matches([',', '.'])
                .len();
        let behind = page[end..].trim_start_matches([' ', '\n']);
        let unit = behind
            .split(|letter: char| !letter.is_ascii_alphabetic())
            .next()
            .unwrap_or_default();
        let is_alone = !page[..start].ends_with(|letter: char| {
            letter.is_ascii_alphanumeric() || letter == '_' || letter == '-'
        });
        let is_apart = page[end..].starts_with([' ', '\n']);
        if is_alone && is_apart && UNITS.contains(&unit) {
            found.push(start..page.len() - behind.len() + unit.len());
        }
        at = end;
    }
    found
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_number_that_is_another_is_found_and_written() {
    let constants = Constants::of("src");
    let (mut faults, page) = (Vec::new(), "All of it must arrive within 11\ns, or not.\n");
    let phrases = ["must arrive within {FOREBAY_HEADER_TIMEOUT}, or"];
    let new = renewed(page, &phrases, &constants, "page", &mut faults);
    assert_eq!(
        (new.as_str(), faults.len()),
        ("All of it must arrive within 10 s, or not.\n", 0)
    );
    renewed(
        page,
        &["within {http::NO_SUCH}", "elsewhere"],
        &constants,
        "page",
        &mut faults,
    );
    assert_eq!(
        faults,
        [
            "page: http::NO_SUCH is no constant",
            "page: \"elsewhere\" is not there"
        ]
    );
    assert_eq!(
        numbers("16 KiB, h2 64 fields, x-3 s, 5\ns and 7 dwarfs").len(),
        3
    );
}
