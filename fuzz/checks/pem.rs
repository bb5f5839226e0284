//! Any bytes in the place of a PEM file.

use forebay::internals::pem::{Kind, sections};

/// Every BEGIN is a section of the answer, or the answer is an error that names a line of the file; a section stands where
/// it says. What is read once more is the same.
pub fn check(data: &[u8]) {
    let lines = data
        .iter()
        .filter(|byte| matches!(byte, b'\n' | b'\r'))
        .count()
        + 1;
    let sections = match sections(data) {
        Ok(sections) => sections,
        Err(error) => return assert!((1..=lines).contains(&error.line), "{error}"),
    };
    let begins = data
        .windows(11)
        .filter(|part| *part == b"-----BEGIN ")
        .count();
    assert_eq!(sections.len(), begins);
    let mut last = 0;
    for section in &sections {
        // A section has its END and its BEGIN in different lines, and may share one with the next.
        assert!(last < section.line && section.line <= lines);
        last = section.line;
        assert!(section.kind != Kind::EncryptedKey);
    }
}
