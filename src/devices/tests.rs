//! Tests of the devices file: what its lines mean, what is at fault in them, and that an edit
//! changes one device and nothing else.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Barrier;

use proptest::prelude::*;

use super::*;
use crate::record::DeviceId;

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn devices(text: impl AsRef<[u8]>) -> Devices {
    read_of(text.as_ref()).unwrap()
}

fn read_of(text: &[u8]) -> Result<Devices, DevicesError> {
    read_text(text, Path::new("devices"))
}

fn fault(text: impl AsRef<[u8]>) -> String {
    let error = read_of(text.as_ref()).expect_err("a fault").to_string();
    let fault = error.strip_prefix("cannot use devices: ");
    fault.expect("it names the file").to_owned()
}

fn allowed(devices: &Devices, id: &str) -> Settings {
    match devices.verdict(id).0 {
        Verdict::Allowed(settings) => settings,
        Verdict::Denied => panic!("{id} is denied"),
    }
}

fn is_denied(devices: &Devices, id: &str) -> bool {
    devices.verdict(id).0 == Verdict::Denied
}

fn fingerprint(text: &str) -> Fingerprint {
    Fingerprint::parse(text).unwrap()
}

#[test]
fn an_exact_id_wins_over_every_glob_and_among_globs_the_first_one() {
    let devices = devices(
        "# who may speak\n\
         allow plant-*  rate=5/20 bytes=64KiB/256KiB streams=alarms,telemetry # the plant\n\
         deny plant-7?\n\
         \n\
         deny plant-9\r\n\
         deny press-*\n\
         allow press-7 rate=0/0\n\
         \tdefault   deny#nobody else",
    );
    let plant = allowed(&devices, "plant-70");
    let quota = |rate, burst| Some(Quota { rate, burst });
    assert_eq!(plant.requests, quota(5.0, 20));
    assert_eq!(plant.bytes, quota(65_536.0, 262_144));
    assert_eq!(
        plant.streams.as_deref(),
        Some(&["alarms".into(), "telemetry".into()][..])
    );
    assert!(is_denied(&devices, "plant-9"));
    assert!(is_denied(&devices, "press-8"));
    assert_eq!(allowed(&devices, "press-7").requests, quota(0.0, 0));
    assert!(is_denied(&devices, "other"));
    let source = |id| devices.verdict(id).1;
    assert_eq!(source("plant-9"), Source::Exact { line: 5 });
    assert_eq!(source("plant-70"), Source::Glob { line: 2 });
    assert_eq!(source("other"), Source::Default { line: 8 });
    let (exact, globs, pins) = (2, 3, 0);
    assert_eq!(devices.counts(), Counts { exact, globs, pins });
}

#[test]
fn nobody_is_denied_whom_the_file_does_not_name() {
    for text in ["", "\n", "# deny everybody", "default allow", "deny other"] {
        let devices = devices(text);
        assert!(allowed(&devices, "plc-1").are_silent(), "{text}");
        assert!(!devices.has_pins());
    }
}

#[test]
fn a_pin_stands_for_a_device_that_is_looked_up_like_any_other() {
    let upper = DIGEST.to_ascii_uppercase();
    let with_colons: Vec<&str> = (0..32).map(|byte| &upper[2 * byte..2 * byte + 2]).collect();
    for digits in [DIGEST, &upper, &with_colons.join(":")] {
        let devices = devices(format!(
            "pin sha256:{digits} as=press-7 rate=1/2\nallow press-7 rate=5/20 streams=alarms\n"
        ));
        let certificate = fingerprint(DIGEST);
        let pin = devices.pin(&certificate).unwrap();
        assert_eq!((pin.id, pin.line), ("press-7", 1));
        let Verdict::Allowed(settings) = devices.verdict_of(&certificate, pin.id) else {
            panic!("it is denied");
        };
        // The pin is nearer to the connection than the rule of its id.
        assert_eq!(settings.requests.unwrap().burst, 2);
        assert!(settings.streams.is_some());
        assert_eq!(devices.pins_of("press-7"), [certificate]);
        assert_eq!(devices.pin(&Fingerprint([7; 32])), None);
    }
    let denied = devices(format!("pin sha256:{DIGEST} as=press-7\ndeny press-*\n"));
    let verdict = denied.verdict_of(&fingerprint(DIGEST), "press-7");
    assert_eq!(verdict, Verdict::Denied);
}

