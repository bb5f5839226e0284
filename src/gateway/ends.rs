//! Warns of what ends: the server's certificate, an authority, a revocation list.
//!
//! [`reload`](super::reload) looks at start, and again whenever it has looked at the files. Each of
//! the three is told of once a week before its end, once a day before, and once when it is past it;
//! after a reload, what is near its end is told of again. Time is an argument.

use crate::record::Timestamp;

const DAY_MILLIS: u64 = 86_400_000;

/// Nearness of an end; the log speaks once at each step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Nearness {
    #[default]
    Far,
    Week,
    Day,
    Past,
}

/// The kinds of files that end, and what an end means for the gateway.
const ENDING: [(&str, &str); 3] = [
    (
        "the server's certificate (FOREBAY_TLS_CERT)",
        "devices that check it do not connect",
    ),
    (
        "an authority (FOREBAY_TLS_CLIENT_CA)",
        "what it has signed is not to be trusted beyond its end",
    ),
    (
        "a revocation list (FOREBAY_TLS_CRL)",
        "every device of its issuer is refused, unless FOREBAY_TLS_CRL_STRICT is false",
    ),
];

/// Nearness of each end when the log told it last.
#[derive(Debug, Default)]
pub(crate) struct Warned([Nearness; ENDING.len()]);

impl Warned {
    /// Warns of what has come nearer to its end. `ends` are in the order of [`ENDING`].
    pub(crate) fn look(&mut self, ends: [Option<Timestamp>; ENDING.len()], now: Timestamp) {
        for ((warned, (what, meaning)), end) in self.0.iter_mut().zip(ENDING).zip(ends) {
            let nearness = end.map_or(Nearness::Far, |end| nearness(end, now));
            if nearness > *warned {
                warn(what, meaning, end.unwrap_or(now), nearness);
            }
            *warned = nearness;
        }
    }

    /// Forgets what was told, so that the next look tells all of it: whoever has changed a file
    /// reads the log.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

fn nearness(end: Timestamp, now: Timestamp) -> Nearness {
    match end.0.saturating_sub(now.0) {
        0 => Nearness::Past,
        left if left <= DAY_MILLIS => Nearness::Day,
        left if left <= 7 * DAY_MILLIS => Nearness::Week,
        _ => Nearness::Far,
    }
}

fn warn(what: &str, meaning: &str, end: Timestamp, nearness: Nearness) {
    debug_assert!(nearness > Nearness::Far, "what is far is not told");
    let until = end.rfc3339();
    match nearness {
        Nearness::Past => tracing::error!(what, until, meaning, "is past its end: renew it"),
        Nearness::Day => tracing::warn!(what, until, meaning, "ends within a day: renew it"),
        Nearness::Far | Nearness::Week => {
            tracing::warn!(what, until, meaning, "ends within a week: renew it");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_when_it_comes_nearer_and_again_after_a_renewal() {
        let end = Timestamp(30 * DAY_MILLIS);
        let mut warned = Warned::default();
        let mut told = Vec::new();
        for day in [0, 23, 24, 29, 30, 31] {
            warned.look([None, Some(end), None], Timestamp(day * DAY_MILLIS));
            told.push(warned.0[1]);
        }
        use Nearness::{Day, Far, Past, Week};
        assert_eq!(told, [Far, Week, Week, Day, Past, Past]);
        warned.forget();
        assert_eq!(warned.0, [Far; 3]);
        warned.look([None, Some(end), None], Timestamp(0));
        assert_eq!(warned.0, [Far; 3]);
    }
}
