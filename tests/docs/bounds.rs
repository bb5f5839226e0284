//! Each bound of docs/security.md names what proves it, and what proves a fixed one knows its value: one of the row's tests names
//! each of the row's constants, or its number. So a bound that is moved fails its test, or the test was told of it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::constants::Constants;
use crate::figures::FIGURES;
use crate::phrases::{Phrase, read};

/// Proofs of a row: each test with the text of its file; `None` for a file as a whole.
type Proofs = Vec<(String, Option<String>)>;

/// Constants that no test of their row knows, and why.
const UNPROVED: &[(&str, &str)] = &[
    (
        "chain::SIGNATURES_MAX",
        "a decoy that is not looked at any more changes no answer, only what it costs",
    ),
    (
        "stream::PARTIAL_BYTES_MAX",
        "what follows a hello is encrypted: no client that the tests have cuts it into pieces",
    ),
    (
        "accept::quic::RESET_INTERVAL",
        "quinn drops what comes sooner, and counts it nowhere",
    ),
    (
        "verifier::AUTHORITY_NAMES_BYTES_MAX",
        "a bundle has names far beyond it, or none: a client cannot tell where it lies",
    ),
    (
        "devices::RULES_MAX",
        "ten million lines take longer than a test may: a million are read in one",
    ),
    (
        "h2::SEND_BUFFER_BYTES",
        "answers are shorter: it bounds what h2 would take, which nothing here fills",
    ),
    (
        "admin::CONNECTION_TIMEOUT",
        "time outside of a worker is not the tests' own, and none waits for ten seconds",
    ),
    ("admin::HEAD_TIMEOUT", "likewise, five"),
    (
        "journal::QUEUE_MAX",
        "the channel keeps it; that a full one drops is asked of one with a place for one line",
    ),
];

/// Numbers in bounds that are no constants of the source: statuses, specifications, and bounds of other people's code.
const GIVEN: &[&str] = &[
    "over QUIC 64 KiB (rustls)",
    "16 bytes each, a binary search",
    "or 400 and the end",
    "RFC 9113 section 8: 400,",
    "RFC 9114 sections 4.1.2 to 4.3",
    "a 5xx",
    "429s that",
    "fixed: 503 `device-overloaded`",
    "heads of 16 KiB beside",
    "holds 64 KiB of datagrams",
];

