//! A password in a file, read at start and again whenever it has changed.
//!
//! The file is small, so it is read every [`LOOK_INTERVAL`] and compared; that also sees a file
//! that was replaced by way of a link, as Kubernetes does. One that is of no use leaves the last
//! good password in force and is told once.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};

use super::super::SinkError;
use super::super::keyring::{Keyring, Secret};
use super::super::properties::{Properties, Property, fault, variable};
use crate::durable::warn_of_other_readers;

pub(super) const VARIABLE: &str = "FOREBAY_KAFKA_SASL_PASSWORD_FILE";

/// A changed password is in force within 5 s: this, and the time that it takes to read it.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Bound of a password: none is longer.
const BYTES_MAX: u64 = 64 << 10;

/// The file, and the password that it had when the sink was opened.
#[derive(Clone)]
pub(crate) struct PasswordFile {
    user: CString,
    path: PathBuf,
    password: CString,
}

impl PasswordFile {
    /// Reads the password. Clients get it from the keyring, as they get every later one.
    pub(super) fn open(file: &Property, properties: &Properties) -> Result<Self, SinkError> {
        debug_assert_eq!(variable(&file.name), VARIABLE);
        const USER: &str = "sasl.username";
        let Some(user) = properties.get(USER) else {
            return Err(fault(USER, &format!("must be set beside {VARIABLE}")));
        };
        let user = CString::new(user.value.as_str()).map_err(|_| fault(USER, "holds a NUL"))?;
        let path = PathBuf::from(&file.value);
        let password = read(&path).map_err(|why| file.fault(&why))?;
        warn_of_other_readers(VARIABLE, &path);
        Ok(Self {
            user,
            path,
            password,
        })
    }

    pub(super) fn secret(&self) -> Secret {
        self.secret_of(self.password.clone())
    }

    fn secret_of(&self, password: CString) -> Secret {
        Secret::Password {
            user: self.user.clone(),
            password,
        }
    }

    /// Looks at the file until it is dropped.
    pub(super) async fn keep(self, keyring: &Keyring, on_change: impl Fn(bool)) {
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_read = Ok(self.password.clone());
        loop {
            looks.tick().await;
            let path = self.path.clone();
            let looked = spawn_blocking(move || read(&path)).await;
            let read = looked.unwrap_or_else(|error| Err(error.to_string()));
            if read == last_read {
                continue;
            }
            on_change(read.is_ok());
            match &read {
                Ok(password) => self.put_in_force(password.clone(), keyring),
                Err(reason) => {
                    tracing::error!(
                        variable = VARIABLE,
                        reason,
                        "the last good password stays in force"
                    );
                }
            }
            last_read = read;
        }
    }

    fn put_in_force(&self, password: CString, keyring: &Keyring) {
        let taken = keyring.change(self.secret_of(password));
        debug_assert!(taken.is_ok(), "librdkafka takes every password");
        tracing::info!(
            variable = VARIABLE,
            "the password was read again: new connections log in with it"
        );
    }
}

/// Reads the password, one line with or without its end. The error says what is wrong with the
/// file.
fn read(path: &Path) -> Result<CString, String> {
    let wrong = |what: &str| format!("{} {what}", path.display());
    let mut text = String::new();
    let file = File::open(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    file.take(BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let password = line.strip_suffix('\r').unwrap_or(line);
    if text.len() as u64 > BYTES_MAX {
        return Err(wrong("is too large for a password"));
    }
    if password.is_empty() {
        return Err(wrong("is empty"));
    }
    if password.contains(['\n', '\r']) {
        return Err(wrong("has more than one line"));
    }
    CString::new(password).map_err(|_| wrong("holds a NUL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let read_of = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read(&path)
        };
        for file in [&b"hunter2"[..], b"hunter2\n", b"hunter2\r\n"] {
            assert_eq!(read_of(file).unwrap(), c"hunter2".to_owned());
        }
        assert_eq!(read_of(b" a b \n").unwrap(), c" a b ".to_owned());
        for (file, what) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"hunter2\nhunter3\n", "more than one line"),
            (b"hunt\0er2", "NUL"),
            (b"\xff\xfe", "cannot be read"),
            (&[b'x'; BYTES_MAX as usize + 1], "too large"),
        ] {
            let fault = read_of(file).unwrap_err();
            assert!(fault.contains(what), "{fault}");
            assert!(!fault.contains("hunter"), "{fault}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(read(&path).unwrap_err().contains("cannot be read"));
    }
}
