//! Reading a devices file, a line at a time: what it holds is never in memory as a whole.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use super::rule::{self, Fault};
use super::{Devices, LINE_BYTES_MAX};

const BUFFER_BYTES: usize = 128 * 1024;

/// The byte order mark in UTF-8, with which some editors begin a file.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Why a devices file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DevicesError {
    #[error("cannot read {}: {error}", file.display())]
    Unreadable { file: PathBuf, error: io::Error },
    #[error("cannot use {}: line {line}: {fault}", file.display())]
    Faulty {
        file: PathBuf,
        /// Number of the line, from 1.
        line: u32,
        fault: String,
    },
}

/// Reads a file.
pub fn read(file: &Path) -> Result<Devices, DevicesError> {
    let opened = File::open(file).map_err(|error| unreadable(file, error))?;
    read_from(&mut BufReader::with_capacity(BUFFER_BYTES, opened), file)
}

pub(super) fn unreadable(file: &Path, error: io::Error) -> DevicesError {
    DevicesError::Unreadable {
        file: file.to_owned(),
        error,
    }
}

/// Reads what a file would hold; errors name `file`.
pub fn read_text(text: &[u8], file: &Path) -> Result<Devices, DevicesError> {
    read_from(&mut &*text, file)
}

fn read_from(reader: &mut impl BufRead, file: &Path) -> Result<Devices, DevicesError> {
    let mut devices = Devices::default();
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        let mut limited = reader.by_ref().take(LINE_BYTES_MAX as u64 + 1);
        let read = limited.read_until(b'\n', &mut bytes);
        if read.map_err(|error| unreadable(file, error))? == 0 {
            break;
        }
        add_line(&mut devices, line, &bytes).map_err(|fault| DevicesError::Faulty {
            file: file.to_owned(),
            line,
            fault: fault.to_string(),
        })?;
    }
    Ok(devices)
}

fn add_line(devices: &mut Devices, line: u32, bytes: &[u8]) -> Result<(), Fault> {
    if bytes.len() > LINE_BYTES_MAX {
        let start = String::from_utf8_lossy(&bytes[..32]);
        let reason = format!("begins a line of more than {LINE_BYTES_MAX} bytes");
        return Err(Fault::new(&start, reason));
    }
    if line == 1 && bytes.starts_with(MARK) {
        let reason = "begins the file, a byte order mark: save it as UTF-8 without one";
        return Err(Fault::new("\u{feff}", reason));
    }
    match rule::parse(bytes)? {
        Some(rule) => devices.add(line, rule),
        None => Ok(()),
    }
}
