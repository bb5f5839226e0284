//! What a device does in a run beyond sending on time: when it joins, how much it sends, when it is
//! cut off.
//!
//! A pure function from scenario and device to a [`Plan`]; the device's task follows it.

use std::time::Duration;

use crate::client::Pace;
use crate::random::Random;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
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
}

/// One device in so many is noisy,
const NOISY_ONE_IN: u32 = 100;
/// and sends so many times its share.
const NOISY_FACTOR: u32 = 100;

const SLOW: Pace = Pace {
    piece_bytes: 100,
    pause: Duration::from_millis(50),
};

/// Whose requests are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    Fleet = 0,
    Noisy = 1,
}

impl Group {
    pub const COUNT: usize = 2;
}

/// An interruption of a device's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// From the start of the run.
    pub at: Duration,
    pub new_certificate: bool,
}

/// What one device does.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub group: Group,
    pub interval: Duration,
    pub joins_at: Duration,
    /// It connects when it joins, not before the run.
    pub joins_late: bool,
    pub cut: Option<Break>,
    pub pace: Option<Pace>,
}

impl Scenario {
    /// `share` is where the device stands in the fleet, from 0 up to 1.
    pub fn plan(
        self,
        device: u32,
        share: f64,
        interval: Duration,
        duration: Duration,
        random: &mut Random,
    ) -> Plan {
        let mut plan = Plan {
            group: Group::Fleet,
            interval,
            joins_at: Duration::ZERO,
            joins_late: false,
            cut: None,
            pace: None,
        };
        match self {
            Self::Steady => {}
            Self::Ramp => {
                plan.joins_at = duration.mul_f64(share / 2.0);
                plan.joins_late = true;
            }
            Self::ReconnectStorm => {
                plan.cut = Some(Break {
                    at: duration / 2,
                    new_certificate: false,
                })
            }
            Self::NoisyNeighbour if device.is_multiple_of(NOISY_ONE_IN) => {
                plan.group = Group::Noisy;
                plan.interval = interval / NOISY_FACTOR;
            }
            Self::NoisyNeighbour => {}
            Self::SlowNetwork => plan.pace = Some(SLOW),
            Self::CertificateChurn => {
                plan.cut = Some(Break {
                    at: duration.mul_f64(random.fraction()),
                    new_certificate: true,
                });
            }
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Duration = Duration::from_secs(60);

    fn plans(scenario: Scenario) -> Vec<Plan> {
        let plan = |device| {
            let share = f64::from(device) / 1000.0;
            scenario.plan(
                device,
                share,
                Duration::from_secs(5),
                RUN,
                &mut Random::of(1, device),
            )
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
        assert!(plans[999].joins_at > RUN.mul_f64(0.49) && plans[999].joins_at < RUN / 2);
    }

    #[test]
    fn a_storm_is_one_moment_and_churn_is_spread() {
        assert!(
            plans(Scenario::ReconnectStorm)
                .iter()
                .all(|plan| plan.cut.unwrap().at == RUN / 2)
        );
        let churn: Vec<_> = plans(Scenario::CertificateChurn)
            .iter()
            .map(|plan| plan.cut.unwrap().at)
            .collect();
        assert!((450..550).contains(&churn.iter().filter(|at| **at < RUN / 2).count()));
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
