//! What one request costs, in instructions: a change that makes the hot path 5 % longer fails here.
//!
//! The service runs with the null sink over in-memory pipes, all on one thread, under callgrind: unlike a time, the count
//! is the same on a busy machine. It is that of both ends, the in-memory client's too, in the tests' build. The counts on
//! record are in benches/instructions.txt, with the compiler that they hold for: with another one they are told and not
//! judged. `UPDATE_INSTRUCTIONS=1 cargo test --test instructions` writes them anew, after a change that is worth it.

#[path = "../benches/support/service.rs"]
mod support;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use futures_util::future::join_all;
use support::{H1, H2, service};
use tokio::task::LocalSet;

/// Requests under way at once.
const CLIENTS: usize = 16;

/// Rounds of all clients: what the longer run counts beyond the shorter one is that of the requests alone.
const ROUNDS: [usize; 2] = [50, 200];

/// How often each is counted.
const COUNTS: usize = 2;

/// What the test tells itself to run under callgrind: the protocol and the rounds.
const SUBJECT: &str = "FOREBAY_TEST_INSTRUCTIONS_OF";

const PROTOCOLS: [&str; 2] = ["h1", "h2"];

#[test]
fn a_request_takes_no_more_instructions_than_on_record() {
    if let Ok(subject) = env::var(SUBJECT) {
        return run(&subject);
    }
    let compiler = compiler();
    let counts = PROTOCOLS.map(|protocol| (protocol, instructions(protocol)));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    if env::var_os("UPDATE_INSTRUCTIONS").is_some() {
        return fs::write(page, table(&compiler, &counts)).expect("the record is written");
    }
    let record = fs::read_to_string(page).expect("there is a record");
    let is_same_compiler = record.lines().any(|line| line == compiler);
    for (protocol, count) in counts {
        let recorded = recorded(&record, protocol);
        let change = count as f64 / recorded as f64 - 1.0;
        println!("{protocol}: {count} instructions a request, {:+.1} % of the record", 100.0 * change);
        let is_longer = is_same_compiler && change > 0.05;
        assert!(!is_longer, "{protocol}: {count} instructions a request, {recorded} on record");
    }
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output().expect("there is a compiler");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn table(compiler: &str, counts: &[(&str, u64)]) -> String {
    let mut text = format!("# Instructions a request, by tests/instructions.rs\n{compiler}\n");
    counts.iter().for_each(|(protocol, count)| writeln!(text, "{protocol} {count}").expect("memory"));
    text
}

fn recorded(record: &str, protocol: &str) -> u64 {
    let line = record.lines().find_map(|line| line.strip_prefix(protocol)).expect("the protocol is on record");
    line.trim().parse().expect("a number")
}

/// Instructions of one request: the least of a few counts, which differ by what the runtime's timers happen to do.
fn instructions(protocol: &str) -> u64 {
    let count = |_| {
        let [few, many] = ROUNDS.map(|rounds| collected(&format!("{protocol} {rounds}")));
        (many - few) / ((ROUNDS[1] - ROUNDS[0]) * CLIENTS) as u64
    };
    (0..COUNTS).map(count).min().expect("there is one")
}

/// Runs this test under callgrind.
fn collected(subject: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe().expect("this test"))
        .args(["--exact", "a_request_takes_no_more_instructions_than_on_record"])
        .env(SUBJECT, subject)
        .output()
        .expect("valgrind is installed: make tools");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let count = text.lines().find_map(|line| line.split_once("Collected : ")).expect("a count").1;
    count.trim().parse().expect("a number")
}

fn run(subject: &str) {
    let (protocol, rounds) = subject.split_once(' ').expect("a protocol and rounds");
    let rounds: usize = rounds.parse().expect("a number");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let (service, null) = service();
        tokio::task::spawn_local(null.deliver());
        if protocol == "h1" {
            let mut clients: Vec<_> = (0..CLIENTS).map(|number| H1::open(&service, number)).collect();
            for _ in 0..rounds {
                join_all(clients.iter_mut().map(H1::post)).await;
            }
        } else {
            let mut clients = vec![H2::open(&service, 0).await; CLIENTS];
            for _ in 0..rounds {
                join_all(clients.iter_mut().map(H2::post)).await;
            }
        }
    });
}
