//! A gateway that nobody asks anything sleeps: what it does on its own costs no core.

use std::fs;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol};

/// Time that is watched. On a busy machine less happens in it, never more.
const WINDOW: Duration = Duration::from_secs(2);

/// Of all threads together, librdkafka's too: some 25 on an idle gateway. One thread that looks around a hundred times a second
/// is found.
const WAKES_PER_SECOND_MAX: u64 = 70;

/// Counts the wakes of all threads since they began.
fn wakes(gateway: &Gateway) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", gateway.id()))
        .expect("it runs")
        .flatten();
    let of_thread = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.map_or(0, |count| count.trim().parse::<u64>().expect("a number"))
    };
    threads.map(of_thread).sum()
}

#[test]
fn an_idle_gateway_sleeps() {
    let gateway = brokers::gateway_to("idle").start();
    let client = Client::open(Protocol::H1, &gateway, &gateway.device("plc-1"));
    assert_eq!(client.send(&Ask::post("awake")).status, 204);
    let (_nobody_sends, window) = sync_channel::<()>(0);
    let before = wakes(&gateway);
    assert!(window.recv_timeout(WINDOW).is_err());
    let woken = wakes(&gateway) - before;
    assert!(
        woken < WAKES_PER_SECOND_MAX * WINDOW.as_secs(),
        "woken {woken} times in {WINDOW:?}"
    );
    println!("woken {woken} times in {WINDOW:?}");
}
