//! Files that pages and comments name exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Folders of pages and comments, and of the files that they name.
const FOLDERS: [&str; 9] = [
    "src", "tests", "docs", "deploy", "certs", "benches", "fuzz", "loadtest", "scripts",
];

/// Made by whoever runs something, and so not always there.
const MADE: [&str; 3] = ["certs/dev", "certs/my", "certs/fleet"];

#[test]
fn files_that_are_named_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut faults = BTreeSet::new();
    let mut seen = 0;
    for file in texts(root) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        // A crate of its own names its files from its own root.
        let own = FOLDERS
            .map(|folder| root.join(folder))
            .into_iter()
            .find(|folder| file.starts_with(folder));
        let own = own.filter(|folder| folder.join("Cargo.toml").exists());
        let is_page = file.extension().is_some_and(|ending| ending == "md");
        for line in text.lines().filter(|line| is_page || line.contains("//")) {
            let comment = if is_page {
                line
            } else {
                line.split_once("//").map_or("", |(_, comment)| comment)
            };
            for name in comment
                .split('`')
                .skip(1)
                .step_by(2)
                .filter(|name| is_path(name))
            {
                seen += 1;
                let name = name.split("::").next().unwrap_or_default();
                let is_own = own.as_ref().is_some_and(|own| own.join(name).exists());
                if !is_own && !root.join(name).exists() && !is_pattern(root, name) {
                    faults.insert(format!(
                        "{}: {name}",
                        file.strip_prefix(root).unwrap_or(&file).display()
                    ));
                }
            }
        }
    }
    assert!(seen > 50, "{seen} names of files");
    assert!(
        faults.is_empty(),
        "not there:\n{}",
        Vec::from_iter(faults).join("\n")
    );
}

/// `tests/house.rs`, `docs/`: begins in one of the folders.
fn is_path(name: &str) -> bool {
    let begins = name
        .split_once('/')
        .is_some_and(|(folder, _)| FOLDERS.contains(&folder));
    let is_plain =
        !name.contains(|letter: char| letter.is_whitespace() || "<>$…={".contains(letter));
    begins && is_plain && !MADE.iter().any(|made| name.starts_with(made))
}

/// `tests/loom_*`: something begins so.
fn is_pattern(root: &Path, name: &str) -> bool {
    let Some((before, _)) = name.split_once('*') else {
        return false;
    };
    let path = root.join(before);
    let (folder, start) = (path.parent(), path.file_name());
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok());
    let start = start
        .map(|start| start.to_string_lossy().into_owned())
        .unwrap_or_default();
    entries.is_some_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with(&start))
        })
    })
}

/// Pages, and sources in Rust, but what is made.
fn texts(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = FOLDERS.iter().map(|folder| root.join(folder)).collect();
    for page in fs::read_dir(root).expect("the root").flatten() {
        found.extend(is_text(&page.path()).then(|| page.path()));
    }
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_made = ["target", "node_modules", "corpus"]
                .iter()
                .any(|made| path.ends_with(made));
            if path.is_dir() && !is_made {
                open.push(path);
            } else if is_text(&path) {
                found.push(path);
            }
        }
    }
    found
}

fn is_text(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending == "md" || ending == "rs")
}
