//! The promises, held against the events.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::gateway::Exit;
use super::ledger::{Attempt, Facts};
use super::plan::{Manner, What};
use super::rooms::BODY_TIMEOUT;
use super::world::{Ended, World};
use crate::config::AckMode;

/// Gives everything that is wrong with a life that is over.
pub(crate) fn judge(world: &World) -> Vec<String> {
    let facts = world.ledger.facts.borrow();
    let mut wrong = Vec::new();
    wrong.extend(lost(world, &facts));
    wrong.extend(out_of_order(world.plan.shape.ack, &facts));
    wrong.extend(unexplained(world, &facts));
    wrong.extend(refused(&facts));
    wrong.extend(held_up(&facts));
    wrong.extend(late(world, &facts));
    wrong.extend(mixed_up(world, &facts));
    wrong.extend(over_limit(world, &facts));
    wrong.extend(exits(world));
    wrong
}

impl Attempt {
    pub(crate) fn status(&self) -> Option<u16> {
        self.answer.and_then(|answer| answer.status)
    }

    fn is_safe(&self) -> bool {
        !self.arrivals.is_empty() || self.dead_letters > 0 || self.is_on_disk
    }
}

/// Finds records that were answered 204 and are nowhere.
fn lost(world: &World, facts: &Facts) -> Vec<String> {
    let mut lost: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (number, attempt) in facts.attempts.iter().enumerate() {
        if attempt.status() == Some(204) && !attempt.is_safe() {
            lost.entry(attempt.to.process).or_default().push(number);
        }
    }
    let mut wrong = Vec::new();
    let mut dropped = (world.dropped.get() + lost_in_frames(world)) as usize;
    for (process, lost) in lost {
        let ended = world.ends.borrow()[process];
        let may_be_lost = match (world.plan.shape.ack, ended) {
            (AckMode::Queued, Ended::Killed) => continue,
            (AckMode::Queued, Ended::Exited(exit)) => exit.told.unsafe_records,
            (AckMode::Durable, _) => 0,
        };
        let of_drops = dropped.min(lost.len());
        dropped -= of_drops;
        if lost.len() - of_drops > may_be_lost {
            wrong.push(format!("lost: #{lost:?} of process {process}, {ended:?}"));
        }
    }
    wrong
}

/// Returns the number of records that may be lost in frames that could not be read, and were told
/// of: a bit that flips costs its frame, no other. A disk that does not read costs any.
fn lost_in_frames(world: &World) -> u64 {
    let may_be_unread = world
        .faults
        .were_planned(|what| matches!(what, What::DiskFails(..)));
    match world.damaged.get() {
        0 => 0,
        _ if may_be_unread => u32::MAX.into(),
        _ => world.flipped.get(),
    }
}

/// Finds records that were sent after the 204 of another one and overtook it.
fn out_of_order(ack: AckMode, facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, first) in facts.attempts.iter().enumerate() {
        let (Some(answer), Some(arrived)) = (first.answer, first.arrivals.first()) else {
            continue;
        };
        // One that is refused for good holds up nobody, and may pass when it is tried anew.
        if answer.status != Some(204) || first.refusals > 0 {
            continue;
        }
        for (other, second) in facts.attempts.iter().enumerate().skip(number + 1) {
            let (one, two) = (first.to, second.to);
            let is_later = two.device == one.device
                && two.stream == one.stream
                && two.reading != one.reading
                && second.sent > answer.told;
            // Records in the memory of two workers have no order with each other after they are
            // answered.
            let has_order = ack == AckMode::Durable || two.worker == one.worker;
            if is_later && has_order && second.arrivals.first().is_some_and(|at| at < arrived) {
                wrong.push(format!("order: #{other} overtook #{number}"));
            }
        }
    }
    wrong
}

/// Finds records that arrived more often than can be explained, or although they were refused.
fn unexplained(world: &World, facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    let has_bad_disk = world
        .faults
        .were_planned(|what| matches!(what, What::DiskFails(..)));
    for (number, attempt) in facts.attempts.iter().enumerate() {
        let times = attempt.arrivals.len() + attempt.dead_letters;
        let explained = 1 + attempt.unknowns + attempt.deaths;
        if times > explained {
            wrong.push(format!(
                "duplicate: #{number} arrived {times} times, {explained} are explained"
            ));
        }
        let is_refused = attempt
            .status()
            .is_some_and(|status| !matches!(status, 204 | 504));
        // Records that a failing disk has refused may come back with the next process: files that
        // could not be deleted are left.
        let may_return = has_bad_disk && attempt.to.process < world.process() - 1;
        if is_refused && times > 0 && !may_return {
            wrong.push(format!(
                "refused: #{number} arrived, answered {:?}",
                attempt.status()
            ));
        }
    }
    wrong
}

/// Finds records that were refused for good, and not by the sink.
fn refused(facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, attempt) in facts.attempts.iter().enumerate() {
        let is_refused = attempt.status() == Some(502) || attempt.dead_letters > 0;
        if is_refused && attempt.refusals == 0 {
            wrong.push(format!("for good: #{number} was refused, not by the sink"));
        }
    }
    wrong
}

