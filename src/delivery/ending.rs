//! The end of delivery: no more batches come, and later on there may be no time left.

use tokio::sync::SetOnce;

/// The two facts of the end. Neither is taken back.
#[derive(Debug, Default)]
pub(crate) struct Ending {
    /// Every worker has gone: batches in flight are finished, and no more are taken from disk.
    pub intake: Fact,
    /// There is no time left: waits for the sink end, and the spool takes as much as it can.
    pub time: Fact,
}

/// A fact that comes true once.
#[derive(Debug, Default)]
pub(crate) struct Fact(SetOnce<()>);

impl Ending {
    /// Whether nothing is to be taken from disk any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.intake.has_ended() || self.is_hurrying()
    }

    /// Returns when nothing is to be taken from disk any more.
    pub(crate) async fn left(&self) {
        tokio::select! {
            biased;
            () = self.intake.ended() => {}
            () = self.hurried() => {}
        }
    }

    pub(crate) fn is_hurrying(&self) -> bool {
        self.time.has_ended()
    }

    /// Returns when there is no time left.
    pub(crate) async fn hurried(&self) {
        self.time.ended().await;
    }
}

impl Fact {
    /// Notes that it has ended; once more changes nothing.
    pub(crate) fn end(&self) {
        let _ = self.0.set(());
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.0.initialized()
    }

    /// Returns when it has ended.
    pub(crate) async fn ended(&self) {
        self.0.wait().await;
    }
}
