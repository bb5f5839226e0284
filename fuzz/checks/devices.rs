//! Any bytes in the place of a devices file.

use std::path::Path;

use forebay::internals::devices::{Change, DevicesError, Source, Verdict, edit, read_text};

/// The device that is shut out and let in.
const ID: &str = "press-7";

/// An error names a line of the file. A file that is good stays so when a device is shut out or let in; then the device has
/// one rule of its own, and nobody else another one; and it makes no difference to do so twice.
pub fn check(data: &[u8]) {
    let file = Path::new("devices");
    let before = match read_text(data, file) {
        Ok(devices) => devices,
        Err(DevicesError::Faulty { line, .. }) => {
            let lines = data.split_inclusive(|&byte| byte == b'\n').count();
            return assert!((1..=lines).contains(&(line as usize)));
        }
        Err(error) => panic!("it is in memory: {error}"),
    };
    for (change, denies) in [(Change::Deny, true), (Change::Allow, false)] {
        let edited = edit(data, ID, change);
        let after = read_text(&edited, file).expect("it was good");
        let (verdict, source) = after.verdict(ID);
        assert_eq!(verdict == Verdict::Denied, denies);
        assert!(matches!(source, Source::Exact { .. }));
        for other in ["press-8", "press-77", "a"] {
            assert_eq!(after.verdict(other).0, before.verdict(other).0);
        }
        assert_eq!(edit(&edited, ID, change), edited);
    }
}
