//! Reads the file sink: every file below a folder, in the order of their names, one JSON object a
//! line.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::value::RawValue;

use super::{Comparison, Found};

/// Depth of folders: the sink's, and a stream's in it.
const DEPTH_MAX: u32 = 3;

pub fn read(folder: &Path, comparison: &mut Comparison) -> Result<()> {
    let mut files = Vec::new();
    collect(folder, DEPTH_MAX, &mut files)?;
    ensure!(!files.is_empty(), "{} holds no files", folder.display());
    files.sort();
    for file in files {
        let reader = File::open(&file).with_context(|| file.display().to_string())?;
        for (number, line) in BufReader::new(reader).split(b'\n').enumerate() {
            let line = line.with_context(|| file.display().to_string())?;
            take(&line, comparison)
                .with_context(|| format!("{}:{}", file.display(), number + 1))?;
        }
    }
    Ok(())
}

fn collect(folder: &Path, depth: u32, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        // Such as the sink's lock.
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path.is_dir() && depth > 0 {
            collect(&path, depth - 1, files)?;
        } else if path.is_file() && !is_hidden {
            files.push(path);
        }
    }
    Ok(())
}

fn take(line: &[u8], comparison: &mut Comparison) -> Result<()> {
    let fields: HashMap<&str, &RawValue> =
        serde_json::from_slice(line).context("not one JSON object")?;
    let text = |name: &str| {
        fields
            .get(name)
            .and_then(|value| serde_json::from_str::<String>(value.get()).ok())
    };
    let device = text("device").context("no device")?;
    let payload = match (fields.get("payload"), text("payload_base64")) {
        // The payload's own text, as it was sent.
        (Some(payload), _) => payload.get().as_bytes().to_vec(),
        (_, Some(base64)) => BASE64.decode(base64).context("payload_base64")?,
        _ => anyhow::bail!("no payload"),
    };
    comparison.take(&Found {
        device: &device,
        payload: &payload,
    });
    Ok(())
}
