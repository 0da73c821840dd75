//! Amounts as people write them: `2GiB`, `1.5` CPUs, `90s`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Why an amount was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number of bytes.
    #[error("`{0}` is no amount of memory: write `2GiB`, `512MiB` or `1500MB`")]
    Bytes(String),
    /// Not a number of CPUs.
    #[error("`{0}` is no number of CPUs: write `2`, `0.5` or `500m`")]
    Cpus(String),
    /// Not a duration.
    #[error("`{0}` is no duration: write `90s`, `500ms` or `5m`")]
    Span(String),
}

/// An amount of memory or disk, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct Bytes(pub u64);

/// An amount of CPU, in thousandths of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct Cpus(pub u32);

/// A duration, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Scalar", into = "String")]
pub struct Span(pub u64);

/// A YAML scalar that may be written as a number or as text.
#[derive(Debug, Clone, PartialEq)]
pub struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as `2`, `500m` or `2GiB`")
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(text.to_owned()))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Scalar, E> {
                Ok(Scalar(number.to_string()))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn split_unit(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().ok()?;
    Some((number, text[end..].trim()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked to be finite and within range"
)]
fn scaled(number: f64, factor: f64, max: f64) -> Option<u64> {
    let value = (number * factor).round();
    (value.is_finite() && value >= 0.0 && value <= max).then_some(value as u64)
}

impl FromStr for Bytes {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parse = || {
            let (number, unit) = split_unit(text)?;
            let factor = match unit {
                "" | "B" => 1.0,
                "k" | "K" | "kB" | "KB" => 1e3,
                "M" | "MB" => 1e6,
                "G" | "GB" => 1e9,
                "T" | "TB" => 1e12,
                "Ki" | "KiB" => 1024.0,
                "Mi" | "MiB" => 1_048_576.0,
                "Gi" | "GiB" => 1_073_741_824.0,
                "Ti" | "TiB" => 1_099_511_627_776.0,
                _ => return None,
            };
            scaled(number, factor, 1e18).map(Bytes)
        };
        parse().ok_or_else(|| QuantityError::Bytes(text.to_owned()))
    }
}

impl FromStr for Cpus {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parse = || {
            let (number, unit) = split_unit(text)?;
            let factor = match unit {
                "" => 1000.0,
                "m" => 1.0,
                _ => return None,
            };
            scaled(number, factor, 1e9).and_then(|millis| u32::try_from(millis).ok()).map(Cpus)
        };
        parse().ok_or_else(|| QuantityError::Cpus(text.to_owned()))
    }
}

impl FromStr for Span {
    type Err = QuantityError;
    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parse = || {
            let (number, unit) = split_unit(text)?;
            let factor = match unit {
                "ms" => 1.0,
                "s" => 1e3,
                "m" => 6e4,
                "h" => 3.6e6,
                _ => return None,
            };
            scaled(number, factor, 1e15).map(Span)
        };
        parse().ok_or_else(|| QuantityError::Span(text.to_owned()))
    }
}

impl Span {
    /// The duration that this is.
    #[must_use]
    pub const fn duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }

    /// This many seconds.
    #[must_use]
    pub const fn seconds(seconds: u64) -> Self {
        Self(seconds * 1000)
    }

    /// This many milliseconds.
    #[must_use]
    pub const fn millis(millis: u64) -> Self {
        Self(millis)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size)) {
            Some((size, unit)) => write!(f, "{}{unit}", self.0 / size),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}", self.0 / 1000)
        } else {
            write!(f, "{}m", self.0)
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}s", self.0 / 1000)
        } else {
            write!(f, "{}ms", self.0)
        }
    }
}

macro_rules! amount {
    ($name:ident, $description:literal, $examples:tt) => {
        impl TryFrom<Scalar> for $name {
            type Error = QuantityError;
            fn try_from(scalar: Scalar) -> Result<Self, QuantityError> {
                scalar.0.parse()
            }
        }
        impl From<$name> for String {
            fn from(amount: $name) -> String {
                amount.to_string()
            }
        }
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": ["string", "number"], "description": $description, "examples": $examples,
                })
            }
        }
    };
}

amount!(Bytes, "An amount of memory or disk.", ["2GiB", "512MiB"]);
amount!(Cpus, "A number of CPUs.", [2, 0.5, "500m"]);
amount!(Span, "A duration.", ["90s", "500ms"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_back_as_written() {
        assert_eq!("2GiB".parse(), Ok(Bytes(2 << 30)));
        assert_eq!("2Gi".parse(), Ok(Bytes(2 << 30)));
        assert_eq!("1.5".parse(), Ok(Cpus(1500)));
        assert_eq!("500m".parse(), Ok(Cpus(500)));
        assert_eq!("90s".parse(), Ok(Span(90_000)));
        for bytes in [0, 1, 1023, 1 << 20, 3 << 30] {
            assert_eq!(Bytes(bytes).to_string().parse(), Ok(Bytes(bytes)));
        }
        for bad in ["", "GiB", "-1GiB", "2 parsecs"] {
            assert!(bad.parse::<Bytes>().is_err(), "{bad}");
        }
    }
}
