//! The files of one stream: `STREAM-20261123T091500.123Z-000001.jsonl`, names that sort as they
//! were written.
//!
//! The writer thread owns it. A file only ever ends with a whole line that is on disk, or with the
//! lines of the current append. When an append fails the file is cut back and left alone, the next
//! one goes to a new file: after a failed fdatasync the content of its descriptor is unknown. Until
//! the cut succeeds nothing else is appended. At start the newest file loses the line that a crash
//! tore. Files with other names are never touched.

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::durable::{create_durably, new_file, sync_folder, write_all};

/// Says when a file is finished and the next one begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    pub bytes_max: u64,
    pub age_max: Duration,
}

/// Tells why an append failed, and whether a part of it may still be in the file.
#[derive(Debug)]
pub(super) struct AppendError {
    pub error: io::Error,
    pub maybe_written: bool,
}

/// A stream's folder, and the file in it that is appended to.
pub(super) struct Folder {
    path: PathBuf,
    stream: String,
    rotation: Rotation,
    current: Option<Current>,
    /// A file that still has to be cut back to so many bytes.
    cut_back: Option<(PathBuf, u64)>,
    /// The newest name, so that the next one sorts behind it even when the clock was set back.
    newest: Option<Name>,
}

/// The file that is appended to.
struct Current {
    file: File,
    path: PathBuf,
    bytes: u64,
    opened_at: Instant,
}

/// Order of the files: the part of a file's name behind the stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    time: String,
    number: u64,
}

impl Folder {
    pub(crate) fn new(dir: &Path, stream: &str, rotation: Rotation) -> Self {
        let (path, stream) = (dir.join(stream), stream.to_owned());
        Self {
            path,
            stream,
            rotation,
            current: None,
            cut_back: None,
            newest: None,
        }
    }

    /// Creates the folder if need be, and mends the newest file's torn tail.
    pub(crate) fn prepare(&mut self) -> io::Result<()> {
        create_durably(&self.path)?;
        self.newest = self.newest_name()?;
        match &self.newest {
            Some(name) => mend(&self.path.join(name.file_name(&self.stream))),
            None => Ok(()),
        }
    }

    /// Appends whole lines and returns when they are on disk.
    pub(crate) fn append(&mut self, lines: &[&[u8]], now: Instant) -> Result<(), AppendError> {
        let mut current = self.ready(now).map_err(|error| AppendError {
            error,
            maybe_written: false,
        })?;
        let Err(error) = current.append(lines) else {
            self.current = Some(current);
            return Ok(());
        };
        self.cut_back = Some((current.path, current.bytes));
        Err(AppendError {
            error,
            maybe_written: self.finish_cut().is_err(),
        })
    }

    /// Returns the file to append to; a new one when the last is large, old, or has been removed.
    fn ready(&mut self, now: Instant) -> io::Result<Current> {
        self.finish_cut()?;
        debug_assert!(
            self.cut_back.is_none(),
            "nothing is appended behind a torn line"
        );
        match self.current.take() {
            Some(current) if current.is_good(self.rotation, now) => Ok(current),
            _ => self.create(now),
        }
    }

    fn create(&mut self, opened_at: Instant) -> io::Result<Current> {
        create_durably(&self.path)?;
        let name = Name::after(self.newest.as_ref(), &utc_now());
        let path = self.path.join(name.file_name(&self.stream));
        self.newest = Some(name);
        let mut options = new_file();
        let file = options.append(true).create_new(true).open(&path)?;
        sync_folder(&self.path)?;
        Ok(Current {
            file,
            path,
            bytes: 0,
            opened_at,
        })
    }

    /// Removes the rest of a failed append, through a new descriptor.
    fn finish_cut(&mut self) -> io::Result<()> {
        let Some((path, bytes)) = &self.cut_back else {
            return Ok(());
        };
        let cut = match bytes {
            0 => fs::remove_file(path).and_then(|()| sync_folder(&self.path)),
            bytes => cut(path, *bytes),
        };
        match cut {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.cut_back = None;
                Ok(())
            }
        }
    }

    fn newest_name(&self) -> io::Result<Option<Name>> {
        let mut newest = None;
        for entry in fs::read_dir(&self.path)? {
            let name = entry?
                .file_name()
                .to_str()
                .and_then(|name| Name::parse(name, &self.stream));
            newest = newest.max(name);
        }
        Ok(newest)
    }
}

impl Current {
    /// Whether the file goes on: it is young and small, and its name is still there.
    fn is_good(&self, rotation: Rotation, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.opened_at);
        age < rotation.age_max
            && self.bytes < rotation.bytes_max
            && self.file.metadata().is_ok_and(|file| file.nlink() > 0)
    }

    /// Writes the lines and has them on disk. `bytes` counts only lines that are.
    fn append(&mut self, lines: &[&[u8]]) -> io::Result<()> {
        let mut slices: Vec<_> = lines.iter().map(|lines| IoSlice::new(lines)).collect();
        write_all(&mut slices, |rest| self.file.write_vectored(rest))?;
        self.file.sync_data()?;
        for lines in lines {
            self.bytes += lines.len() as u64;
        }
        Ok(())
    }
}

impl Name {
    fn after(newest: Option<&Self>, now: &str) -> Self {
        match newest {
            Some(newest) => Self {
                time: now.max(newest.time.as_str()).to_owned(),
                number: newest.number + 1,
            },
            None => Self {
                time: now.to_owned(),
                number: 1,
            },
        }
    }

    fn file_name(&self, stream: &str) -> String {
        format!("{stream}-{}-{:06}.jsonl", self.time, self.number)
    }

    fn parse(file_name: &str, stream: &str) -> Option<Self> {
        let name = file_name
            .strip_prefix(stream)?
            .strip_prefix('-')?
            .strip_suffix(".jsonl")?;
        let (time, number) = name.split_once('-')?;
        let name = Self {
            time: time.to_owned(),
            number: number.parse().ok()?,
        };
        let of_this_form = is_time(time) && name.file_name(stream) == file_name;
        of_this_form.then_some(name)
    }
}

/// Whether the text has the form of `20261123T091500.123Z`.
fn is_time(text: &str) -> bool {
    const FORM: &[u8] = b"00000000T000000.000Z";
    let fits = |(byte, form): (u8, &u8)| {
        if *form == b'0' {
            byte.is_ascii_digit()
        } else {
            byte == *form
        }
    };
    text.len() == FORM.len() && text.bytes().zip(FORM).all(fits)
}

fn utc_now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%S.%3fZ")
        .to_string()
}

fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(bytes)?;
    file.sync_all()
}

/// Cuts off the bytes behind the last line break.
fn mend(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let bytes = file.metadata()?.len();
    let whole_bytes = whole_lines(&mut file, bytes)?;
    if whole_bytes == bytes {
        return Ok(());
    }
    tracing::warn!(file = %path.display(), bytes = bytes - whole_bytes, "cut off a line that was not written whole");
    file.set_len(whole_bytes)?;
    file.sync_all()
}

/// Finds the length up to and with the last line break.
fn whole_lines(file: &mut File, bytes: u64) -> io::Result<u64> {
    let mut block = [0; 64 << 10];
    let mut end = bytes;
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let read = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(read)?;
        if let Some(at) = read.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests;
