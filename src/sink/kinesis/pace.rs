//! The pace of writes to one shard.
//!
//! `pending` owns one for each shard and passes the time in. A shard takes 1000 records and 1 MiB a
//! second; that much is given out, as tokens, and no more than a second's worth is saved up. Other
//! writers share the shard, how many is unknown: when the shard refuses a record, the tokens are
//! gone and the rate is cut by [`CUT`]; then it grows back, by a tenth of the limit a second. So
//! gateways on one shard come to even shares.
//!
//! A record is let through while there are tokens, even if it takes more than there are: a record
//! may be as large as ten seconds' worth. The debt is waited for afterwards.

use std::time::Duration;

use tokio::time::Instant;

/// Limits of a shard:
/// <https://docs.aws.amazon.com/streams/latest/dev/service-sizes-and-limits.html>.
const RECORDS_PER_SECOND: f64 = 1000.0;
const BYTES_PER_SECOND: f64 = (1 << 20) as f64;

/// Share of the rate that a refusal leaves.
const CUT: f64 = 0.7;

/// Refusals within this time are one: they answer records that were sent at the old rate.
const CUT_INTERVAL: Duration = Duration::from_millis(500);

/// Least rate, and the gain of a second; shares of the shard's limit.
const SHARE_MIN: f64 = 0.05;
const REGAINED_PER_SECOND: f64 = 0.1;

/// An amount of records, or a number of tokens for them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Load {
    pub records: usize,
    pub bytes: usize,
}

const _: () = assert!(SHARE_MIN > 0.0 && SHARE_MIN < CUT && CUT < 1.0);

/// The present rate of writes to one shard, and its saved tokens.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// The share of the shard's limit, between `SHARE_MIN` and 1.
    share: f64,
    /// Tokens, in seconds of the full limit: 1 is a whole second's worth; less than 0 is owed.
    records: f64,
    bytes: f64,
    counted_at: Instant,
    cut_at: Option<Instant>,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            share: 1.0,
            records: 1.0,
            bytes: 1.0,
            counted_at: now,
            cut_at: None,
        }
    }

    pub(crate) fn admits(&mut self, now: Instant) -> bool {
        self.count(now);
        self.records > 0.0 && self.bytes > 0.0
    }

    pub(crate) fn take(&mut self, load: Load) {
        self.records -= load.records as f64 / RECORDS_PER_SECOND;
        self.bytes -= load.bytes as f64 / BYTES_PER_SECOND;
    }

    /// Cuts the rate: the shard has refused a record for it.
    pub(crate) fn cut(&mut self, now: Instant) {
        self.count(now);
        self.records = self.records.min(0.0);
        self.bytes = self.bytes.min(0.0);
        if self
            .cut_at
            .is_none_or(|cut_at| now.duration_since(cut_at) >= CUT_INTERVAL)
        {
            self.share = (self.share * CUT).max(SHARE_MIN);
            self.cut_at = Some(now);
        }
    }

    /// Returns how long this much would wait for its tokens, at the present rate.
    pub(crate) fn wait(&self, load: Load) -> Duration {
        let records = load.records as f64 / RECORDS_PER_SECOND - self.records;
        let bytes = load.bytes as f64 / BYTES_PER_SECOND - self.bytes;
        Duration::from_secs_f64(records.max(bytes).max(0.0) / self.share)
    }

    fn count(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.counted_at).as_secs_f64();
        self.counted_at = now;
        self.share = (self.share + seconds * REGAINED_PER_SECOND).min(1.0);
        self.records = (self.records + seconds * self.share).min(1.0);
        self.bytes = (self.bytes + seconds * self.share).min(1.0);
        debug_assert!(
            (SHARE_MIN..=1.0).contains(&self.share),
            "it is cut and regained"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Load = Load {
        records: 1,
        bytes: 100,
    };

    /// Records let through in so many seconds, asked for every ten milliseconds.
    fn admitted(pace: &mut Pace, from: Instant, seconds: u64) -> usize {
        let mut admitted = 0;
        for step in 0..seconds * 100 {
            while pace.admits(from + Duration::from_millis(step * 10)) {
                pace.take(RECORD);
                admitted += 1;
            }
        }
        admitted
    }

    #[test]
    fn a_shard_gets_its_limit_and_one_second_s_worth_at_once() {
        let start = Instant::now();
        let admitted = admitted(&mut Pace::new(start), start, 10);
        assert!((10_900..=11_010).contains(&admitted), "{admitted}");
    }

    #[test]
    fn bytes_are_paced_too_and_a_large_record_is_owed() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        assert!(pace.admits(start));
        pace.take(Load {
            records: 1,
            bytes: 5 << 20,
        });
        assert!(!pace.admits(start + Duration::from_millis(3990)));
        assert!(pace.admits(start + Duration::from_millis(4010)));
    }

    #[test]
    fn refusals_cut_the_rate_once_a_while_and_it_grows_back() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        (0..50).for_each(|_| pace.cut(start));
        assert_eq!(pace.share, CUT);
        assert!(!pace.admits(start));
        let second = admitted(&mut pace, start, 1);
        assert!((690..=800).contains(&second), "{second}");
        assert!(pace.admits(start + Duration::from_secs(60)));
        assert_eq!(pace.share, 1.0);
        (0..100).for_each(|cut| pace.cut(start + Duration::from_secs(60) + CUT_INTERVAL * cut / 2));
        assert!((SHARE_MIN..0.3).contains(&pace.share), "{}", pace.share);
    }

    /// Writers that do not know of each other, one of which had the shard for itself.
    #[test]
    fn two_writers_come_to_even_shares() {
        let start = Instant::now();
        let mut paces = [Pace::new(start), Pace::new(start)];
        paces[1].share = SHARE_MIN;
        let mut totals = [0, 0];
        for second in 0..120 {
            let from = start + Duration::from_secs(second);
            let admitted = [0, 1].map(|writer| admitted(&mut paces[writer], from, 1));
            if admitted.iter().sum::<usize>() > 1000 {
                paces
                    .iter_mut()
                    .for_each(|pace| pace.cut(from + Duration::from_secs(1)));
            }
            if second >= 60 {
                totals = [0, 1].map(|writer| totals[writer] + admitted[writer]);
            }
        }
        let ratio = totals[0] as f64 / totals[1] as f64;
        assert!((0.8..=1.25).contains(&ratio), "{totals:?}");
    }

    #[test]
    fn a_backlog_s_wait_is_known() {
        let pace = Pace::new(Instant::now());
        assert_eq!(
            pace.wait(Load {
                records: 500,
                bytes: 0
            }),
            Duration::ZERO
        );
        assert_eq!(
            pace.wait(Load {
                records: 500,
                bytes: 3 << 20
            }),
            Duration::from_secs(2)
        );
    }
}
