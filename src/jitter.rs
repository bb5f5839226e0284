//! Waits of random length, so that those who failed together do not come back together.
//!
//! Back-offs and `Retry-After` take theirs from here. The two kinds have their names from
//! <https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/>. Neither is ever
//! longer than the bound that it is given, and nothing here fails.

#[cfg(test)]
pub(crate) mod seeded;

use std::time::Duration;

use uuid::Uuid;

/// Returns a wait below `bound`, from nothing on ("full jitter"): spreads best, and may be no wait.
pub(crate) fn full(bound: Duration) -> Duration {
    let wait = bound.mul_f64(fraction());
    debug_assert!(wait <= bound, "a fraction is at most 1");
    wait
}

/// Returns a wait between half of `bound` and all of it ("equal jitter"): always gives time.
pub(crate) fn equal(bound: Duration) -> Duration {
    bound / 2 + full(bound / 2)
}

/// Returns a number from 0 on, below 1.
fn fraction() -> f64 {
    f64::from(random()) / (f64::from(u32::MAX) + 1.0)
}

/// Returns random bits. A version 4 UUID begins with 48 of them.
fn random() -> u32 {
    #[cfg(test)]
    if let Some(drawn) = seeded::draw() {
        return drawn;
    }
    let (random, ..) = Uuid::new_v4().as_fields();
    random
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_spread_over_all_of_their_range_and_nothing_else() {
        let bound = Duration::from_secs(8);
        let (mut full_eighths, mut equal_eighths) = ([0; 8], [0; 8]);
        for _ in 0..10_000 {
            full_eighths[full(bound).as_secs() as usize] += 1;
            equal_eighths[equal(bound).as_secs() as usize] += 1;
        }
        assert!(
            full_eighths.iter().all(|&waits| waits > 1000),
            "{full_eighths:?}"
        );
        assert_eq!(equal_eighths[..4], [0; 4]);
        assert!(
            equal_eighths[4..].iter().all(|&waits| waits > 2000),
            "{equal_eighths:?}"
        );
        assert_eq!(full(Duration::ZERO), Duration::ZERO);
    }
}
