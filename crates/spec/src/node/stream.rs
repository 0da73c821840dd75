//! How commands and files travel to a node over a connection that cannot say how it ended.
//!
//! Connections of container engines look the same when the input is complete and when whoever typed it is gone. So what is run
//! through `bivouac agent exec` and `agent put` reads *frames* from its standard input: four bytes with a length, the highest
//! first, then as many bytes. A length of 0 ends the input. An end of the stream, before or after that, says that nobody wants the
//! command any more.
//!
//! An exit code cannot say whether a command ended with it or was never started. So the first line on standard error is an
//! [`Answer`], always; what follows it is the command's own.

use serde::{Deserialize, Serialize};

use crate::Problem;

/// The most bytes in a frame.
pub const FRAME_MAX: usize = 64 * 1024;

/// The bytes before those of a frame. 0 ends the input.
///
/// # Panics
/// When the frame is longer than [`FRAME_MAX`].
#[must_use]
pub fn head(length: usize) -> [u8; 4] {
    assert!(length <= FRAME_MAX, "a frame has at most {FRAME_MAX} bytes, not {length}");
    u32::try_from(length).expect("FRAME_MAX is less than u32::MAX").to_be_bytes()
}

/// A frame that is longer than [`FRAME_MAX`]: what is read are no frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {0} bytes is longer than {FRAME_MAX}")]
pub struct TooLong(u32);

/// A part of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part<'a> {
    /// Bytes of it, never none.
    Data(&'a [u8]),
    /// It is complete.
    End,
}

/// Takes frames apart, in whatever pieces they arrive.
#[derive(Debug, Clone, Default)]
pub struct Decoder {
    head: [u8; 4],
    /// How many bytes of the head there are.
    known: usize,
    /// How many bytes of the frame are still to come.
    left: usize,
    ended: bool,
}

impl Decoder {
    /// Takes the next part off the front of `bytes`; `None` when all of them are used up. What follows the end is swallowed.
    ///
    /// # Errors
    /// A frame is too long.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Part<'a>>, TooLong> {
        while !self.ended && !bytes.is_empty() {
            if self.left > 0 {
                let (data, rest) = bytes.split_at(self.left.min(bytes.len()));
                (*bytes, self.left) = (rest, self.left - data.len());
                return Ok(Some(Part::Data(data)));
            }
            let (part, rest) = bytes.split_at((4 - self.known).min(bytes.len()));
            self.head[self.known..self.known + part.len()].copy_from_slice(part);
            (*bytes, self.known) = (rest, self.known + part.len());
            if self.known == 4 {
                let length = u32::from_be_bytes(self.head);
                self.known = 0;
                self.left = usize::try_from(length)
                    .ok()
                    .filter(|length| *length <= FRAME_MAX)
                    .ok_or(TooLong(length))?;
                self.ended = length == 0;
                if self.ended {
                    return Ok(Some(Part::End));
                }
            }
        }
        *bytes = &[];
        Ok(None)
    }

    /// Whether the input is complete.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }
}

/// What the agent says of a command before anything else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is being started: the exit code will be its own.
    Started(bool),
    /// Nothing was started.
    Problem(Problem),
}

impl Answer {
    /// The line that says so, with the newline.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("an answer has string keys only");
        line.push('\n');
        line
    }

    /// Reads a line; `None` when it is no answer.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn answers_read_back() {
        assert_eq!(Answer::Started(true).line(), "{\"started\":true}\n");
        let problem = Answer::Problem(Problem::failed("agent.exec.not_found", "no\nsuch program"));
        assert_eq!(problem.line().matches('\n').count(), 1);
        for answer in [Answer::Started(true), problem] {
            assert_eq!(Answer::parse(&answer.line()), Some(answer));
        }
        assert_eq!(Answer::parse("OCI runtime exec failed"), None);
    }

    #[test]
    fn what_are_no_frames_is_refused() {
        let mut bytes = &b"GET / HTTP/1.1"[..];
        let error = Decoder::default().next(&mut bytes).unwrap_err();
        assert_eq!(error.to_string(), "a frame of 1195725856 bytes is longer than 65536");
    }

    proptest! {
        #[test]
        fn frames_come_apart_however_they_are_cut(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..8),
            complete: bool,
            cut in 1_usize..400,
        ) {
            let mut stream: Vec<u8> = Vec::new();
            for frame in &frames {
                stream.extend(head(frame.len()));
                stream.extend(frame);
            }
            if complete {
                stream.extend(head(0));
                stream.extend(b"swallowed");
            }
            let (mut decoder, mut data, mut ends) = (Decoder::default(), Vec::<u8>::new(), 0);
            for mut piece in stream.chunks(cut) {
                while let Some(part) = decoder.next(&mut piece).unwrap() {
                    match part {
                        Part::Data(bytes) => data.extend(bytes),
                        Part::End => ends += 1,
                    }
                }
            }
            prop_assert_eq!(data, frames.concat());
            prop_assert_eq!(ends, usize::from(complete));
            prop_assert_eq!(decoder.has_ended(), complete);
        }
    }
}
