//! The verdicts on the records of a request, and the answer that follows from them.

use super::super::Refusal;

/// The records of a request by their verdicts; indices ascend.
#[derive(Clone, Debug, Default)]
pub struct Verdicts {
    /// Number of records that are safe.
    pub(crate) accepted: usize,
    /// Records that may be sent again.
    pub(crate) retry: Vec<usize>,
    /// Records that are refused for good, and why.
    pub(crate) rejected: Vec<(usize, Refusal)>,
    /// Whether it is unknown if the stream has some of those that may be sent again.
    is_any_unknown: bool,
}

impl Verdicts {
    /// Notes the verdict on the next record.
    pub(crate) fn note(&mut self, taken: Result<(), Refusal>) {
        let index = self.accepted + self.retry.len() + self.rejected.len();
        match taken {
            Ok(()) => self.accepted += 1,
            Err(Refusal::AckTimeout) => {
                self.is_any_unknown = true;
                self.retry.push(index);
            }
            Err(Refusal::SinkUnavailable) => self.retry.push(index),
            Err(refusal) => self.rejected.push((index, refusal)),
        }
    }

    /// Returns `Ok` if all records are safe.
    pub(crate) fn conclude(self) -> Result<(), Refusal> {
        if self.retry.is_empty() && self.rejected.is_empty() {
            return Ok(());
        }
        Err(Refusal::Records(Box::new(self)))
    }

    /// Returns the refusal of the worst record: a client that resends all of it loses nothing.
    pub(crate) fn worst(&self) -> &Refusal {
        if self.is_any_unknown {
            return &Refusal::AckTimeout;
        }
        match self.rejected.first() {
            Some((_, first)) if self.retry.is_empty() => first,
            _ => &Refusal::SinkUnavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the refusal that answers for records with these verdicts.
    fn answer(taken: &[Result<(), Refusal>]) -> Option<Refusal> {
        let mut verdicts = Verdicts::default();
        for taken in taken {
            verdicts.note(taken.clone());
        }
        match verdicts.conclude() {
            Ok(()) => None,
            Err(Refusal::Records(verdicts)) => Some(verdicts.worst().clone()),
            Err(other) => panic!("{other:?} has no verdicts"),
        }
    }

    #[test]
    fn the_worst_record_answers() {
        let refused = || Err(Refusal::SinkRefused("no".into()));
        let too_large = || Err(Refusal::RecordTooLarge);
        let (away, unknown) = (
            || Err(Refusal::SinkUnavailable),
            || Err(Refusal::AckTimeout),
        );
        assert!(answer(&[Ok(()), Ok(())]).is_none());
        let worst = |taken: &[_]| answer(taken).unwrap();
        assert!(matches!(
            worst(&[Ok(()), refused(), too_large()]),
            Refusal::SinkRefused(_)
        ));
        assert!(matches!(
            worst(&[too_large(), refused()]),
            Refusal::RecordTooLarge
        ));
        assert!(matches!(
            worst(&[too_large(), away(), Ok(())]),
            Refusal::SinkUnavailable
        ));
        assert!(matches!(
            worst(&[away(), unknown(), too_large()]),
            Refusal::AckTimeout
        ));
    }

    #[test]
    fn each_record_has_its_index() {
        let mut verdicts = Verdicts::default();
        verdicts.note(Err(Refusal::SinkUnavailable));
        verdicts.note(Ok(()));
        verdicts.note(Err(Refusal::RecordTooLarge));
        verdicts.note(Err(Refusal::AckTimeout));
        assert_eq!((verdicts.accepted, &*verdicts.retry), (1, &[0, 3][..]));
        assert_eq!(verdicts.rejected[0].0, 2);
    }
}
