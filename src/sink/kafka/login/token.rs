//! Tokens of `OAUTHBEARER`: fetched at once, and again before they run out.
//!
//! A token is replaced at some three quarters of its life. One that cannot be had is asked for
//! again, after a back-off with jitter; the last one stays in force until it runs out, and
//! connections that are there stay.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::super::keyring::{Keyring, Secret};
use super::super::native::Token;
use super::super::reports::Reports;
#[cfg(feature = "msk")]
use super::msk::Msk;
use super::oidc::Oidc;
use crate::jitter;
use crate::record::Timestamp;

/// A token is there by then or not at all.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15);

const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

const _: () = assert!(BACK_OFF_MIN.as_secs() < BACK_OFF_MAX.as_secs());

/// The source of tokens.
pub(crate) enum Source {
    Oidc(Oidc),
    #[cfg(feature = "msk")]
    Msk(Box<Msk>),
}

impl Source {
    /// Fetches a token. The error says what is wrong, in words for the operator, and has no secret.
    async fn fetch(&self) -> Result<Token, String> {
        let fetched = async {
            match self {
                Self::Oidc(oidc) => oidc.fetch().await,
                #[cfg(feature = "msk")]
                Self::Msk(msk) => msk.fetch().await,
            }
        };
        let slow = |_| format!("no answer within {FETCH_TIMEOUT:?}");
        timeout(FETCH_TIMEOUT, fetched).await.map_err(slow)?
    }
}

/// Keeps a token in force until it is dropped.
pub(super) async fn keep(source: &Source, keyring: &Keyring, reports: &Reports) {
    let mut back_off = BACK_OFF_MIN;
    loop {
        let fetched = source.fetch().await;
        let expires_at = fetched.and_then(|token| put_in_force(token, keyring));
        match expires_at {
            Ok(expires_at) => {
                back_off = BACK_OFF_MIN;
                sleep(use_time(expires_at, Timestamp::now())).await;
            }
            Err(reason) => {
                tracing::warn!(reason, "no token to log in to Kafka with");
                reports.no_token(&reason);
                sleep(jitter::equal(back_off)).await;
                back_off = (2 * back_off).min(BACK_OFF_MAX);
            }
        }
    }
}

fn put_in_force(token: Token, keyring: &Keyring) -> Result<Timestamp, String> {
    let expires_at = token.expires_at;
    keyring.change(Secret::Token(token))?;
    tracing::debug!(expires_at = expires_at.0, "a new token is in force");
    Ok(expires_at)
}

/// Returns the time that a token is used until the next one is asked for: 70 to 80 % of the rest of
/// its validity.
fn use_time(expires_at: Timestamp, now: Timestamp) -> Duration {
    let left = Duration::from_millis(expires_at.0.saturating_sub(now.0));
    BACK_OFF_MIN.max(left * 7 / 10 + jitter::full(left / 10))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_replaced_before_it_runs_out_and_never_in_a_hurry() {
        let (now, hour) = (Timestamp(1_000_000), 3_600_000);
        let hour_left = use_time(Timestamp(now.0 + hour), now).as_millis() as u64;
        assert!(
            (hour * 7 / 10..=hour * 8 / 10).contains(&hour_left),
            "{hour_left}"
        );
        assert_eq!(use_time(Timestamp(now.0 + 100), now), BACK_OFF_MIN);
        assert_eq!(use_time(Timestamp(now.0 - 1), now), BACK_OFF_MIN);
    }
}
