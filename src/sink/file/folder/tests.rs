//! The folder of one stream: names, rotation, and the state after a crash.

use super::*;

const ROTATION: Rotation = Rotation {
    bytes_max: 10,
    age_max: Duration::from_secs(60),
};

/// Names and contents, in the order of the names.
fn files(dir: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = fs::read_dir(dir.join("telemetry"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                fs::read_to_string(entry.path()).unwrap(),
            )
        })
        .collect();
    files.sort();
    files
}

fn contents(dir: &Path) -> Vec<String> {
    files(dir).into_iter().map(|(_, content)| content).collect()
}

fn folder(dir: &Path) -> Folder {
    let mut folder = Folder::new(dir, "telemetry", ROTATION);
    folder.prepare().unwrap();
    folder
}

#[test]
fn a_large_or_old_file_is_followed_by_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = folder(dir.path());
    let start = Instant::now();
    for (line, seconds) in [
        ("1\n", 0),
        ("2\n", 59),
        ("3\n", 60),
        ("0123456789\n", 60),
        ("5\n", 61),
    ] {
        folder
            .append(&[line.as_bytes()], start + Duration::from_secs(seconds))
            .unwrap();
    }
    assert_eq!(contents(dir.path()), ["1\n2\n", "3\n0123456789\n", "5\n"]);
}

#[test]
fn names_say_when_and_sort_as_written_even_when_the_clock_is_set_back() {
    let newest = Name {
        time: "20261123T091500.123Z".into(),
        number: 7,
    };
    let next = Name::after(Some(&newest), "20201123T091500.123Z").file_name("telemetry");
    assert_eq!(next, "telemetry-20261123T091500.123Z-000008.jsonl");
    assert!(is_time(&utc_now()), "{}", utc_now());
}

#[test]
fn a_torn_tail_is_cut_off_the_newest_file_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let stream = dir.path().join("telemetry");
    fs::create_dir(&stream).unwrap();
    let long_line = "x".repeat(100_000);
    let torn = format!("1\n{long_line}\n{long_line}");
    for name in [
        "telemetry-20261123T091500.123Z-000001.jsonl",
        "telemetry-20261123T091500.123Z-000002.jsonl",
        "telemetry-30261123T091500.123Z-00003.jsonl",
        "telemetry-tomorrow-000009.jsonl",
        "zebra-20261123T091500.123Z-000009.jsonl",
    ] {
        fs::write(stream.join(name), &torn).unwrap();
    }
    folder(dir.path());
    let whole = format!("1\n{long_line}\n");
    let expected = [&torn, &whole, &torn, &torn, &torn];
    assert!(contents(dir.path()).iter().eq(expected));
}

#[test]
fn a_file_without_a_single_whole_line_becomes_empty() {
    let dir = tempfile::tempdir().unwrap();
    let stream = dir.path().join("telemetry");
    fs::create_dir(&stream).unwrap();
    fs::write(
        stream.join("telemetry-20261123T091500.123Z-000001.jsonl"),
        "{\"dev",
    )
    .unwrap();
    folder(dir.path());
    assert_eq!(contents(dir.path()), [""]);
}

#[test]
fn a_failed_append_is_undone_before_anything_else_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = folder(dir.path());
    let now = Instant::now();
    folder.append(&[b"1\n"], now).unwrap();
    let current = folder.current.as_mut().unwrap();
    current.file.write_all(b"torn").unwrap();
    // A descriptor that cannot write stands for a disk that does not.
    current.file = File::open(&current.path).unwrap();
    let error = folder.append(&[b"2\n"], now).unwrap_err();
    assert!(!error.maybe_written);
    folder.append(&[b"3\n"], now).unwrap();
    assert_eq!(contents(dir.path()), ["1\n", "3\n"]);
}

#[test]
fn a_file_that_somebody_removed_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = folder(dir.path());
    let now = Instant::now();
    folder.append(&[b"1\n"], now).unwrap();
    fs::remove_dir_all(dir.path().join("telemetry")).unwrap();
    folder.append(&[b"2\n"], now).unwrap();
    assert_eq!(contents(dir.path()), ["2\n"]);
}
