//! The spool's disk can be read with its key only; and a disk that fails costs 503s, never a reading.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::brokers;
use crate::harness::{Ask, Client, Gateway, Protocol, Setup, eventually};
use crate::spool::{in_files, wait_until_drained};

const READING: &str = r#"{"secret":"nobody else may read this"}"#;

fn post(gateway: &Gateway, body: &str) -> u16 {
    Client::open(Protocol::H1, gateway, &gateway.device("plc-1"))
        .send(&Ask::post(body))
        .status
}

fn lies_in(folder: &Path, text: &str) -> bool {
    let files = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    let holds = |file: &Path| {
        fs::read(file)
            .expect("a file")
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    files.filter(|file| file.is_file()).any(|file| holds(&file))
}

/// The first key writes, all of them read; without the one that wrote, nothing is thrown away.
#[test]
fn an_encrypted_spool_needs_its_key_and_takes_a_new_one() {
    let [old, new] = ["0a", "0b"].map(|byte| byte.repeat(32));
    let broker = brokers::pausable();
    let setup = broker
        .gateway_to("encrypted")
        .with_spool("overflow")
        .set("FOREBAY_DRAIN_TIMEOUT", "1s");
    let key_file = setup.path("spool.keys");
    let setup = setup.set("FOREBAY_SPOOL_KEY_FILE", key_file.display());
    let spool = setup.path("spool");
    fs::write(&key_file, &old).expect("a file");
    let gateway = setup.start();
    let paused = broker.pause();
    assert_eq!(post(&gateway, READING), 204);
    let setup = gateway.kill();
    assert!(!lies_in(&spool, READING), "it is encrypted");

    fs::write(&key_file, &new).expect("a file");
    let refused = setup.run(&["spool", "ls"]);
    assert_eq!(
        refused.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&refused.stderr)
    );
    fs::write(&key_file, format!("{new}\n{old}\n")).expect("a file");
    assert!(setup.succeed(&["spool", "dump"]).contains(READING));
    drop(paused);
    let gateway = setup.start();
    wait_until_drained(&gateway);
    let stored = broker.bodies("encrypted");
    assert!(
        !stored.is_empty() && stored.iter().all(|body| body == READING),
        "{stored:?}"
    );
}

/// Nothing can be written where the folder was: 503, unready, and back by itself.
#[test]
fn a_folder_that_is_gone_and_cannot_be_made_is_503_until_it_can() {
    let setup = Setup::new().without_limits();
    let parent = setup.path("disk");
    let setup = setup
        .set("FOREBAY_SPOOL_DIR", parent.join("spool").display())
        .set("FOREBAY_SPOOL_MODE", "always");
    let gateway = setup.start();
    assert_eq!(post(&gateway, "before"), 204);
    wait_until_drained(&gateway);
    fs::remove_dir_all(&parent).expect("it is there");
    fs::write(&parent, "in the way").expect("a file");
    eventually("refused", || post(&gateway, "during") == 503);
    eventually("unready", || !gateway.is_ready());
    fs::remove_file(&parent).expect("it is there");
    gateway.wait_until_ready();
    assert_eq!(post(&gateway, "after"), 204);
    wait_until_drained(&gateway);
    let stored = in_files(&gateway);
    assert!(
        stored.first().is_some_and(|body| body == "before") && stored.contains(&"after".to_owned()),
        "{stored:?}"
    );
}