#[test]
fn a_fault_names_the_line_and_the_word() {
    let pin = format!("pin sha256:{DIGEST} as=a\n");
    for (text, says) in [
        (
            "\npermit a",
            "line 2: \"permit\" is none of allow, deny, pin, default",
        ),
        ("allow", "line 1: \"allow\" needs a device id"),
        ("deny # a", "line 1: \"deny\" needs a device id"),
        ("allow a/ä", "line 1: \"a/ä\" is no device id"),
        ("deny [a-z]*", "line 1: \"[a-z]*\" is no device id"),
        (
            "deny a rate=5/20",
            "line 1: \"rate=5/20\" says more than deny can",
        ),
        (
            "default deny rate=5/20",
            "line 1: \"rate=5/20\" says more than default can",
        ),
        ("default", "line 1: \"default\" needs allow or deny"),
        ("default maybe", "line 1: \"maybe\" is neither"),
        ("allow a rat=5/20", "line 1: \"rat=5/20\" is no setting"),
        ("allow a b", "line 1: \"b\" is no setting"),
        ("allow a rate=5", "line 1: \"rate=5\" is not rate/burst"),
        (
            "allow a rate=5/0",
            "line 1: \"rate=5/0\" has a rate or burst that is a burst of 0",
        ),
        (
            "allow a rate=x/5",
            "line 1: \"rate=x/5\" has a rate or burst that is not a number",
        ),
        (
            "allow a bytes=64/256",
            "line 1: \"bytes=64/256\" has a rate or burst that has no unit",
        ),
        (
            "allow a rate=1/1 rate=2/2",
            "line 1: \"rate=2/2\" says rate a second time",
        ),
        (
            "allow a streams=",
            "line 1: \"streams=\" has a stream name that is not",
        ),
        (
            "allow a streams=x,x",
            "line 1: \"streams=x,x\" names a stream twice",
        ),
        (
            "allow a\n#\ndeny a",
            "line 3: \"a\" stands here again: the device has a rule in line 1",
        ),
        (
            "default deny\ndefault deny",
            "line 2: \"default\" stands here again: there is a default in line 1",
        ),
        ("pin", "line 1: \"pin\" needs sha256:"),
        ("pin 9f86d0 as=a", "line 1: \"9f86d0\" is no fingerprint"),
        (&format!("pin sha256:{DIGEST}"), "needs as= and a device id"),
        (
            &format!("pin sha256:{DIGEST} a"),
            "line 1: \"a\" is not as= and a device id",
        ),
        (
            &format!("pin sha256:{DIGEST} as=a*"),
            "line 1: \"as=a*\" is not as= and a device id",
        ),
        (&format!("pin sha256:{DIGEST}0 as=a"), "is no fingerprint"),
        (
            &format!("{pin}pin sha256:{} as=b", DIGEST.to_uppercase()),
            "the certificate has a pin in line 1",
        ),
        (
            "allow \"a\u{1b}\"",
            "line 1: \"\\\"a\\u{1b}\\\"\" is no device id",
        ),
    ] {
        let fault = fault(text);
        assert!(fault.contains(says), "{text:?}: {fault}");
    }
    assert!(fault(b"allow a\xff").contains("is no UTF-8 text"));
    assert!(read_of(b"allow a # \xff").is_ok());
    for text in ["\u{feff}deny a", "\u{feff}# comment\ndeny a"] {
        let fault = fault(text);
        assert!(
            fault.contains("line 1: \"\\u{feff}\" begins the file, a byte order mark"),
            "{fault}"
        );
    }
    let missing = read(Path::new("/nowhere/devices")).unwrap_err().to_string();
    assert!(
        missing.starts_with("cannot read /nowhere/devices: "),
        "{missing}"
    );
}

