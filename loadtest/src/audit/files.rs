//! Reads the file sink: every file below a folder, in the order of their names, one JSON object a
//! line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{Auditor, Found};

/// A line of the file sink, as far as the audit needs it.
#[derive(Deserialize)]
struct Line<'a> {
    device: Option<String>,
    #[serde(borrow, default, deserialize_with = "as_it_is")]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
}

/// The text of a member that is there, also where it is `null`.
fn as_it_is<'de, D: Deserializer<'de>>(member: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(member).map(Some)
}

/// The depth of folders: the sink's, and a stream's in it.
const DEPTH_MAX: u32 = 3;

pub(crate) fn read(folder: &Path, auditor: &mut dyn Auditor) -> Result<()> {
    let mut files = Vec::new();
    collect(folder, DEPTH_MAX, &mut files)?;
    ensure!(!files.is_empty(), "{} holds no files", folder.display());
    files.sort();
    for file in files {
        read_file(&file, auditor).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn read_file(file: &Path, auditor: &mut dyn Auditor) -> Result<()> {
    let reader = BufReader::new(File::open(file)?);
    for (place, line) in reader.split(b'\n').enumerate() {
        let taken = take(&line?, auditor);
        taken.with_context(|| format!("line {}", place + 1))?;
    }
    Ok(())
}

fn collect(folder: &Path, depth: u32, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        // Such as the sink's lock.
        let is_hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, files)?;
        } else if path.is_file() && !is_hidden {
            files.push(path);
        }
    }
    Ok(())
}

fn take(line: &[u8], auditor: &mut dyn Auditor) -> Result<()> {
    let line: Line = serde_json::from_slice(line).context("not one JSON object of a record")?;
    let payload = match (line.payload, line.payload_base64) {
        // The payload's own text, as it was sent.
        (Some(payload), _) => payload.get().as_bytes().to_vec(),
        (_, Some(base64)) => BASE64.decode(base64).context("payload_base64")?,
        _ => anyhow::bail!("no payload"),
    };
    auditor.take(&Found {
        device: line.device.as_deref().unwrap_or_default(),
        payload: &payload,
    });
    Ok(())
}
