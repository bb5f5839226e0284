//! The payloads of devices: JSON with readings that look real, the device, a sequence number, padded
//! to one size.
//!
//! The fleet renders it, the audit reads it back. A payload names its run, so that a sink may hold
//! several runs. Invariant: every payload of a run has exactly the size that was asked for, and
//! `Origin::of` reads from it what it was made of. A size below [`BYTES_MIN`] is an error.

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde_json::Value;

use crate::random::Random;

/// The least that holds every field at its longest.
pub(crate) const BYTES_MIN: usize = 256;

/// The most that a payload has: the gateway's own limit for a body.
pub(crate) const BYTES_MAX: usize = 10 << 20;

/// The most devices: names have six digits.
pub(crate) const DEVICES_MAX: u32 = 1_000_000;

const _: () = assert!(BYTES_MIN < BYTES_MAX);

/// Names one run of the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RunId(pub u32);

impl std::fmt::Display for RunId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl std::str::FromStr for RunId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 16).map(Self)
    }
}

/// The name of a device, as its certificate says it, and with it the gateway.
pub(crate) fn device_name(device: u32) -> String {
    format!("load-{device:06}")
}

/// The sender of a payload, as the payload says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub run: RunId,
    pub device: u32,
    pub sequence: u32,
}

impl Origin {
    /// `None` where the payload is not ours, or damaged.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(payload).ok()?;
        let device = value["device"].as_str()?.strip_prefix("load-")?;
        let sequence = value["sequence"].as_u64()?;
        Some(Self {
            run: value["run"].as_str()?.parse().ok()?,
            device: device.parse().ok()?,
            sequence: sequence.try_into().ok()?,
        })
    }
}

/// The payloads of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Template {
    run: RunId,
    bytes: usize,
}

impl Template {
    pub(crate) fn new(run: RunId, bytes: usize) -> Result<Self> {
        ensure!(
            (BYTES_MIN..=BYTES_MAX).contains(&bytes),
            "a payload has {BYTES_MIN} to {BYTES_MAX} bytes, not {bytes}"
        );
        Ok(Self { run, bytes })
    }

    /// The reading of a device; its values depend on `random` only.
    pub(crate) fn render(&self, device: u32, sequence: u32, random: &mut Random) -> Bytes {
        const END: &str = "\"}";
        debug_assert!(device < DEVICES_MAX, "names have six digits");
        let mut text = format!(
            r#"{{"run":"{}","device":"{}","sequence":{sequence},{},"padding":""#,
            self.run,
            device_name(device),
            readings(random),
        );
        let padding = self.bytes - text.len() - END.len();
        text.extend(std::iter::repeat_n('.', padding));
        text.push_str(END);
        debug_assert_eq!(text.len(), self.bytes, "all payloads have one size");
        text.into()
    }
}

/// The members of an object that a sensor would send.
fn readings(random: &mut Random) -> String {
    let mut between = |low, high| random.between(low, high);
    format!(
        r#""temperature_c":{:.2},"humidity_pct":{:.1},"pressure_hpa":{:.1},"vibration_mm_s":{:.3},"battery_v":{:.2},"rssi_dbm":{:.0}"#,
        between(18.0, 26.0),
        between(30.0, 60.0),
        between(990.0, 1030.0),
        between(0.1, 4.5),
        between(3.3, 4.2),
        between(-90.0, -40.0),
    )
}

/// The first 8 bytes of the SHA-256.
pub(crate) fn digest(payload: &[u8]) -> u64 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, payload);
    let first = digest
        .as_ref()
        .first_chunk()
        .expect("a digest has 32 bytes");
    u64::from_le_bytes(*first)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_payload_has_its_size_and_says_where_it_comes_from(
            run: u32, device in 0..DEVICES_MAX, sequence: u32, seed: u64, bytes in BYTES_MIN..2000_usize,
        ) {
            let template = Template::new(RunId(run), bytes).unwrap();
            let payload = template.render(device, sequence, &mut Random::new(seed));
            prop_assert_eq!(payload.len(), bytes);
            prop_assert_eq!(Origin::of(&payload), Some(Origin { run: RunId(run), device, sequence }));
        }

        #[test]
        fn other_bytes_have_another_digest(at in 0..344_usize, bit in 0..8_u8) {
            let payload = Template::new(RunId(1), 344).unwrap().render(1, 1, &mut Random::new(1));
            let mut changed = payload.to_vec();
            changed[at] ^= 1 << bit;
            prop_assert_ne!(digest(&payload), digest(&changed));
        }
    }

    #[test]
    fn what_is_not_ours_has_no_origin() {
        for payload in [
            &b""[..],
            b"{}",
            b"{\"run\":\"00000001\",\"device\":\"plc-7\",\"sequence\":1}",
            b"\xff",
        ] {
            assert_eq!(Origin::of(payload), None);
        }
        assert!(Template::new(RunId(1), BYTES_MIN - 1).is_err());
    }
}
