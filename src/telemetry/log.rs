//! Logs: structured lines on stderr, text for people and JSON for machines.
//!
//! `cli` starts it once, before anything else runs; the admin address changes its filter. Every room logs by `tracing`'s macros; no
//! payload, head or key is ever a field.
//!
//! Invariant: one event is one line, and nothing that a client or a file brought can break it,
//! colour it or move a terminal's cursor: control characters arrive as `\n` or `\u001b`.
//! tracing-subscriber itself leaves line breaks as they are in text, and C1 controls in JSON. For
//! the same reason the text has no colours. Failure: a filter that cannot be read, or that would
//! silence everything by a typing error, is [`LogError`].

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::subscriber::SetGlobalDefaultError;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::reload::Handle;

use crate::config::LogConfig;

/// The log cannot start, or its filter cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("it is empty; write a level, like info, or off")]
    Empty,
    /// tracing-subscriber would take it for a module, and log nothing else.
    #[error(
        "`{0}` is no level: write off, error, warn, info, debug or trace, or a module with its level, like forebay=debug"
    )]
    NotALevel(String),
    #[error("{0}; write it like info or warn,forebay=debug")]
    Invalid(#[from] ParseError),
    #[error("logging has not been started")]
    NotStarted,
    #[error("the filter cannot be changed: {0}")]
    NotChanged(String),
    #[error("logging has been started before")]
    Started(#[from] SetGlobalDefaultError),
}

/// Puts another filter in force.
type Refilter = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// The log of the process, once it is started.
struct Started {
    refilter: Refilter,
    /// The filter in force, as it was written.
    filter: Mutex<String>,
}

static STARTED: OnceLock<Started> = OnceLock::new();

/// Starts logging, once a process.
pub(crate) fn start(config: &LogConfig) -> Result<(), LogError> {
    let filter = parse_filter(&config.filter)?;
    let (subscriber, refilter) = subscriber(filter, config.json, io::stderr);
    tracing::subscriber::set_global_default(subscriber)?;
    let started = Started {
        refilter,
        filter: Mutex::new(config.filter.clone()),
    };
    assert!(STARTED.set(started).is_ok(), "the default is set once");
    Ok(())
}

/// The filter in force.
pub(crate) fn filter() -> String {
    match STARTED.get() {
        Some(started) => lock(&started.filter).clone(),
        None => "off".into(),
    }
}

/// Puts another filter in force, until it is changed again or the process ends.
pub(crate) fn change_filter(filter: &str) -> Result<(), LogError> {
    let parsed = parse_filter(filter)?;
    let started = STARTED.get().ok_or(LogError::NotStarted)?;
    let mut current = lock(&started.filter);
    // Told by the filter that is there, and by the next one: either may be silent.
    tracing::warn!(
        from = *current,
        to = filter,
        "the filter of the log is changed"
    );
    (started.refilter)(parsed).map_err(LogError::NotChanged)?;
    tracing::warn!(
        from = *current,
        to = filter,
        "the filter of the log was changed"
    );
    *current = filter.to_owned();
    Ok(())
}

fn lock(filter: &Mutex<String>) -> MutexGuard<'_, String> {
    filter.lock().unwrap_or_else(PoisonError::into_inner)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LogError> {
    let mut is_empty = true;
    for directive in filter.split(',').map(str::trim) {
        if is_typo(directive) {
            return Err(LogError::NotALevel(directive.to_owned()));
        }
        is_empty &= directive.is_empty();
    }
    if is_empty {
        return Err(LogError::Empty);
    }
    Ok(EnvFilter::builder().parse(filter)?)
}

/// Whether a directive is neither a level nor has one.
fn is_typo(directive: &str) -> bool {
    // Braces and brackets belong to span filters, which may hold commas.
    let is_word = !directive.contains(['=', '[', ']', '{', '}']);
    is_word && !directive.is_empty() && directive.parse::<LevelFilter>().is_err()
}

type Subscriber = Box<dyn tracing::Subscriber + Send + Sync>;

/// Makes what writes the log, and what changes its filter.
fn subscriber<M>(filter: EnvFilter, json: bool, to: M) -> (Subscriber, Refilter)
where
    M: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(OneLine(to));
    if json {
        let builder = builder.json().flatten_event(true).with_filter_reloading();
        let refilter = refilter(builder.reload_handle());
        (Box::new(builder.finish()), refilter)
    } else {
        let builder = builder.with_filter_reloading();
        let refilter = refilter(builder.reload_handle());
        (Box::new(builder.finish()), refilter)
    }
}

