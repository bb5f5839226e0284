//! KPL aggregates as AWS's own library for Python reads them (`tests/clients/deaggregate.py`).

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

use crate::tools::tools;

/// One reading out of an aggregate.
#[derive(Debug, PartialEq, Eq)]
pub struct UserRecord {
    pub partition_key: String,
    pub hash_key: u128,
    pub id: String,
    pub data: Vec<u8>,
}

/// Takes each Kinesis record's data apart. `None` stands for one that is no aggregate.
pub fn deaggregate(records: &[Vec<u8>]) -> Vec<Option<Vec<UserRecord>>> {
    let mut python = Command::new(tools().join("venv/bin/python"))
        .arg(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients/deaggregate.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`make tools` installs AWS's library in target/tools/venv, or $TOOLS/venv");
    let mut stdin = python.stdin.take().expect("piped");
    let lines: String = records
        .iter()
        .map(|data| BASE64.encode(data) + "\n")
        .collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = python.wait_with_output().expect("it ends");
    writer.join().expect("no panic").expect("it reads");
    assert!(output.status.success());
    let read: Vec<_> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(user_records)
        .collect();
    assert_eq!(read.len(), records.len());
    read
}

fn user_records(line: &str) -> Option<Vec<UserRecord>> {
    let records: Vec<Value> = serde_json::from_str(line).expect("a list");
    records.iter().map(user_record).collect()
}

fn user_record(record: &Value) -> Option<UserRecord> {
    let text = |field: &str| record[field].as_str().map(str::to_owned);
    Some(UserRecord {
        partition_key: text("partition_key")?,
        hash_key: text("hash_key")
            .expect("a hash key")
            .parse()
            .expect("a number"),
        id: text("id").expect("an id"),
        data: BASE64.decode(text("data").expect("data")).expect("base64"),
    })
}
