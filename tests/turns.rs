//! A worker stands still for nobody: while it decodes, cuts and judges what one device sends, the others have their turns.
//!
//! The service runs with the null sink over in-memory pipes, on one thread, beside a task that counts its turns. Turns are
//! held, time is only told: `cargo test --profile perf --test turns -- --nocapture` prints the longest wait for a turn.

#[path = "support/encoded.rs"]
mod encoded;
#[path = "../benches/support/service.rs"]
#[allow(dead_code)] // clients are for the others
mod support;

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::{Duration, Instant};

use encoded::{gzip, zstd};
use forebay::internals::rules::{Rulebook, Rules};
use forebay::internals::words::Protocol;
use support::{Tells, connect, runtime, service_judging};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::{LocalSet, spawn_local, yield_now};

/// Bytes that may be judged, or decoded, between two turns of the others.
const BYTES_A_TURN: usize = 300 * 1024;

const SCHEMA: &str = r#"{"properties": {"text": {"type": "string", "pattern": "^x*$"}}}"#;

/// Turns that the counting task has had.
#[derive(Default)]
struct Turns {
    count: Cell<usize>,
    longest_wait: Cell<Duration>,
}

impl Turns {
    async fn take(self: Rc<Self>) {
        loop {
            let since = Instant::now();
            yield_now().await;
            self.count.set(self.count.get() + 1);
            let wait = self.longest_wait.get().max(since.elapsed());
            self.longest_wait.set(wait);
        }
    }
}

fn rules() -> Rulebook {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("rules.toml");
    fs::write(folder.path().join("schema.json"), SCHEMA).expect("a file");
    fs::write(&file, "schema = 'schema.json'\ndevice_field = '/device'").expect("a file");
    let rules = Rules::read(&file).expect("the rules are good");
    Rulebook::of_one(rules, 256 * 1024)
}

/// Sends one request; gives the status, and the turns that others had from when its last bytes were on their way.
fn turns(path: &str, fields: &str, body: &[u8]) -> (String, usize) {
    let (runtime, idle) = runtime(true);
    let turns = Rc::new(Turns::default());
    let status = LocalSet::new().block_on(&runtime, async {
        let (service, null) = service_judging(Tells::Nothing, idle, rules());
        spawn_local(null.deliver());
        let mut stream = connect(&service, 0, Protocol::H1);
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{fields}content-length: {}\r\n\r\n",
            body.len()
        );
        spawn_local(turns.clone().take());
        stream.write_all(head.as_bytes()).await.expect("it is read");
        stream.write_all(body).await.expect("it is read");
        turns.count.set(0);
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer[9..]).into_owned()
    });
    println!(
        "{path} {fields:?}: {status}, {} turns, waited {:?} at most",
        turns.count.get(),
        turns.longest_wait.get()
    );
    (status, turns.count.get())
}

#[test]
fn others_have_their_turns_while_a_bomb_is_decoded() {
    let zeros = vec![b'0'; 8 << 20];
    for (fields, body) in [
        (
            "content-type: application/x-ndjson\r\ncontent-encoding: gzip\r\n",
            gzip(&zeros),
        ),
        (
            "content-type: application/x-ndjson\r\ncontent-encoding: zstd\r\n",
            zstd(&zeros),
        ),
    ] {
        let (status, turns) = turns("/v1/telemetry/records", fields, &body);
        assert_eq!(status, "413");
        assert!(turns >= zeros.len() / BYTES_A_TURN, "{turns} turns");
    }
}

#[test]
fn others_have_their_turns_while_records_are_judged() {
    // Whatever goes on waits for the worker to be idle, which it never is beside this task.
    let record = format!("{{\"text\":\"{}\"}}\n", "y".repeat(900));
    let body = record.repeat(1000);
    let fields = "content-type: application/x-ndjson\r\n";
    let (status, turns) = turns("/v1/telemetry/records", fields, body.as_bytes());
    assert_eq!(status, "400");
    assert!(turns >= 20, "{turns} turns");
}

#[test]
fn an_array_of_10_000_within_each_other_is_refused() {
    let body = format!("[{}{}]", "[".repeat(10_000), "]".repeat(10_000));
    let fields = "content-type: application/json\r\n";
    let (status, _) = turns("/v1/telemetry/records", fields, body.as_bytes());
    assert_eq!(status, "400");
}