#[test]
fn every_bound_has_a_test() {
    let page = read("docs/security.md");
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| resource |"))
        .skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 30, "{rows:?}");
    let constants = Constants::of("src");
    let mut faults = Vec::new();
    let mut excused: HashSet<&str> = UNPROVED.iter().map(|(path, _)| *path).collect();
    let mut proved = 0;
    for row in &rows {
        let left = numbers_left(row, &constants);
        faults.extend(left.map(|number| format!("{number} is no constant's: {row}")));
        match proofs(row) {
            Ok(proofs) => {
                for path in constants_of(row, &constants) {
                    proved += 1;
                    excused.remove(&*path);
                    faults.extend(
                        fault_of_proof(&path, &proofs, &constants)
                            .map(|fault| format!("{fault}: {row}")),
                    );
                }
            }
            Err(fault) => faults.push(format!("{fault}: {row}")),
        }
    }
    assert!(proved > 30, "{proved} constants in the table");
    assert!(excused.is_empty(), "in no row: {excused:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Numbers of a row's bound and default that no phrase has, and that no specification or library gives.
fn numbers_left(row: &str, constants: &Constants) -> impl Iterator<Item = String> {
    let (_, phrases) = FIGURES[0];
    let mut text = row
        .rsplit_once("| ")
        .map_or(row, |(text, _)| text)
        .to_owned();
    for phrase in phrases {
        let phrase = Phrase::parse(phrase, constants).unwrap_or_else(|fault| panic!("{fault}"));
        text = text.replace(&phrase.text(), "| |");
    }
    let cells: Vec<&str> = text.split(" | ").skip(1).take(2).collect();
    let text = GIVEN
        .iter()
        .fold(cells.join(" "), |text, given| text.replace(given, ""));
    let numbers = text.split(|letter: char| letter.is_whitespace() || ";:()/".contains(letter));
    let numbers = numbers.filter(|word| word.starts_with(|letter: char| letter.is_ascii_digit()));
    numbers.map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// Constants of the source in the phrases that this row has.
fn constants_of(row: &str, constants: &Constants) -> Vec<String> {
    let (_, phrases) = FIGURES[0];
    let mut found = Vec::new();
    for text in phrases {
        let phrase = Phrase::parse(text, constants).unwrap_or_else(|fault| panic!("{fault}"));
        if row.contains(&phrase.text()) {
            found.extend(phrase.constants);
        }
    }
    found.retain(|name| !name.starts_with("FOREBAY_"));
    found
}

/// Why none of the tests proves the constant.
fn fault_of_proof(path: &str, proofs: &Proofs, constants: &Constants) -> Option<String> {
    let value = match constants.value(path) {
        Ok(value) => value.numbers(),
        Err(fault) => return Some(fault),
    };
    let name = path.rsplit("::").next().unwrap_or(path);
    let knows = |(text, test): &(String, Option<String>)| {
        let test = test.as_ref()?;
        let (numbers, names) = Constants::told_by(text, test)?;
        // One or two are everywhere: only the constant's name tells of them.
        let told = |number: &f64| {
            let is_near = |value: &f64| (number - value).abs() <= 1.0 && *value > 2.0;
            value.iter().any(is_near)
        };
        // A test of the real program has a constant of its own, whose number is what counts.
        let is_own = text.contains(&format!("const {name}:")) && !text.contains("#[cfg(test)]");
        Some(names.contains(name) && !is_own || numbers.iter().any(told))
    };
    let is_proved = proofs.iter().any(|proof| knows(proof) == Some(true));
    let is_excused = UNPROVED.iter().any(|(known, _)| *known == path);
    (!is_proved && !is_excused).then(|| format!("no test of it knows {path}, which is {value:?}"))
}

/// Reads the proofs that the row's last cell names; an error names the one that leads nowhere.
fn proofs(row: &str) -> Result<Proofs, String> {
    let cell = row
        .trim_end_matches(" |")
        .rsplit("| ")
        .next()
        .unwrap_or_default();
    let mut found = Proofs::new();
    let mut text: Option<String> = None;
    for name in cell.split('`').skip(1).step_by(2) {
        let (file, test) = match name.split_once("::") {
            Some((file, test)) => (file, Some(test)),
            None => (name, None),
        };
        let read = read_proof(file);
        let test = test.or_else(|| read.is_none().then_some(name));
        text = read.or(text);
        let has = |text: &&String| test.is_none_or(|test| text.contains(&format!("fn {test}(")));
        let text = text
            .as_ref()
            .filter(has)
            .ok_or_else(|| format!("{name} is not there"))?;
        found.push((text.clone(), test.map(str::to_owned)));
    }
    if found.is_empty() {
        return Err("nothing proves it".to_owned());
    }
    Ok(found)
}

/// A path from the root of the repository, or a file of tests/e2e by its name.
fn read_proof(name: &str) -> Option<String> {
    let file = if name.contains('/') {
        name.to_owned()
    } else {
        format!("tests/e2e/{name}.rs")
    };
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).ok()
}

#[test]
fn a_bound_without_a_test_is_found() {
    for (proof, fault) in [
        ("`limits`", None),
        (
            "`limits::a_device_has_one_bucket_on_all_protocols_and_it_is_nobody_elses`",
            None,
        ),
        (
            "`tests/docs/bounds.rs`: `every_bound_has_a_test`, `a_bound_without_a_test_is_found`",
            None,
        ),
        (
            "`attacks_h2::rapid_reset_is_ended`, `::made_you_reset_is_ended`",
            None,
        ),
        ("quinn", Some("nothing proves it")),
        ("`limits::no_such_test`", Some("no_such_test")),
        ("`no_such_file`", Some("no_such_file")),
        (
            "`limits`, `::rapid_reset_is_ended`",
            Some("rapid_reset_is_ended"),
        ),
    ] {
        let found = proofs(&format!("| x | y | z | {proof} |")).err();
        assert_eq!(found.is_some(), fault.is_some(), "{proof}: {found:?}");
        assert!(
            fault.is_none_or(|fault| found.is_some_and(|found| found.contains(fault))),
            "{proof}"
        );
    }
}

#[test]
fn a_test_that_does_not_know_its_bound_is_found() {
    let text = "const MANY: usize = 3 * LESS; const LESS: usize = 64 << 10; fn other() { 200; }
                #[test] fn knows() { send(MANY); ask(h3::UNANSWERED_MAX); f(64 * 1024) } #[test] fn does_not() { send(1) }";
    let (numbers, names) = Constants::told_by(text, "knows").expect("it is there");
    assert!(
        numbers.contains(&65536.0) && !numbers.contains(&200.0) && names.contains("UNANSWERED_MAX")
    );
    let (numbers, names) = Constants::told_by(text, "does_not").expect("it is there");
    assert_eq!(
        (numbers, names),
        (
            vec![1.0],
            HashSet::from(["does_not".to_owned(), "send".to_owned()])
        )
    );
    assert!(Constants::told_by(text, "nobody").is_none());
}
