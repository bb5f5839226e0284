//! Faults between the gateway and Kinesis: a 204 stays true and a device's order is kept through them.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;

use crate::brokers::text;
use crate::harness::{Ask, Client, Load, Protocol, Reply, Setup, eventually};
use crate::kinesis::{KinesisStream, fleet};
use crate::kinesis_proxy::Fault::{
    self, InternalFailure, None, Reset, ResetAnswer, Slow, Throttled, Unavailable,
};

use crate::status::{assert_problem, assert_retry_after};

/// Longer than the gateway waits for the answer of a call: it makes the call again, and both are written.
const TOO_SLOW: Duration = Duration::from_secs(6);

const BODY_BYTES: usize = 300;

/// Calls have these faults, in turns, under a load of devices that wait for each answer. Every reading is answered 204.
/// Gives the number of those that are in the stream twice.
fn repeated_in(name: &str, aggregate: bool, script: &[Fault]) -> usize {
    let stream = KinesisStream::start(name, 2);
    stream.proxy.script(script);
    let gateway = setup(&stream, aggregate).start();
    let (devices, clients) = fleet(&gateway, 4, "device");
    let load = Load::start("reading", &clients, BODY_BYTES);
    load.wait_for(204, 10 * clients.len() as u64);
    let outcomes = load.stop();
    assert_eq!(
        outcomes.count(204),
        outcomes.senders.iter().map(Vec::len).sum::<usize>(),
        "{:?}",
        outcomes.senders
    );
    assert!(
        stream.proxy.calls() >= script.len(),
        "the script has been played"
    );
    stream.check(&outcomes, &devices, BODY_BYTES)
}

fn setup(stream: &KinesisStream, aggregate: bool) -> Setup {
    stream
        .gateway()
        .without_limits()
        .set("FOREBAY_KINESIS_AGGREGATE", aggregate)
        .set("FOREBAY_ACK_TIMEOUT", "30s")
}

#[test]
fn what_a_shard_refuses_three_times_is_written_once() {
    assert_eq!(
        repeated_in("refused", true, &[Throttled, Throttled, Throttled, None]),
        0
    );
}

#[test]
fn what_the_service_fails_to_write_is_written_once() {
    assert_eq!(
        repeated_in(
            "failed",
            true,
            &[InternalFailure, Unavailable, InternalFailure, None]
        ),
        0
    );
}

/// A call that may have been written is made again: twice in the stream, and in order.
#[test]
fn a_connection_that_breaks_loses_nothing() {
    assert!(repeated_in("broken", true, &[Reset, None, ResetAnswer, None]) > 0);
}

#[test]
fn an_answer_that_comes_too_late_loses_nothing() {
    let mut script = [None; 12];
    script[3] = Slow(TOO_SLOW);
    assert!(repeated_in("slow", true, &script) > 0);
}

#[test]
fn single_records_come_through_all_of_it() {
    let faults = [
        Throttled,
        InternalFailure,
        None,
        ResetAnswer,
        None,
        Throttled,
        Unavailable,
        Reset,
    ];
    let mut script = [None; 20];
    script[..faults.len()].copy_from_slice(&faults);
    repeated_in("all-faults", false, &script);
}

/// Many readings in one request come through all of it too, and through a shard that is full indeed: by themselves and in
/// aggregates, each of them is in the stream, in the order of its device, once those in `retry` are sent again.
#[test]
fn many_readings_in_one_request_come_through_all_of_it() {
    for (aggregate, count, pad_bytes) in [(false, 10, 100), (true, 300, 1000)] {
        let stream = KinesisStream::start("many", 1);
        let faults = [Throttled, None, InternalFailure, ResetAnswer, Throttled];
        let mut script = [None; 100];
        script[..faults.len()].copy_from_slice(&faults);
        stream.proxy.script(&script);
        let gateway = setup(&stream, aggregate).start();
        let (devices, clients) = fleet(&gateway, 1, "device");
        let told: Vec<Vec<String>> = std::thread::scope(|scope| {
            let send = |client| scope.spawn(move || send_many(&client, count, pad_bytes));
            let senders: Vec<_> = clients.into_iter().map(send).collect();
            senders
                .into_iter()
                .map(|sender| sender.join().expect("all are taken"))
                .collect()
        });
        assert!(
            stream.proxy.calls() >= faults.len(),
            "the script has been played"
        );
        assert!(
            !aggregate || stream.proxy.refused() > 0,
            "the shard was full"
        );
        let stored = stream.read();
        for (device, told) in devices.iter().zip(told) {
            let mut seen = HashSet::new();
            let of_device = stored.iter().filter(|reading| reading.device == *device);
            let mut first: Vec<_> = of_device.map(|reading| text(&reading.body)).collect();
            first.retain(|reading| seen.insert(reading.clone()));
            assert!(first == told, "{device}: {} of {}", first.len(), told.len());
        }
    }
}