/// Finds records that are left on disk, and no record of their device that the sink has refused for
/// good is to blame: such a one holds up its own device and no other.
fn held_up(facts: &Facts) -> Vec<String> {
    let on_disk = || facts.attempts.iter().filter(|attempt| attempt.is_on_disk);
    // One that is both was set aside when a crash came, and is refused again.
    let stays = |attempt: &&Attempt| {
        attempt.refusals > 0 && (attempt.is_on_disk || attempt.dead_letters == 0)
    };
    let stay = facts.attempts.iter().filter(stays);
    let to_blame: BTreeSet<usize> = stay.map(|attempt| attempt.to.device).collect();
    let held_up = on_disk().filter(|attempt| !to_blame.contains(&attempt.to.device));
    let wrong = held_up.map(|attempt| format!("held up: {:?}", attempt.to));
    wrong.collect()
}

/// Finds requests that were answered too late.
fn late(world: &World, facts: &Facts) -> Vec<String> {
    let ack_timeout = world.plan.shape.ack_timeout;
    let mut wrong = Vec::new();
    for (number, attempt) in facts.attempts.iter().enumerate() {
        let Some(answer) = attempt.answer else {
            wrong.push(format!("no answer: #{number}"));
            continue;
        };
        let device = world
            .plan
            .devices
            .iter()
            .find(|device| device.number == attempt.to.device);
        let is_slow = device.is_some_and(|device| device.manner == Manner::Slow);
        let body = if is_slow {
            BODY_TIMEOUT
        } else {
            Duration::ZERO
        };
        let longest = body + ack_timeout + ack_timeout / 10 + Duration::from_millis(100);
        let took = answer.told_at - attempt.sent_at;
        if took > longest {
            wrong.push(format!("late: #{number} was answered after {took:?}"));
        }
    }
    wrong
}

/// Finds answers for a reason that there was not, and requests of devices that were denied and taken
/// all the same.
fn mixed_up(world: &World, facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (number, attempt) in facts.attempts.iter().enumerate() {
        let Some(answer) = attempt.answer else {
            continue;
        };
        let during = |is_kind: &dyn Fn(What) -> bool| {
            world
                .faults
                .were_on(attempt.sent_at, answer.told_at, is_kind)
        };
        let is_denied = What::Denied(attempt.to.device);
        let may_be = match answer.status {
            Some(429) => {
                world.plan.shape.device_rate > 0 || during(&|on| matches!(on, What::HeldTo(_)))
            }
            Some(403) => during(&|on| on == is_denied),
            Some(503 | 504) => world.may_shed(),
            Some(204) => !world.faults.was_on(attempt.sent_at, is_denied),
            _ => true,
        };
        if !may_be {
            let status = answer.status;
            wrong.push(format!("mixed up: #{number} is answered {status:?}"));
        }
    }
    wrong
}

/// Finds devices of which more was taken than the devices file says, in lives of one process: its
/// buckets go with it.
fn over_limit(world: &World, facts: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    if !world.plan.ends.is_empty() {
        return wrong;
    }
    for (rate, from, to) in world.faults.limits() {
        let mut taken: BTreeMap<usize, u64> = BTreeMap::new();
        let sent_in_time = |attempt: &&Attempt| from < attempt.sent_at && attempt.sent_at < to;
        for attempt in facts.attempts.iter().filter(sent_in_time) {
            if attempt.status() == Some(204) {
                *taken.entry(attempt.to.device).or_default() += 1;
            }
        }
        let most = rate * (2 + 1 + (to - from).as_secs());
        let over = taken.into_iter().filter(|(_, taken)| *taken > most);
        wrong.extend(over.map(|(device, taken)| {
            format!("over its limit: device {device}, {taken} readings, {most} may be")
        }));
    }
    wrong
}

/// Finds exits that left records behind without need, and those that were not told as they were:
/// the last process had all the time that it needs, and one in a hurry had a disk.
fn exits(world: &World) -> Vec<String> {
    let ends = world.ends.borrow();
    let mut wrong = Vec::new();
    let is_disk = |what| matches!(what, What::DiskFails(..) | What::DiskSlow(_));
    let has_room = world.plan.shape.spool.is_some() && world.plan.shape.spool_segments >= 1000;
    let has_disk = has_room && !world.faults.were_planned(is_disk);
    let exits = ends.iter().filter_map(|ended| match ended {
        Ended::Exited(exit) => Some(exit),
        Ended::Killed => None,
    });
    for exit in exits {
        if has_disk && exit.told.unsafe_records > 0 {
            wrong.push(format!("an exit with a spool: {exit:?}"));
        }
        wrong.extend(untrue(exit));
    }
    let last = ends.last().copied();
    if let Some(Ended::Exited(exit)) = last
        && !world.is_stuck.get()
        && (exit.has_hurried || (!exit.told.is_clean && world.dropped.get() == 0))
    {
        wrong.push(format!("the last exit: {exit:?}"));
    }
    wrong
}

/// Says what is wrong with an exit, whatever was before it.
fn untrue(exit: &Exit) -> Option<String> {
    let what = if !exit.was_asked_for {
        "nobody asked for it"
    } else if exit.took > exit.took_max {
        "it took too long"
    } else if exit.told.is_clean != (exit.told.unsafe_records == 0) {
        "its code and its count differ"
    } else {
        return None;
    };
    Some(format!("exit: {what}: {exit:?}"))
}
