//! The table of refusals in docs/protocol.md, for the firmware's authors, against the one here.

use crate::telemetry::metrics::Metrics;

use super::every::{empty_bucket, every_refusal};
use super::*;

const PAGE: &str = include_str!("../../../docs/protocol.md");

/// Status, code, `Retry-After`, connection: as a row of the page says it.
fn row_of(refusal: &Refusal) -> [String; 4] {
    let problem = problem(refusal);
    let response = refused(refusal, &problem);
    let retry_after = if response.headers().contains_key(RETRY_AFTER) {
        "yes"
    } else {
        ""
    };
    let connection = match (ends_connection(refusal), leaves_h1_unframed(refusal)) {
        (true, _) => "closes",
        (false, true) => "h1 closes",
        (false, false) => "",
    };
    [
        problem.status.as_str(),
        &format!("`{}`", problem.code),
        retry_after,
        connection,
    ]
    .map(Into::into)
}

/// Rows of the page's table of answers that have a code.
fn rows_of_page() -> Vec<[String; 4]> {
    let cells = |line: &str| {
        line.split('|')
            .map(|cell| cell.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let rows = PAGE
        .lines()
        .map(cells)
        .filter(|cells| cells.len() == 8 && cells[2].starts_with('`'));
    rows.filter(|cells| cells[1].parse::<u16>().is_ok())
        .map(|cells| [1, 2, 5, 6].map(|column| cells[column].clone()))
        .collect()
}

#[test]
fn the_page_has_every_answer_and_no_other() {
    let mut told: Vec<_> = every_refusal().map(|refusal| row_of(&refusal)).collect();
    let mut page = rows_of_page();
    told.sort();
    told.dedup();
    page.sort();
    assert_eq!(
        told, page,
        "docs/protocol.md does not say what the code answers"
    );
}

#[test]
fn the_pages_examples_are_what_is_sent() {
    let empty = problem(&Refusal::EmptyBody).to_json();
    let examples = PAGE
        .split("```json\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next());
    let mut examples =
        examples.filter_map(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    assert!(examples.any(|example| example == empty), "{empty}");
    let refusal = Refusal::RateLimited(empty_bucket());
    let limited = refused(&refusal, &problem(&refusal));
    for name in [
        "content-type",
        "retry-after",
        "ratelimit-policy",
        "ratelimit",
    ] {
        let line = format!("\n{name}: {}\n", limited.headers()[name].to_str().unwrap());
        assert!(PAGE.contains(&line), "{line}");
    }
}

#[test]
fn every_problem_names_itself_by_its_code() {
    for refusal in every_refusal() {
        let told: serde_json::Value =
            serde_json::from_slice(problem(&refusal).to_json().to_string().as_bytes()).unwrap();
        let problem = problem(&refusal);
        assert_eq!(
            told["type"],
            format!("urn:forebay:problem:{}", problem.code)
        );
        assert_eq!(
            (told["status"].as_u64(), told["code"].as_str()),
            (Some(problem.status.as_u16().into()), Some(problem.code))
        );
        assert!(problem.status.is_client_error() || problem.status.is_server_error());
        assert!(
            problem.status != StatusCode::INTERNAL_SERVER_ERROR,
            "{} has no status",
            problem.code
        );
    }
}

/// A refusal whose code has no counter would be one that no alert can name.
#[test]
fn every_code_has_a_counter() {
    let metrics = Metrics::new(1, &[], Vec::new());
    for refusal in every_refusal() {
        metrics.worker(0).refusal(problem(&refusal).code);
    }
    let text = metrics.render();
    let series = |code: &str| format!("forebay_http_refusals_total{{code=\"{code}\"}}");
    for refusal in every_refusal() {
        let silent = format!("{} 0\n", series(problem(&refusal).code));
        assert!(!text.contains(&silent), "{silent}");
    }
    assert!(text.contains(&format!("{} 0\n", series("other"))), "{text}");
}
