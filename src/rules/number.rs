//! Numbers as a schema judges them, by their own text.
//!
//! A number has as many digits as its device likes. Whether it is an integer is answered exactly;
//! where a schema compares, it is the nearest double, as JSON Schema has it, but never an infinity
//! and never a zero that it is not.

use std::borrow::Cow;

use jsonschema::json::JsonNumber;
use serde_json::Number;

/// A number of a record, by its text, which is JSON.
#[derive(Clone, Copy)]
pub(super) struct Decimal<'a>(pub &'a str);

impl JsonNumber for Decimal<'_> {
    fn as_u64(&self) -> Option<u64> {
        self.0.parse().ok()
    }

    fn as_i64(&self) -> Option<i64> {
        self.0.parse().ok()
    }

    fn as_f64(&self) -> Option<f64> {
        Some(self.nearest())
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        Cow::Owned(self.number())
    }

    fn is_integer(&self) -> bool {
        !self.0.contains(['.', 'e', 'E']) || self.is_whole()
    }
}

impl Decimal<'_> {
    pub(super) fn number(self) -> Number {
        if let Some(number) = self.as_u64() {
            return number.into();
        }
        if let Some(number) = self.as_i64() {
            return number.into();
        }
        Number::from_f64(self.nearest()).expect("the nearest double is finite")
    }

    /// The double that is nearest, among those that are finite and are zero only where the number
    /// is.
    fn nearest(self) -> f64 {
        const SMALLEST: f64 = f64::from_bits(1);
        let double: f64 = self.0.parse().expect("JSON's numbers are Rust's");
        if double.is_infinite() {
            return f64::MAX.copysign(double);
        }
        let is_lost = double == 0.0 && self.significand().bytes().any(is_not_zero);
        if is_lost {
            SMALLEST.copysign(double)
        } else {
            double
        }
    }

    /// The text before the exponent.
    fn significand(&self) -> &str {
        let end = self.0.find(['e', 'E']);
        &self.0[..end.unwrap_or(self.0.len())]
    }

    /// Whether a number with a fraction or an exponent is an integer nevertheless: `1.50e1` is.
    fn is_whole(self) -> bool {
        let significand = self.significand();
        let (integer, fraction) = significand.split_once('.').unwrap_or((significand, ""));
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() && !integer.bytes().any(is_not_zero) {
            return true;
        }
        // Digits behind the point, or less zeros before it: at most so many may the exponent take.
        let zeros = integer.len() - integer.trim_end_matches('0').len();
        let digits = match fraction.len() {
            0 => -(zeros as i64),
            digits => digits as i64,
        };
        digits <= self.exponent()
    }

    /// The exponent; one beyond 64 bits is as good as the largest.
    fn exponent(self) -> i64 {
        let Some(at) = self.0.find(['e', 'E']) else {
            return 0;
        };
        let text = &self.0[at + 1..];
        let beyond = if text.starts_with('-') {
            i64::MIN
        } else {
            i64::MAX
        };
        text.parse().unwrap_or(beyond)
    }
}

fn is_not_zero(digit: u8) -> bool {
    matches!(digit, b'1'..=b'9')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_is_one_however_it_is_written() {
        let huge = "9".repeat(400);
        let integers = [
            "0",
            "-0.0e-7",
            "1.50e1",
            "10e-1",
            "1e400",
            &huge,
            "0e99999999999999999999",
        ];
        for text in integers {
            assert!(Decimal(text).is_integer(), "{text}");
        }
        let fraction = format!("{huge}.5");
        for text in [
            "0.5",
            "15e-1",
            "1e-400",
            "1.5e0",
            &fraction,
            "1e-99999999999999999999",
        ] {
            assert!(!Decimal(text).is_integer(), "{text}");
        }
    }

    #[test]
    fn no_number_is_an_infinity_or_becomes_zero() {
        let huge = "9".repeat(400);
        assert_eq!(Decimal(&huge).as_f64(), Some(f64::MAX));
        assert_eq!(Decimal("-1e999").as_f64(), Some(f64::MIN));
        assert!(Decimal("1e-999").as_f64() > Some(0.0));
        assert!(Decimal("-1e-999").as_f64() < Some(0.0));
        assert_eq!(Decimal("0e-999").as_f64(), Some(0.0));
        assert_eq!(Decimal("18446744073709551615").as_u64(), Some(u64::MAX));
        assert_eq!(Decimal("-1").as_i64(), Some(-1));
        assert_eq!(Decimal("1.0").as_u64(), None);
    }
}
