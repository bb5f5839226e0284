//! The cost of one request, in instructions: a change that makes the hot path 5 % longer fails here.
//!
//! The service runs with the null sink over in-memory pipes, h3 over UDP's loopback, all on one thread, under callgrind:
//! unlike a time, the count is the same on a busy machine, that of h3 but for a thousandth. It is that of both ends, the
//! client's too, in the tests' build; on h3 it has QUIC and encryption in it, which the others leave out. The counts on
//! record are in benches/instructions.txt, with the compiler that they hold for: with another one they are told and not
//! judged. `UPDATE_INSTRUCTIONS=1 cargo test --test instructions` writes them anew, after a change that is worth it.

#[path = "../benches/support/h3.rs"]
mod h3;
#[path = "../benches/support/service.rs"]
mod support;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use futures_util::future::join_all;
use h3::{H3, Loopback};
use support::{H1, H2, Tells, runtime, service};
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// Requests under way at once.
const CLIENTS: usize = 16;

/// Rounds of all clients, before the counting and while counting.
const ROUNDS: [usize; 2] = [20, 100];

/// Variable by which the test tells itself which protocol to run under callgrind.
const SUBJECT: &str = "FOREBAY_TEST_INSTRUCTIONS_OF";

/// Subjects that are counted: the protocols, and HTTP/1.1 again with fleet events.
const SUBJECTS: [&str; 4] = ["h1", "h2", "h3", TOLD];
const TOLD: &str = "h1-told";

/// Share that fleet events may add to a request: a few counts, of its connection.
const OF_EVENTS_MAX: f64 = 0.01;

#[test]
fn a_request_takes_no_more_instructions_than_on_record() {
    if let Ok(protocol) = env::var(SUBJECT) {
        return run(&protocol);
    }
    let compiler = compiler();
    let counts = SUBJECTS.map(|subject| (subject, instructions(subject)));
    assert_cheap_events(&counts);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    if env::var_os("UPDATE_INSTRUCTIONS").is_some() {
        return fs::write(page, table(&compiler, &counts)).expect("the record is written");
    }
    let record = fs::read_to_string(page).expect("there is a record");
    let is_same_compiler = record.lines().any(|line| line == compiler);
    for (protocol, count) in counts {
        let recorded = recorded(&record, protocol);
        let change = count as f64 / recorded as f64 - 1.0;
        println!(
            "{protocol}: {count} instructions a request, {:+.1} % of the record",
            100.0 * change
        );
        let is_longer = is_same_compiler && change > 0.05;
        assert!(
            !is_longer,
            "{protocol}: {count} instructions a request, {recorded} on record"
        );
    }
}

fn assert_cheap_events(counts: &[(&str, u64)]) {
    let of = |subject| {
        let counted = counts.iter().find(|(counted, _)| *counted == subject);
        counted.expect("it was counted").1 as f64
    };
    let change = of(TOLD) / of("h1") - 1.0;
    println!("fleet events add {:.2} % to a request", 100.0 * change);
    assert!(change < OF_EVENTS_MAX, "{change}");
}

fn compiler() -> String {
    let output = Command::new("rustc")
        .arg("--version")
        .output()
        .expect("there is a compiler");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn table(compiler: &str, counts: &[(&str, u64)]) -> String {
    let mut text = format!("# Instructions a request, by tests/instructions.rs\n{compiler}\n");
    counts
        .iter()
        .for_each(|(protocol, count)| writeln!(text, "{protocol} {count}").expect("memory"));
    text
}

fn recorded(record: &str, protocol: &str) -> u64 {
    let line = record
        .lines()
        .find_map(|line| line.strip_prefix(protocol)?.strip_prefix(' '))
        .expect("the protocol is on record");
    line.trim().parse().expect("a number")
}

/// Instructions of one request: this test runs itself under callgrind.
fn instructions(protocol: &str) -> u64 {
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--callgrind-out-file=/dev/null",
            "--toggle-collect=*rounds_that_count*",
        ])
        .arg(env::current_exe().expect("this test"))
        .args([
            "--exact",
            "a_request_takes_no_more_instructions_than_on_record",
        ])
        .env(SUBJECT, protocol)
        .output()
        .expect("valgrind is installed: make tools");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}");
    let count = text
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .expect("a count")
        .1;
    count.trim().parse::<u64>().expect("a number") / (ROUNDS[1] * CLIENTS) as u64
}

fn run(protocol: &str) {
    // No time passes: what timers do would differ with the machine's load. QUIC would take its packets for lost.
    let (runtime, idle) = runtime(protocol != "h3");
    let local = LocalSet::new();
    let mut clients = local.block_on(&runtime, async {
        let tells = match protocol {
            TOLD => Tells::Events,
            _ => Tells::Nothing,
        };
        let (service, null) = service(tells, idle);
        tokio::task::spawn_local(null.deliver());
        match protocol {
            "h1" | TOLD => Clients::H1(
                (0..CLIENTS)
                    .map(|number| H1::open(&service, number))
                    .collect(),
            ),
            "h2" => Clients::H2(vec![H2::open(&service, 0).await; CLIENTS]),
            _ => Clients::H3(vec![H3::open(&Loopback::new(), &service, 0).await; CLIENTS]),
        }
    });
    local.block_on(&runtime, clients.rounds(ROUNDS[0]));
    rounds_that_count(&local, &runtime, &mut clients);
}

/// The function whose instructions callgrind counts.
#[inline(never)]
fn rounds_that_count(local: &LocalSet, runtime: &Runtime, clients: &mut Clients) {
    local.block_on(runtime, clients.rounds(ROUNDS[1]));
}

enum Clients {
    H1(Vec<H1>),
    H2(Vec<H2>),
    H3(Vec<H3>),
}

impl Clients {
    async fn rounds(&mut self, rounds: usize) {
        for _ in 0..rounds {
            match self {
                Self::H1(clients) => drop(join_all(clients.iter_mut().map(H1::post)).await),
                Self::H2(clients) => drop(join_all(clients.iter_mut().map(H2::post)).await),
                Self::H3(clients) => drop(join_all(clients.iter_mut().map(H3::post)).await),
            }
        }
    }
}
