//! docs/configuration.md lists the variables that the code knows, docs/openapi.json is what `forebay openapi` prints. docs/protocol.md is held to the table of answers by
//! that table's own test, in `src/http/reply/tests.rs`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use forebay::internals::config::{Default, VARIABLES, Variable};

const BEGIN: &str = "<!-- Made from src/config/variables.rs. To rewrite it: UPDATE_DOCS=1 cargo test --test docs -->\n";
const END: &str = "<!-- end -->\n";

/// No settings: one that is wrong, to show what is said then; two that Kubernetes sets; those of tests and benches.
const TOLD_OF: [&str; 7] = [
    "FOREBAY_BATCH_LINGR",
    "FOREBAY_SERVICE_HOST",
    "FOREBAY_PORT",
    "FOREBAY_SPOOL_SEEDS",
    "FOREBAY_BENCH_BYTES",
    "FOREBAY_KILL_ROUNDS",
    "FOREBAY_BINARY",
];

#[test]
fn the_configuration_page_lists_the_variables_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let page = fs::read_to_string(&file).expect("docs/configuration.md is there");
    let (before, rest) = page
        .split_once(BEGIN)
        .expect("it says where the variables begin");
    let (_, after) = rest.split_once(END).expect("it says where they end");
    let current = format!("{before}{BEGIN}{}{END}{after}", variables());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, current).expect("docs/configuration.md can be written");
    } else {
        assert!(
            page == current,
            "docs/configuration.md is not current: run UPDATE_DOCS=1 cargo test --test docs"
        );
    }
}

#[test]
fn the_contract_is_the_one_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let current = forebay::internals::http::document();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&file, current).expect("docs/openapi.json can be written");
    } else {
        let page = fs::read_to_string(&file).expect("docs/openapi.json is there");
        assert!(
            page == current,
            "docs/openapi.json is not current: run UPDATE_DOCS=1 cargo test --test docs"
        );
    }
}

#[test]
fn no_page_speaks_of_a_variable_that_is_not_there() {
    for page in pages() {
        let text = fs::read_to_string(&page).expect("the page can be read");
        for name in text.split(|letter: char| {
            !letter.is_ascii_uppercase() && !letter.is_ascii_digit() && letter != '_'
        }) {
            let is_prefix = VARIABLES
                .iter()
                .any(|variable| name.ends_with('_') && variable.name.starts_with(name));
            let is_known =
                is_prefix || name.starts_with("FOREBAY_KAFKA_") || Variable::find(name).is_some();
            let is_told_of = TOLD_OF.contains(&name);
            assert!(
                !name.starts_with("FOREBAY_") || is_known || is_told_of,
                "{}: {name}",
                page.display()
            );
        }
    }
}

/// README.md and all of docs/.
fn pages() -> impl Iterator<Item = PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs"))
        .expect("docs/ is there")
        .map(|entry| entry.expect("a file").path());
    docs.filter(|file| file.extension().is_some_and(|ending| ending == "md"))
        .chain([root.join("README.md")])
}

/// A table for each group, in the order of `--help`.
fn variables() -> String {
    let mut text = String::new();
    let mut group = "";
    for variable in VARIABLES {
        if variable.group != group {
            group = variable.group;
            let head = "| variable, flag | default | meaning | example |\n|---|---|---|---|";
            writeln!(text, "\n### {group}\n\n{head}").expect("text grows");
        }
        writeln!(text, "{}", row(variable)).expect("text grows");
    }
    text + "\n"
}

fn row(variable: &Variable) -> String {
    let default = match variable.default {
        Default::Value(value) => format!("`{value}`"),
        Default::Unset(meaning) => meaning.to_owned(),
        Default::Required => "**required**".to_owned(),
    };
    let Variable {
        name,
        meaning,
        example,
        ..
    } = variable;
    let row = format!(
        "| `{name}`<br>`--{}` | {default} | {} | `{example}` |",
        variable.flag(),
        plain(meaning)
    );
    assert_eq!(
        row.matches('|').count(),
        5,
        "a bar would break the table: {row}"
    );
    row
}

/// Text that Markdown would take for emphasis.
fn plain(text: &str) -> String {
    text.replace('*', "\\*").replace('_', "\\_")
}

/// Each bound of docs/security.md names what proves it: a file, a file of tests/e2e, or a test in the one named before.
#[test]
fn every_bound_has_a_test() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md"))
        .expect("the page");
    let rows = page
        .lines()
        .skip_while(|line| !line.starts_with("| resource |"))
        .skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 30, "{rows:?}");
    let faults: Vec<String> = rows
        .into_iter()
        .filter_map(|row| fault_of_bound(row).map(|fault| fault + row))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Which of the names in the row's last cell leads nowhere.
fn fault_of_bound(row: &str) -> Option<String> {
    let proof = row
        .trim_end_matches(" |")
        .rsplit("| ")
        .next()
        .unwrap_or_default();
    let mut text = None;
    for name in proof.split('`').skip(1).step_by(2) {
        let (file, test) = match name.split_once("::") {
            Some((file, test)) => (file, Some(test)),
            None => (name, None),
        };
        if let Some(found) = read_proof(file) {
            text = Some(found);
        }
        let test = test.or_else(|| read_proof(file).is_none().then_some(name));
        let has = |text: &String| test.is_none_or(|test| text.contains(&format!("fn {test}(")));
        if !text.as_ref().is_some_and(has) {
            return Some(format!("{name} is not there: "));
        }
    }
    text.is_none().then(|| "nothing proves it: ".to_owned())
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
            "`tests/docs.rs`: `every_bound_has_a_test`, `a_bound_without_a_test_is_found`",
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
        let found = fault_of_bound(&format!("| x | y | z | {proof} |"));
        assert_eq!(found.is_some(), fault.is_some(), "{proof}: {found:?}");
        assert!(
            fault.is_none_or(|fault| found.is_some_and(|found| found.contains(fault))),
            "{proof}"
        );
    }
}