#[test]
fn globs_and_lines_have_bounds() {
    let globs: String = (0..=GLOBS_MAX).map(|n| format!("deny {n}*\n")).collect();
    let fault = fault(globs);
    assert!(
        fault.contains("is one too many: 10000 globs at most"),
        "{fault}"
    );
    let line = |bytes| format!("#{}\n", "x".repeat(bytes - 2));
    assert!(read_of(line(LINE_BYTES_MAX).as_bytes()).is_ok());
    let fault = self::fault(line(LINE_BYTES_MAX + 1));
    assert!(fault.contains("line 1: \"#xxx"), "{fault}");
}

#[test]
fn who_is_pinned_no_more_is_noticed() {
    let other = DIGEST.replace('9', "8");
    let before = devices(format!(
        "pin sha256:{DIGEST} as=a\npin sha256:{other} as=b\nallow c"
    ));
    let both = format!("pin sha256:{other} as=b\npin sha256:{DIGEST} as=a rate=1/1\ndeny c");
    for (text, has_unpinned) in [
        (both.clone(), false),
        (both.replace("as=a", "as=c"), true),
        (format!("pin sha256:{DIGEST} as=a"), true),
        (String::new(), true),
    ] {
        let mut after = devices(&text);
        let now = std::time::Instant::now();
        after.succeed(&before, now);
        assert_eq!(after.edition(), before.edition() + 1);
        assert_eq!(after.unpinned_at() == Some(now), has_unpinned, "{text}");
        let minute = std::time::Duration::from_secs(60);
        assert_eq!(after.has_unpinned_within(minute, now), has_unpinned);
        assert!(!after.has_unpinned_within(minute, now + minute));
        // The next one is no reason to forget it.
        let mut last = devices(&text);
        last.succeed(&after, now + minute);
        assert_eq!(last.unpinned_at(), after.unpinned_at());
    }
}

fn edited(text: &str, id: &str, change: Change) -> String {
    String::from_utf8(edit(text.as_bytes(), id, change)).unwrap()
}

#[test]
fn a_rule_is_turned_round_where_it_stands() {
    use Change::{Allow, Deny};
    for (text, change, says) in [
        ("", Deny, "deny a\n"),
        ("# none", Deny, "# none\ndeny a\n"),
        ("deny b\r\n", Allow, "deny b\r\nallow a\r\n"),
        ("deny b", Deny, "deny b\ndeny a\n"),
        ("allow a\ndeny b\n", Deny, "deny  a\ndeny b\n"),
        ("deny  a\n", Allow, "allow a\n"),
        ("deny a\n", Allow, "allow a\n"),
        ("deny a\n", Deny, "deny a\n"),
        ("allow a rate=1/2\n", Allow, "allow a rate=1/2\n"),
        (
            "allow a  rate=1/2 streams=x  # gold\ndefault deny",
            Deny,
            "deny  a  # was: rate=1/2 streams=x  # gold\ndefault deny",
        ),
        (
            "deny  a  # was: rate=1/2 streams=x  # gold\ndefault deny",
            Allow,
            "allow a  rate=1/2 streams=x  # gold\ndefault deny",
        ),
        (
            "deny a # was: it stolen?\n",
            Allow,
            "allow a # was: it stolen?\n",
        ),
        // A glob is another rule, and so is a longer id.
        ("deny a*\nallow ab\n", Deny, "deny a*\nallow ab\ndeny a\n"),
        // Two are a fault: one is left, with what was said about both.
        (
            "deny a # one\ndeny b\nallow a rate=1/2 # two\n",
            Deny,
            "# one\ndeny b\ndeny  a # was: rate=1/2 # two\n",
        ),
        ("deny a\nallow a\n", Allow, "allow a\n"),
        // Settings on `deny`, which are a fault, become a comment.
        ("deny a rate=1/2\n", Deny, "deny a # was: rate=1/2\n"),
    ] {
        assert_eq!(edited(text, "a", change), says, "{text}");
    }
}

