//! The audit log, written to files of a folder.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn started(file: &Path) -> Audit {
    Audit::start(Target::File(file.to_owned()), JournalMetrics::unseen()).unwrap()
}

fn lines(file: &Path) -> Vec<Value> {
    fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn refused(reason: &'static str) -> Event<'static> {
    Event::HandshakeRefused {
        address: ADDRESS,
        transport: "tcp",
        reason,
        certificate: Some(Certificate {
            serial: &[0x0a, 0xff],
            subject: "CN=plc-7",
            issuer: "CN=\u{1b}[2J",
            not_before: Timestamp(0),
            not_after: Timestamp(1_700_000_000_000),
        }),
    }
}

#[test]
fn an_event_is_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let audit = started(&file);
    audit.record(refused("revoked"));
    audit.record(Event::Forbidden {
        peer: Peer {
            address: ADDRESS,
            protocol: "h2",
            device: None,
        },
        code: "invalid-identity",
    });
    audit.record(Event::ReloadFailed {
        what: "crl",
        error: "bad\n\"file\"\u{1b}[2J\u{9b}",
    });
    audit.stop();
    let text = fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), 3);
    assert!(
        !text.replace('\n', "").contains(char::is_control),
        "{text:?}"
    );
    let lines = lines(&file);
    assert_eq!(lines[0]["event"], "handshake-refused");
    assert_eq!(
        (&lines[0]["address"], &lines[0]["serial"]),
        (&"127.0.0.1".into(), &"0aff".into())
    );
    assert!(lines[0]["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&lines[1]["code"], &lines[1]["device"]),
        (&"invalid-identity".into(), &Value::Null)
    );
    assert_eq!(lines[2]["error"], "bad\n\"file\"\u{1b}[2J\u{9b}");
}

#[test]
fn a_flood_is_sampled_and_says_how_much_was_left_out() {
    const FLOOD: u64 = 3000;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("audit.log");
    let audit = started(&file);
    let began_at = std::time::Instant::now();
    (0..FLOOD).for_each(|_| audit.record(refused("io")));
    let seconds = began_at.elapsed().as_secs() + 2;
    audit.record(Event::Stopped { clean: true });
    audit.stop();
    let lines = lines(&file);
    let of = |event: &str| lines.iter().filter(|line| line["event"] == event).count() as u64;
    let left_out: u64 = lines.iter().filter_map(|line| line["count"].as_u64()).sum();
    assert_eq!(of("handshake-refused") + left_out, FLOOD);
    let each_second = u64::from(PER_SECOND_MAX);
    assert!((each_second..=each_second * seconds).contains(&of("handshake-refused")));
    assert!(
        left_out > 0 && of("stopped") == 1,
        "one kind's flood hides no other"
    );
}

#[test]
fn a_second_admits_so_many() {
    let window = Window::default();
    let admitted = |second| {
        (0..2 * PER_SECOND_MAX)
            .filter(|_| window.admits(second))
            .count() as u32
    };
    assert_eq!(
        [admitted(1), admitted(1), admitted(2)],
        [PER_SECOND_MAX, 0, PER_SECOND_MAX]
    );
    assert_eq!(
        window.left_out.load(Ordering::Relaxed),
        4 * u64::from(PER_SECOND_MAX)
    );
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let [file, moved] = ["audit.log", "audit.log.1"].map(|name| folder.path().join(name));
    let audit = started(&file);
    audit.record(Event::Started { listen: "a" });
    audit.reopen();
    fs::rename(&file, &moved).unwrap();
    audit.reopen();
    audit.record(Event::Stopped { clean: true });
    audit.stop();
    let events: Vec<_> = [&moved, &file]
        .into_iter()
        .flat_map(|file| lines(file))
        .map(|l| l["event"].clone())
        .collect();
    assert_eq!(events, ["started", "stopped"]);
}

#[test]
fn a_file_that_cannot_be_opened_is_an_error() {
    assert!(
        Audit::start(
            Target::File("/nowhere/audit.log".into()),
            JournalMetrics::unseen()
        )
        .is_err()
    );
    Audit::off().record(Event::Stopped { clean: true });
}
