//! Pages say what the code does: docs/configuration.md lists the variables that the code knows, docs/openapi.json is what
//! `forebay openapi` prints, numbers that restate constants are made from these, each bound of docs/security.md has a test that
//! knows it, and files that are named exist. docs/protocol.md is held to the table of answers by that table's own test, in
//! `src/http/reply/tests.rs`.

#[path = "docs/bounds.rs"]
mod bounds;
#[path = "docs/constants.rs"]
mod constants;
#[path = "docs/figures.rs"]
mod figures;
#[path = "docs/paths.rs"]
mod paths;
#[path = "docs/phrases.rs"]
mod phrases;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use forebay::internals::config::{Default, VARIABLES, Variable};

const BEGIN: &str = "<!-- Made from src/config/variables.rs. To rewrite it: UPDATE_DOCS=1 cargo test --test docs -->\n";
const END: &str = "<!-- end -->\n";

/// No settings: one that is wrong, to show what is said then; two that Kubernetes sets; those of tests and benches.
const TOLD_OF: [&str; 8] = [
    "FOREBAY_BATCH_LINGR",
    "FOREBAY_SERVICE_HOST",
    "FOREBAY_PORT",
    "FOREBAY_SPOOL_SEEDS",
    "FOREBAY_BENCH_BYTES",
    "FOREBAY_KILL_ROUNDS",
    "FOREBAY_OUTAGE_SECONDS",
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
fn the_contracts_of_doors_are_those_of_the_code() {
    for name in forebay::internals::http::DOOR_NAMES {
        let name_of_file = format!("docs/openapi-{name}.json");
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name_of_file);
        let current = forebay::internals::http::door_document(name).expect("it is a door");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::write(&file, current).expect("it can be written");
            continue;
        }
        let page = fs::read_to_string(&file).expect("it is there");
        assert!(
            page == current,
            "{name_of_file} is not current: run UPDATE_DOCS=1 cargo test --test docs"
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
            let head = "| variable, flag | default | meaning, example |\n|---|---|---|";
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
        "| `{name}`<br>`--{}` | {default} | {}<br>`{example}` |",
        variable.flag(),
        plain(meaning)
    );
    assert_eq!(
        row.matches('|').count(),
        4,
        "a bar would break the table: {row}"
    );
    row
}

/// Text that Markdown would take for emphasis.
fn plain(text: &str) -> String {
    text.replace('*', "\\*").replace('_', "\\_")
}