/// A line of a file that can be read, in which `id` has no exact rule.
fn other_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "#[ -~]{0,12}",
        "[ \t]{0,2}(allow|deny) [b-d]{1,3}\\*[ \t]{0,2}(#[ -~]{0,8})?",
        "allow [b-d]{1,2}\\?[ \t]{1,2}rate=[1-9]/[1-9]",
    ]
}

/// The device's own line.
fn own_line() -> impl Strategy<Value = String> {
    (
        "[ \t]{0,2}",
        prop_oneof![
            "deny[ \t]{1,3}a[ \t]{0,2}",
            "allow[ \t]{1,3}a",
            "allow[ \t]{1,3}a[ \t]{1,2}rate=[1-9]/[1-9][ \t]{0,2}",
            "allow[ \t]{1,3}a[ \t]{1,2}streams=x,y[ \t]bytes=1KiB/2KiB",
        ],
        "(#( was: )?[ -~]{0,8})?",
    )
        .prop_map(|(indent, rule, comment)| indent + &rule + &comment)
}

proptest! {
    #[test]
    fn an_edit_changes_one_device_and_nothing_else(
        mut lines in prop::collection::vec(other_line(), 0..8),
        own in prop::option::of((any::<prop::sample::Index>(), own_line())),
        end in prop_oneof![Just("\n"), Just("\r\n")],
        is_ended in any::<bool>(),
        denies in any::<bool>(),
    ) {
        let others = lines.clone();
        if let Some((place, own)) = &own {
            lines.insert(place.index(lines.len() + 1), own.clone());
        }
        let mut text = lines.join(end);
        if is_ended && !lines.is_empty() {
            text += end;
        }
        let change = if denies { Change::Deny } else { Change::Allow };
        let before = devices(&text);
        let after_text = edited(&text, "a", change);
        let after = devices(&after_text);
        prop_assert_eq!(is_denied(&after, "a"), denies);
        let is_exact = matches!(after.verdict("a").1, Source::Exact { .. });
        prop_assert!(is_exact);
        prop_assert_eq!(after.counts().exact, 1);
        prop_assert_eq!(after.counts().globs, before.counts().globs);
        prop_assert_eq!(edited(&after_text, "a", change), after_text.clone(), "once is enough");
        let left: Vec<&str> = after_text.lines().filter(|line| OwnLine::is(line)).collect();
        prop_assert_eq!(left.len(), 1);
        let mut rest: Vec<&str> = after_text.lines().filter(|line| !OwnLine::is(line)).collect();
        rest.resize(others.len().max(rest.len()), "");
        prop_assert_eq!(rest, others.iter().map(|line| line.trim_end_matches('\r')).collect::<Vec<_>>());
        if own.is_some() && is_denied(&before, "a") != denies {
            // Turned round twice, nothing is lost: neither settings nor comments.
            let back = if denies { Change::Allow } else { Change::Deny };
            let again = edited(&after_text, "a", back);
            let twice = devices(&again);
            prop_assert_eq!(twice.verdict("a"), before.verdict("a"));
            if denies {
                prop_assert_eq!(again, text);
            }
        }
    }

    /// The table says what a walk through the lines would.
    #[test]
    fn a_table_is_what_its_lines_say(
        rules in prop::collection::vec(("[a-c]{1,2}[*?]?", any::<bool>(), prop::option::of(1..9_u64)), 0..24),
        asked in prop::collection::vec("[a-c]{1,3}", 1..8),
    ) {
        let mut exact = HashMap::new();
        let mut globs = Vec::new();
        let mut text = String::new();
        for (name, denies, burst) in rules {
            if exact.contains_key(&name) {
                continue;
            }
            let burst = burst.filter(|_| !denies);
            let keyword = if denies { "deny" } else { "allow" };
            text += &format!("{keyword} {name}");
            if let Some(burst) = burst {
                text += &format!(" rate=1/{burst}");
            }
            text += "\n";
            if name.ends_with(['*', '?']) {
                globs.push((wildmatch::WildMatch::new(&name), (denies, burst)));
            } else {
                exact.insert(name, (denies, burst));
            }
        }
        let table = devices(&text);
        for id in &asked {
            let glob = || globs.iter().find(|(glob, _)| glob.matches(id)).map(|(_, rule)| *rule);
            let expected = exact.get(id).copied().or_else(glob).unwrap_or((false, None));
            let found = match table.verdict(id).0 {
                Verdict::Denied => (true, None),
                Verdict::Allowed(settings) => (false, settings.requests.map(|quota| quota.burst)),
            };
            prop_assert_eq!(found, expected, "{} in {}", id, text);
        }
    }

    #[test]
    fn garbage_is_a_fault_and_never_a_panic(text in prop::collection::vec(any::<u8>(), 0..200), lines in "(allow|deny|pin|default|[ -~]{0,9}|[ \t\r\n#=/,*])*") {
        let _ = read_of(&text);
        let _ = read_of(lines.as_bytes());
        let _ = edit(&text, "a", Change::Deny);
        let _ = edit(lines.as_bytes(), "a", Change::Allow);
    }
}

