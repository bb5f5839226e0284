//! A fleet that moves from one side to the other by weight, counted as docs/migration.md counts it.

use std::fmt::Write;
use std::fs;
use std::process::Command;

use super::{doors, trace_id};
use crate::harness::{Ask, Client, Gateway, Protocol};

const PAGE: &str = include_str!("../../../docs/migration.md");

/// The lines of the page that count, of the section on device platforms.
fn counting() -> &'static str {
    let section = PAGE
        .split("## From a device platform")
        .nth(1)
        .expect("a section");
    let block = section.split("```sh\n").nth(1).expect("a block");
    block.split("```").next().expect("its end")
}

/// Publishes a reading by its name; the name that it was answered by.
fn publish(client: &Client, name: &str) -> String {
    let ask = Ask::post("1").to("/topics/dt/7/telemetry?qos=1");
    let reply = client.send(&ask.with("idempotency-key", name));
    assert_eq!(reply.status, 200, "{reply:?}");
    trace_id(&reply)
}

/// `device<TAB>id` of each record of a gateway.
fn ids(gateway: &Gateway) -> String {
    let mut ids = String::new();
    for line in gateway.files("telemetry") {
        writeln!(ids, "{}\t{}", line.text("device"), line.text("record_id")).expect("memory");
    }
    ids
}

#[test]
fn a_fleet_is_moved_by_weight_and_both_sides_are_counted() {
    let new = doors().without_limits().start();
    // The stand-in for the platform answers as the platform does.
    let old = new
        .beside()
        .set("FOREBAY_LISTEN", "127.0.0.1:0")
        .without_limits();
    let old_data = old.path("data");
    let old = old.set("FOREBAY_FILE_DIR", old_data.display()).start();
    let mut sent = String::new();
    for number in 0..10 {
        let id = format!("press-{number}");
        let device = new.device(&id);
        let sides = [&old, &new].map(|side| Client::open(Protocol::H1, side, &device));
        for (step, weight) in [0, 1, 5, 10].into_iter().enumerate() {
            let side = &sides[usize::from(number < weight)];
            let name = publish(side, &format!("reading-{step}"));
            writeln!(sent, "{id}\t{name}").expect("memory");
        }
    }
    // An answer got lost while the name moved: the reading is sent again, to the other side.
    let device = new.device("press-0");
    publish(&Client::open(Protocol::H1, &old, &device), "reading-lost");
    publish(&Client::open(Protocol::H1, &new, &device), "reading-lost");
    writeln!(sent, "press-0\treading-lost").expect("memory");
    // And one is said to have been answered that nobody has.
    let missing = "press-9\treading-missing";
    writeln!(sent, "{missing}").expect("memory");

    let folder = new.path("data").parent().expect("a folder").to_owned();
    fs::write(folder.join("old.ids"), ids(&old)).expect("a file");
    fs::write(folder.join("sent.ids"), sent).expect("a file");
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", counting()])
        .env("LC_ALL", "C")
        .current_dir(&folder)
        .output()
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaint}");
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines, ["press-0\treading-lost", missing]);
    assert_eq!(
        new.files("telemetry").len() + old.files("telemetry").len(),
        42
    );
}
