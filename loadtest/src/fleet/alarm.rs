//! Wakes the devices of one thread when their time has come.
//!
//! Not by tokio's timers: those that are more than four seconds ahead lie in one slot, and are all sorted anew at once when
//! its time comes, some ten thousand of them where there are a hundred thousand devices. Here each has its own place in
//! order. One task looks at it every [`TICK`], as often as tokio would.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

const TICK: Duration = Duration::from_millis(1);

/// Who sleeps, and until when.
#[derive(Default)]
pub struct Alarm(RefCell<BTreeMap<Instant, Vec<Waker>>>);

impl Alarm {
    /// Never ends; nobody wakes without it.
    pub async fn run(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let now = ticks.tick().await;
            while let Some(wakers) = self.next(now) {
                wakers.into_iter().for_each(Waker::wake);
            }
        }
    }

    fn next(&self, now: Instant) -> Option<Vec<Waker>> {
        let mut sleepers = self.0.borrow_mut();
        let first = sleepers.first_entry().filter(|first| *first.key() <= now)?;
        Some(first.remove())
    }

    /// Sleeps in a task that nothing else wakes.
    pub async fn sleep_until(&self, until: Instant) {
        let mut is_asleep = false;
        poll_fn(|context| {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut is_asleep, true) {
                self.0.borrow_mut().entry(until).or_default().push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use tokio::task::{JoinSet, LocalSet};

    use super::*;

    #[tokio::test]
    async fn each_wakes_in_its_turn_and_none_too_early() {
        let wake_up = async {
            let alarm = Rc::new(Alarm::default());
            let mut tasks = JoinSet::new();
            let started_at = Instant::now();
            for millis in [70, 3, 90, 3, 50] {
                let (alarm, until) = (alarm.clone(), started_at + Duration::from_millis(millis));
                tasks.spawn_local(async move {
                    alarm.sleep_until(until).await;
                    (millis, started_at.elapsed().as_millis() as u64)
                });
            }
            let ticking = tokio::task::spawn_local(async move { alarm.run().await });
            let mut woken = Vec::new();
            while let Some(one) = tasks.join_next().await {
                woken.push(one.expect("it wakes"));
            }
            ticking.abort();
            woken
        };
        let woken = LocalSet::new().run_until(wake_up).await;
        assert!(woken.iter().all(|(at, woken_at)| at <= woken_at), "{woken:?}");
        assert_eq!(woken.into_iter().map(|(at, _)| at).collect::<Vec<_>>(), [3, 3, 50, 70, 90]);
    }
}
