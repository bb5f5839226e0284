//! A spool that another version has left behind: one of an older format is delivered, one of a newer format keeps the gateway from
//! starting and is left as it is.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Gateway, Setup};
use crate::spool::wait_until_drained;

/// Written by a program of the first version of the format: a reading without a content type, one with a key and a trace, and one
/// of a stream with rules, tagged. It must be read by every later one.
const VERSION_1: &[u8] = include_bytes!("../support/spool-1/segment-0000000001.spool");

/// Offset of the version in a segment's header, which its checksum covers; the header stands twice.
const VERSION_AT: usize = 7;
const CRC_AT: usize = 56;
const HEADERS: [usize; 2] = [0, 4096];

/// A gateway that has this segment in its spool, and the segment's file.
fn found(segment: &[u8]) -> (Setup, PathBuf) {
    let setup = Setup::new()
        .with_spool("overflow")
        .set("FOREBAY_STREAMS", "telemetry,judged");
    fs::create_dir(setup.path("spool")).expect("a folder");
    let file = setup.path("spool/segment-0000000001.spool");
    fs::write(&file, segment).expect("a segment");
    (setup, file)
}

/// The same segment, as a program of another version of the format would write its header.
fn of_version(version: u8) -> Vec<u8> {
    let mut segment = VERSION_1.to_vec();
    for at in HEADERS {
        segment[at + VERSION_AT] = version;
        let crc = crc32c::crc32c(&segment[at..at + CRC_AT]);
        segment[at + CRC_AT..at + CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }
    segment
}

fn lines(gateway: &Gateway, stream: &str) -> Vec<Value> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(gateway.path("data").join(stream)).expect("a folder") {
        let text = fs::read_to_string(entry.expect("a file").path()).expect("text");
        lines.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).expect("JSON")),
        );
    }
    lines
}

fn assert_delivered(gateway: &Gateway) {
    wait_until_drained(gateway);
    let telemetry = lines(gateway, "telemetry");
    assert_eq!(telemetry.len(), 2, "{telemetry:?}");
    assert_eq!(telemetry[0]["payload_base64"], "bm8gdHlwZQ==");
    assert_eq!(telemetry[1]["record_id"], "boot-17-000042");
    assert_eq!(telemetry[1]["payload"], json!({"celsius": 21.5}));
    assert!(telemetry.iter().all(|line| line["device"] == "plc-7"));
    let judged = lines(gateway, "judged");
    assert_eq!(judged.len(), 1, "{judged:?}");
    assert_eq!(judged[0]["schema_violation"], "/properties/celsius/type");
    assert_eq!(gateway.metric("forebay_spool_damaged_frames_total"), 0.0);
}

#[test]
fn a_spool_of_the_first_version_is_delivered() {
    let (setup, _) = found(VERSION_1);
    assert_delivered(&setup.start());
}

/// As after a step back to an older program: nothing is thrown away, and the right program delivers it.
#[test]
fn a_spool_of_a_newer_version_keeps_the_gateway_from_starting() {
    let newer = of_version(2);
    let (setup, file) = found(&newer);
    for command in [&["serve"][..], &["check", "--files"]] {
        let output = setup.run(command);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
        assert!(
            said.contains("version 2 of the format, which this program does not know")
                && said.contains("segment-0000000001.spool"),
            "{command:?}: {said}"
        );
    }
    assert_eq!(fs::read(&file).expect("it is there"), newer);
    fs::write(&file, of_version(1)).expect("a segment");
    assert_delivered(&setup.start());
}
