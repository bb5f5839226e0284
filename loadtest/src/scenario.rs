//! Scenarios of a run, beyond sending on time: when a device joins, how much it sends, when it is cut
//! off.
//!
//! A pure function from scenario and device to a [`Plan`]; the device's task follows it.

use std::time::Duration;

use crate::client::Pace;
use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scenario {
    /// All devices are connected before the run begins, and send on time
    Steady,
    /// Devices join one after the other during the first half
    Ramp,
    /// Half-way all devices lose their connection at once, and want it back at once
    ReconnectStorm,
    /// One device in a hundred sends 100 times its share
    NoisyNeighbour,
    /// Bodies come in small pieces with pauses, about 2 KB/s a device
    SlowNetwork,
    /// Every device takes a new certificate and connects anew once in the run
    CertificateChurn,
    /// Devices come and go, one in ten without a word, and one in a hundred sends 100 times its share
    Restless,
}

/// One device in so many is noisy.
const NOISY_ONE_IN: u32 = 100;
/// A noisy device sends so many times its share.
const NOISY_FACTOR: u32 = 100;

/// A restless device comes back so often in a run.
const VISITS: u32 = 5;
/// One restless device in so many goes without a word.
const SILENT_ONE_IN: u32 = 10;

const SLOW: Pace = Pace {
    piece_bytes: 100,
    pause: Duration::from_millis(50),
};

/// The devices whose requests are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Fleet = 0,
    Noisy = 1,
}

impl Group {
    pub(crate) const COUNT: usize = 2;
}

const _: () = assert!((Group::Noisy as usize) < Group::COUNT, "it is the last one");

/// An interruption of a device's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Break {
    /// The time of it, from the start of the run.
    pub at: Duration,
    /// The time to the next one, where there is another.
    pub every: Option<Duration>,
    pub new_certificate: bool,
    /// The device goes in the middle of a request, and neither closes its connection nor uses it again.
    pub is_silent: bool,
}

impl Break {
    /// One that comes alone, and is told to the server as the end of a connection is.
    fn once(at: Duration) -> Self {
        Self {
            at,
            every: None,
            new_certificate: false,
            is_silent: false,
        }
    }

    /// The one after it, if that is in the run.
    pub(crate) fn next(self, duration: Duration) -> Option<Self> {
        let at = self.at + self.every?;
        (at < duration).then_some(Self { at, ..self })
    }
}

/// Plan of one device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub group: Group,
    pub interval: Duration,
    pub joins_at: Duration,
    /// It connects when it joins, not before the run.
    pub joins_late: bool,
    pub cut: Option<Break>,
    pub pace: Option<Pace>,
}

/// Length of a run, and the interval at which a device sends in it.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub interval: Duration,
    pub duration: Duration,
}

impl Plan {
    /// A device that is there from the start and sends on time.
    fn steady(interval: Duration) -> Self {
        Self {
            group: Group::Fleet,
            interval,
            joins_at: Duration::ZERO,
            joins_late: false,
            cut: None,
            pace: None,
        }
    }
}

impl Scenario {
    /// Draws a device's plan of a run; `share` is its place in the fleet, from 0 up to 1.
    pub(crate) fn plan(self, device: u32, share: f64, run: Run, random: &mut Random) -> Plan {
        debug_assert!((0.0..1.0).contains(&share), "a place in the fleet");
        let mut plan = Plan::steady(run.interval);
        match self {
            Self::Steady => {}
            Self::Ramp => {
                plan.joins_at = run.duration.mul_f64(share / 2.0);
                plan.joins_late = true;
            }
            Self::ReconnectStorm => plan.cut = Some(Break::once(run.duration / 2)),
            Self::NoisyNeighbour | Self::Restless if device.is_multiple_of(NOISY_ONE_IN) => {
                plan.group = Group::Noisy;
                plan.interval = run.interval / NOISY_FACTOR;
            }
            Self::NoisyNeighbour => {}
            Self::SlowNetwork => plan.pace = Some(SLOW),
            Self::CertificateChurn => {
                plan.cut = Some(Break {
                    new_certificate: true,
                    ..Break::once(run.duration.mul_f64(random.fraction()))
                });
            }
            Self::Restless => {
                let every = run.duration / VISITS;
                plan.cut = Some(Break {
                    every: Some(every),
                    is_silent: device.is_multiple_of(SILENT_ONE_IN),
                    ..Break::once(every.mul_f64(random.fraction()))
                });
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run {
        interval: Duration::from_secs(5),
        duration: Duration::from_secs(60),
    };

    fn plans(scenario: Scenario) -> Vec<Plan> {
        let plan = |device| {
            let share = f64::from(device) / 1000.0;
            scenario.plan(device, share, RUN, &mut Random::of(1, device))
        };
        (0..1000).map(plan).collect()
    }

    #[test]
    fn a_ramp_fills_the_first_half() {
        let plans = plans(Scenario::Ramp);
        assert!(
            plans.is_sorted_by_key(|plan| plan.joins_at)
                && plans.iter().all(|plan| plan.joins_late)
        );
        assert!(
            plans[999].joins_at > RUN.duration.mul_f64(0.49)
                && plans[999].joins_at < RUN.duration / 2
        );
    }

    #[test]
    fn a_storm_is_one_moment_and_churn_is_spread() {
        assert!(
            plans(Scenario::ReconnectStorm)
                .iter()
                .all(|plan| plan.cut.unwrap().at == RUN.duration / 2)
        );
        let churn: Vec<_> = plans(Scenario::CertificateChurn)
            .iter()
            .map(|plan| plan.cut.unwrap().at)
            .collect();
        assert!((450..550).contains(&churn.iter().filter(|at| **at < RUN.duration / 2).count()));
    }

    #[test]
    fn a_restless_device_comes_back_until_the_run_ends() {
        let plans = plans(Scenario::Restless);
        let noisy = plans.iter().filter(|plan| plan.group == Group::Noisy);
        assert_eq!(noisy.count(), 10);
        let mut silent = 0;
        for first in plans.iter().filter_map(|plan| plan.cut) {
            let next = |cut: &Break| cut.next(RUN.duration);
            let breaks: Vec<_> = std::iter::successors(Some(first), next).collect();
            assert_eq!(breaks.len(), VISITS as usize);
            assert!(breaks.iter().all(|cut| cut.at < RUN.duration));
            silent += usize::from(first.is_silent);
        }
        assert_eq!(silent, 90);
    }

    #[test]
    fn one_in_a_hundred_is_noisy() {
        let plans = plans(Scenario::NoisyNeighbour);
        let noisy: Vec<_> = plans
            .iter()
            .filter(|plan| plan.group == Group::Noisy)
            .collect();
        assert_eq!(noisy.len(), 10);
        assert!(
            noisy
                .iter()
                .all(|plan| plan.interval == Duration::from_millis(50))
        );
    }
}