/// One reading is damaged where it lies: it goes to the quarantine, and a metric and one line of the log tell of it.
#[test]
fn a_damaged_frame_is_told_of_once_and_holds_up_nothing() {
    let broker = brokers::pausable();
    let gateway = broker.gateway_to("dented").with_spool("overflow").start();
    let paused = broker.pause();
    for reading in ["reading-1", "reading-2", "reading-3", "reading-4"] {
        assert_eq!(post(&gateway, reading), 204);
    }
    let setup = gateway.kill();
    let file = setup.path("spool").join("segment-0000000001.spool");
    let mut bytes = fs::read(&file).expect("a segment");
    let damaged_at = bytes
        .windows(9)
        .position(|part| part == b"reading-3")
        .expect("it is there");
    bytes[damaged_at] ^= 1;
    fs::write(&file, &bytes).expect("a segment");
    drop(paused);
    let gateway = setup.start();
    wait_until_drained(&gateway);
    let stored = broker.bodies("dented");
    let count = |reading: &str| stored.iter().filter(|body| *body == reading).count();
    // The first one was on its way when the gateway was killed.
    assert!(
        count("reading-1") >= 1 && count("reading-2") == 1 && count("reading-4") == 1,
        "{stored:?}"
    );
    assert_eq!(stored.len(), count("reading-1") + 2, "{stored:?}");
    assert_eq!(gateway.metric("forebay_spool_damaged_frames_total"), 1.0);
    let log = gateway.log();
    let told: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("damaged"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (&told["file"], &told["records"]),
        (&file.to_str().expect("UTF-8").into(), &1.into())
    );
    let offset = told["offset"].as_u64().expect("a number") as usize;
    assert!(
        bytes[offset..damaged_at].starts_with(b"FBf1") && damaged_at - offset < 500,
        "{offset}"
    );
    assert!(
        gateway
            .path("spool/quarantine")
            .join(format!("segment-0000000001.spool.{offset}"))
            .exists()
    );
}

/// The newest reading loses its header where it lies: nothing follows it, as in a tail that a crash has torn. It is not cut
/// off in silence, neither by the gateway nor by the tool.
#[test]
fn a_torn_tail_that_held_a_reading_is_told_of_and_kept() {
    let broker = brokers::pausable();
    let gateway = broker.gateway_to("torn").with_spool("overflow").start();
    let paused = broker.pause();
    for reading in ["reading-1", "reading-2", "reading-3"] {
        assert_eq!(post(&gateway, reading), 204);
    }
    let setup = gateway.kill();
    let file = setup.path("spool").join("segment-0000000001.spool");
    let mut bytes = fs::read(&file).expect("a segment");
    let position = |part: &[u8]| bytes.windows(part.len()).rposition(|bytes| bytes == part);
    let reading_at = position(b"reading-3").expect("it is there");
    let frame_at = bytes[..reading_at]
        .windows(4)
        .rposition(|bytes| bytes == b"FBf1")
        .expect("a header");
    bytes[frame_at + 9] ^= 1;
    fs::write(&file, &bytes).expect("a segment");

    let copy = setup.path("copy");
    fs::create_dir(&copy).expect("a folder");
    let copied = copy.join("segment-0000000001.spool");
    fs::copy(&file, copied).expect("a copy");
    let verified = setup.run(&["spool", "verify", "--dir", copy.to_str().expect("UTF-8")]);
    let said = String::from_utf8_lossy(&verified.stdout);
    assert_eq!(verified.status.code(), Some(1), "{said}");
    assert!(
        said.contains("waiting: 2 records read, 1 damaged"),
        "{said}"
    );

    drop(paused);
    let gateway = setup.start();
    wait_until_drained(&gateway);
    assert_eq!(gateway.metric("forebay_spool_damaged_frames_total"), 1.0);
    let log = gateway.log();
    let told: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("records that are torn"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let [told] = &told[..] else {
        panic!("{told:?}")
    };
    assert_eq!(
        (&told["file"], &told["offset"], &told["records"]),
        (
            &file.to_str().expect("UTF-8").into(),
            &frame_at.into(),
            &1.into()
        )
    );
    for spool in [gateway.path("spool"), copy] {
        let name = format!("segment-0000000001.spool.{frame_at}");
        let kept = fs::read(spool.join("quarantine").join(name)).expect("it is kept");
        assert!(kept.ends_with(b"reading-3"));
    }
}