/// Sends four requests of so many readings, one after the other, and again what a verdict says may be sent again. Returns the
/// readings in their order.
fn send_many(client: &Client, count: usize, pad_bytes: usize) -> Vec<String> {
    let mut told = Vec::new();
    for request in 0..4 {
        let pad = "x".repeat(pad_bytes);
        let readings =
            (0..count).map(|index| format!("{{\"n\":\"{request}-{index}\",\"pad\":\"{pad}\"}}"));
        let readings: Vec<_> = readings.collect();
        let mut to_send = readings.clone();
        while !to_send.is_empty() {
            let ask = Ask::post(to_send.join("\n"))
                .to("/v1/telemetry/records")
                .with("content-type", "application/x-ndjson");
            to_send = still_to_send(&client.send(&ask), &to_send);
        }
        told.extend(readings);
    }
    told
}

/// Returns the readings in `retry`; none of a device's readings is safe behind one of them.
fn still_to_send(reply: &Reply, sent: &[String]) -> Vec<String> {
    if reply.status == 204 {
        return Vec::new();
    }
    assert!(matches!(reply.status, 503 | 504), "{reply:?}");
    let verdict = &reply.problem()["records"];
    assert_eq!(verdict["rejected"], json!([]), "{reply:?}");
    let accepted = verdict["accepted"].as_u64().expect("a number") as usize;
    let retry: Vec<_> = (accepted..sent.len()).collect();
    assert_eq!(verdict["retry"], json!(retry), "{reply:?}");
    sent[accepted..].to_vec()
}

/// With the two rights that it cannot do without.
#[test]
fn shards_that_may_not_be_listed_are_one() {
    let stream = KinesisStream::start("hidden", 2);
    stream.proxy.hide_shards();
    stream.proxy.script(&[None, Throttled]);
    let gateway = setup(&stream, false).start();
    let (devices, clients) = fleet(&gateway, 4, "device");
    let load = Load::start("reading", &clients, BODY_BYTES);
    load.wait_for(204, 10 * clients.len() as u64);
    let outcomes = load.stop();
    assert_eq!(stream.check(&outcomes, &devices, BODY_BYTES), 0);
    let unfit = setup(&stream, true).start_unready();
    let (status, body) = unfit.admin("/readyz");
    assert_eq!(status, 503);
    assert!(body.contains("kinesis:ListShards"), "{body}");
}

/// Each stream can be described all the while: what it says of itself does not overrule what becomes of its records.
#[test]
fn a_stream_that_is_described_but_takes_no_records_is_unready_until_it_does() {
    let stream = KinesisStream::start("refusing", 2);
    for error in ["AccessDeniedException", "KMSDisabledException"] {
        stream.proxy.refuse_puts(Some(error));
        let gateway = setup(&stream, false).start();
        let client = Client::open(Protocol::H2, &gateway, &gateway.device("plc-1"));
        for _ in 0..50 {
            let reply = client.send(&Ask::post("x"));
            assert_problem(&reply, 503, "sink-unavailable");
            assert_retry_after(&reply);
        }
        let (status, body) = gateway.admin("/readyz");
        assert_eq!(status, 503, "{body}");
        assert!(body.contains("telemetry") && body.contains(error), "{body}");
        assert!(gateway.log().contains(error), "{}", gateway.log());
        stream.proxy.refuse_puts(Option::None);
        eventually("a reading that is taken", || {
            client.send(&Ask::post("x")).status == 204
        });
        gateway.wait_until_ready();
    }
}

/// As in a container on ECS or EKS: a credentials endpoint, and credentials that end before they said they would.
#[test]
fn credentials_that_have_expired_are_renewed() {
    let stream = KinesisStream::start("credentials", 2);
    let gateway = setup(&stream, true)
        .unset("AWS_ACCESS_KEY_ID")
        .unset("AWS_SECRET_ACCESS_KEY")
        .set(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            format!("http://{}/credentials", stream.proxy.address),
        )
        .start();
    let (devices, clients) = fleet(&gateway, 4, "device");
    let load = Load::start("reading", &clients, BODY_BYTES);
    for round in 1..=2 {
        load.wait_for(204, load.seen(204) + 100);
        stream.proxy.expire_credentials();
        load.wait_for(204, load.seen(204) + 100);
        assert!(
            stream.proxy.expired() >= round,
            "calls with the old ones are refused"
        );
    }
    let outcomes = load.stop();
    assert_eq!(
        outcomes.count(204),
        outcomes.senders.iter().map(Vec::len).sum::<usize>(),
        "{:?}",
        outcomes.senders
    );
    assert_eq!(stream.check(&outcomes, &devices, BODY_BYTES), 0);
}
