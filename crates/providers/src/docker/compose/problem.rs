//! Problems of this provider.

use std::fmt::Display;

use bivouac_spec::{Class, Problem};

/// A failure with the code `provider.compose.CODE`.
pub(super) fn failed(code: &str, message: impl Display) -> Problem {
    Problem::failed(format!("provider.compose.{code}"), message.to_string())
}

/// A deadline that passed, with the code `provider.compose.CODE`.
pub(super) fn timed_out(code: &str, message: impl Display) -> Problem {
    Problem::new(Class::TimedOut, format!("provider.compose.{code}"), message.to_string())
}

/// Something that the ground lacks, with the code `provider.compose.CODE`.
pub(super) fn unfit(code: &str, message: impl Display) -> Problem {
    Problem::new(Class::Unfit, format!("provider.compose.{code}"), message.to_string())
}

/// A wrong command, with the code `provider.compose.CODE`.
pub(super) fn usage(code: &str, message: impl Display) -> Problem {
    Problem::usage(format!("provider.compose.{code}"), message.to_string())
}