/// A line that is an exact rule of the device `a`.
struct OwnLine;

impl OwnLine {
    fn is(line: &str) -> bool {
        let said = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = said.split_ascii_whitespace().collect();
        matches!(words[..], ["allow" | "deny", "a", ..])
    }
}

fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

/// Edits that meet each other lose nothing, and a reader never finds half a file.
#[test]
fn edits_at_the_same_time_wait_for_each_other() {
    const THREADS: usize = 8;
    const EDITS: usize = 6;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("devices");
    std::fs::write(&file, "# mine\ndefault allow\n").unwrap();
    let start = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (start, file) = (&start, &file);
            scope.spawn(move || {
                start.wait();
                for edit in 0..EDITS {
                    let id = id(&format!("{thread}-{edit}"));
                    let edited = rewrite(file, &id, Change::Deny).unwrap();
                    assert_eq!(edited, Edited::Changed);
                    assert!(is_denied(&read(file).unwrap(), id.as_str()));
                }
            });
        }
    });
    let devices = read(&file).unwrap();
    assert_eq!(devices.counts().exact, THREADS * EDITS);
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# mine\ndefault allow\n"), "{text}");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "nothing is left beside the file");
}

#[test]
fn an_edited_file_is_what_it_was_but_for_its_text() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("devices"), dir.path().join("link"));
    std::fs::write(&file, "deny b\n").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o604)).unwrap();
    std::os::unix::fs::symlink("devices", &link).unwrap();
    let edited = |change| rewrite(&link, &id("a"), change).unwrap();
    assert_eq!(edited(Change::Deny), Edited::Changed);
    assert_eq!(edited(Change::Deny), Edited::Unchanged);
    assert!(link.is_symlink());
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o604);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "deny b\ndeny a\n");
}

/// An operator's slip: what is no file is not replaced by one.
#[test]
fn a_pipe_is_not_replaced() {
    use std::os::unix::fs::FileTypeExt;
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("devices");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let writer = pipe.clone();
    // Whoever reads it finds its end; where nobody does, the thread is left.
    std::thread::spawn(move || std::fs::OpenOptions::new().write(true).open(writer));
    let error = rewrite(&pipe, &id("a"), Change::Deny).unwrap_err();
    assert!(matches!(error, EditError::Irregular { .. }), "{error}");
    assert!(std::fs::metadata(&pipe).unwrap().file_type().is_fifo());
    let folder = rewrite(dir.path(), &id("a"), Change::Deny).unwrap_err();
    assert!(matches!(folder, EditError::Irregular { .. }), "{folder}");
}

#[test]
fn a_faulty_file_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("devices");
    let text = "deny b\npermit c\n";
    std::fs::write(&file, text).unwrap();
    let error = rewrite(&file, &id("a"), Change::Deny).unwrap_err();
    assert!(matches!(error, EditError::Devices(_)), "{error}");
    assert!(error.to_string().contains("line 2: \"permit\""), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
    let missing = rewrite(&dir.path().join("none"), &id("a"), Change::Deny);
    assert!(missing.unwrap_err().to_string().starts_with("cannot read"));
}
