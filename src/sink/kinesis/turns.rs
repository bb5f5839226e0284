//! The rate at which this gateway describes streams, over all of them.
//!
//! The service answers an account 20 DescribeStreamSummary calls a second in all; a gateway with
//! many streams takes half of that at most, so that others of the account, the next replica among
//! them, get answers too. `verify` waits for its turn; turns come in the order in which they were
//! asked for, and one that is given up costs nothing.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// Calls a second that the service answers an account:
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DescribeStreamSummary.html>.
const ACCOUNT_CALLS_PER_SECOND: u32 = 20;

const CALLS_PER_SECOND: u32 = ACCOUNT_CALLS_PER_SECOND / 2;

const SPACING: Duration = Duration::from_millis(1000 / CALLS_PER_SECOND as u64);

/// Calls at once after a second without any.
const BURST: u32 = CALLS_PER_SECOND;

const _: () = assert!(SPACING.as_millis() * CALLS_PER_SECOND as u128 == 1000);

/// Gives streams their turns to be described.
#[derive(Debug)]
pub(super) struct Turns {
    /// Time of the next turn if turns were evenly spaced.
    next_at: Mutex<Instant>,
}

impl Turns {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            next_at: Mutex::new(now),
        }
    }

    /// Waits for a turn. The lock is fair and held meanwhile: later callers come later.
    pub(crate) async fn next(&self) {
        let mut next_at = self.next_at.lock().await;
        let early = SPACING * (BURST - 1);
        sleep_until(next_at.checked_sub(early).unwrap_or(*next_at)).await;
        *next_at = Instant::now().max(*next_at) + SPACING;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_streams_take_turns_and_the_account_is_left_its_half() {
        let start = Instant::now();
        let turns = Turns::new(start);
        let asked = (0..256).map(async |_| {
            turns.next().await;
            start.elapsed().as_secs()
        });
        let mut by_second = [0; 30];
        for second in join_all(asked).await {
            by_second[second as usize] += 1;
        }
        assert!(by_second.iter().all(|&calls| calls <= 2 * CALLS_PER_SECOND));
        assert!(
            by_second[1..25]
                .iter()
                .all(|&calls| calls <= CALLS_PER_SECOND)
        );
        assert_eq!(by_second.iter().sum::<u32>(), 256);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_that_is_given_up_costs_nothing() {
        let turns = Turns::new(Instant::now());
        join_all((0..BURST).map(|_| turns.next())).await;
        for _ in 0..20 {
            assert!(timeout(SPACING / 100, turns.next()).await.is_err());
        }
        assert!(timeout(SPACING, turns.next()).await.is_ok());
    }
}
