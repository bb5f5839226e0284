//! Chance by a seed, for a test that wants the same run again: waits, the order in which tasks are
//! polled, how long the disk takes, and after how many polls the process dies.
//!
//! A [`Seeded`] rules the thread that it lives on. Without one, nothing here changes anything.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

thread_local! {
    static CHANCE: RefCell<Option<Chance>> = const { RefCell::new(None) };
    /// Polls of tasks so far.
    static POLLS: Cell<u64> = const { Cell::new(0) };
}

struct Chance {
    state: u64,
    /// Of a hundred polls, those that are put off.
    put_off_percent: u64,
    disk_turn_max: Duration,
    /// The poll that the process dies at.
    dies_at: u64,
    has_died: bool,
    died: Rc<Notify>,
}

/// Rules the thread until it is dropped.
pub(crate) struct Seeded(());

impl Seeded {
    pub(crate) fn new(seed: u64, put_off_percent: u64) -> Self {
        let chance = Chance {
            state: seed,
            put_off_percent,
            disk_turn_max: Duration::ZERO,
            dies_at: u64::MAX,
            has_died: false,
            died: Rc::default(),
        };
        CHANCE.set(Some(chance));
        POLLS.set(0);
        Self(())
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        CHANCE.set(None);
    }
}

fn with<T>(change: impl FnOnce(&mut Chance) -> T) -> Option<T> {
    CHANCE.with_borrow_mut(|chance| chance.as_mut().map(change))
}

impl Chance {
    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// Whether a task that is ready may go on; it is asked again, or the process is dead.
    fn turn(&mut self) -> Turn {
        POLLS.set(POLLS.get() + 1);
        if !self.has_died && POLLS.get() >= self.dies_at {
            self.has_died = true;
            self.died.notify_one();
        }
        if self.has_died {
            Turn::Dead
        } else if self.below(100) < self.put_off_percent {
            Turn::Later
        } else {
            Turn::Now
        }
    }
}

enum Turn {
    Now,
    Later,
    Dead,
}

pub(crate) fn is_seeded() -> bool {
    with(|_| ()).is_some()
}

/// Draws random bits; `None` where the thread is not ruled by a seed.
pub(crate) fn draw() -> Option<u32> {
    with(|chance| (chance.next() >> 32) as u32)
}

/// The disk takes so long at most, from now on.
pub(crate) fn set_disk_turn_max(max: Duration) {
    with(|chance| chance.disk_turn_max = max);
}

/// Waits for as long as the disk takes.
pub(crate) async fn disk_turn() {
    let turn = with(|chance| {
        let max = chance.disk_turn_max.as_micros() as u64;
        Duration::from_micros(chance.below(max))
    });
    sleep(turn.unwrap_or_default()).await;
}

/// Lets the process die after so many polls more; whatever died before lives again.
pub(crate) fn die_after(polls: u64) {
    with(|chance| {
        chance.has_died = false;
        chance.dies_at = POLLS.get().saturating_add(polls);
    });
}

/// Lets nothing go on of the process.
pub(crate) fn die() {
    with(|chance| {
        chance.has_died = true;
        chance.died.notify_one();
    });
}

/// Returns when the process has died.
pub(crate) async fn died() {
    if let Some(died) = with(|chance| chance.died.clone()) {
        died.notified().await;
    }
}

/// Runs a task of the process that, whenever it is ready, lets others go first as the seed wants.
pub(crate) async fn in_any_order<T>(task: impl Future<Output = T>) -> T {
    let mut task = pin!(task);
    poll_fn(|context| match with(Chance::turn) {
        None | Some(Turn::Now) => task.as_mut().poll(context),
        Some(Turn::Later) => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        Some(Turn::Dead) => Poll::Pending,
    })
    .await
}