fn refilter<S: 'static>(handle: Handle<EnvFilter, S>) -> Refilter {
    Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()))
}

/// Writes each event as one line. tracing-subscriber hands an event over as a whole, in one write.
struct OneLine<T>(T);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for OneLine<M> {
    type Writer = OneLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        self.0.write_all(one_line(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The event with its control characters escaped, all but the line break at its end. JSON stays
/// JSON.
pub(super) fn one_line(event: &str) -> Cow<'_, str> {
    let body = event.strip_suffix('\n').unwrap_or(event);
    if !body.contains(char::is_control) {
        return event.into();
    }
    let mut line = String::with_capacity(event.len() + 16);
    for character in body.chars() {
        push_escaped(&mut line, character);
    }
    line.push('\n');
    line.into()
}

fn push_escaped(line: &mut String, character: char) {
    match character {
        '\n' => line.push_str("\\n"),
        '\r' => line.push_str("\\r"),
        '\t' => line.push_str("\\t"),
        // Writing to a String cannot fail.
        control if control.is_control() => drop(write!(line, "\\u{:04x}", control as u32)),
        other => line.push(other),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(json: bool, log: impl FnOnce()) -> String {
        let memory = Memory::default();
        let writer = memory.clone();
        let filter = parse_filter("info").unwrap();
        let (subscriber, _) = subscriber(filter, json, move || writer.clone());
        tracing::subscriber::with_default(subscriber, log);
        let bytes = memory.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// All of C0, DEL and C1, and what an attacker would write.
    fn hostile() -> String {
        let controls: String = (0..0xa0)
            .filter_map(char::from_u32)
            .filter(|c| c.is_control())
            .collect();
        format!("x\n2026-01-01 INFO forged\r\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31m{controls}y")
    }

    /// Raw, also by Debug: some types' Debug writes what they hold.
    struct Raw(String);

    impl std::fmt::Debug for Raw {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(&self.0)
        }
    }

    fn log_hostile() {
        let (text, raw) = (hostile(), Raw(hostile()));
        let _span = tracing::info_span!("span", text).entered();
        tracing::info!(text, shown = %text, debugged = ?text, ?raw, "{text}");
    }

    #[test]
    fn nothing_breaks_a_line() {
        for json in [false, true] {
            let log = logged(json, log_hostile);
            let body = log.strip_suffix('\n').expect("a line");
            assert!(!body.contains(char::is_control), "{log:?}");
            assert!(
                body.contains("\\n2026-01-01 INFO forged") && body.contains("\\u001b"),
                "{log:?}"
            );
        }
    }

    #[test]
    fn json_holds_exactly_what_was_logged() {
        let log = logged(true, log_hostile);
        let event: serde_json::Value = serde_json::from_str(&log).unwrap();
        for field in ["message", "shown", "text", "raw"] {
            assert_eq!(event[field], hostile(), "{field}");
        }
    }

    #[test]
    fn plain_events_stay_as_they_are() {
        assert!(matches!(
            one_line("grüße: 1\n"),
            Cow::Borrowed("grüße: 1\n")
        ));
        let log = logged(false, || {
            tracing::info!(listen = "0.0.0.0:8443", "listening")
        });
        assert!(
            log.ends_with("listening listen=\"0.0.0.0:8443\"\n"),
            "{log:?}"
        );
    }

    #[test]
    fn filters_that_say_something_are_taken() {
        for filter in [
            "info",
            "off",
            "WARN",
            "warn,forebay=debug",
            "info,hyper=off",
            "forebay[span{a=1}]=trace",
            "3",
        ] {
            assert!(parse_filter(filter).is_ok(), "{filter}");
        }
    }

    #[test]
    fn a_wrong_filter_is_a_clear_error() {
        for (filter, says) in [
            ("inof", "`inof` is no level"),
            ("info,forebay", "`forebay` is no level"),
            ("", "empty"),
            (" , ", "empty"),
            ("forebay=loud", "forebay=debug"),
            ("info,a=b=c", "forebay=debug"),
            ("info, hyper=off", "forebay=debug"),
        ] {
            let error = parse_filter(filter).expect_err(filter).to_string();
            assert!(error.contains(says), "{filter}: {error}");
        }
    }
}
