//! The envelope: header, kinds, and the two directions.

use alloc::vec::Vec;

use crate::bytes::{Reader, Writer};
use crate::{Hello, Job, MESSAGE_BYTES_MAX, Outcome, VERSION};

const HEADER_BYTES: usize = 8;

const KIND_HELLO: u16 = 1;
const KIND_JOB: u16 = 2;
const KIND_OUTCOME: u16 = 3;

/// Why bytes are not a message, or a value cannot become one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("message ends early")]
    Truncated,
    #[error("message has {bytes} bytes too many")]
    Trailing { bytes: usize },
    #[error("message of {bytes} bytes is longer than allowed")]
    TooLong { bytes: usize },
    #[error("other side speaks wire version {theirs}, this one {ours}")]
    Version { ours: u16, theirs: u16 },
    #[error("unknown or unexpected message kind {0}")]
    Kind(u16),
    /// A field is outside its range; the text names the field.
    #[error("{0} is out of range")]
    Value(&'static str),
}

/// What the server says.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    Job(Job),
}

impl ToWorker {
    /// # Errors
    /// Whatever [`parse`](Self::parse) would refuse at the other side.
    pub fn write(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Writer::default();
        match self {
            Self::Job(job) => job.write(&mut body)?,
        }
        frame(KIND_JOB, body)
    }

    /// # Errors
    /// [`WireError`] when `message` is anything but exactly one valid message of this version and direction.
    pub fn parse(message: &[u8]) -> Result<Self, WireError> {
        match unframe(message)? {
            (KIND_JOB, mut body) => {
                let job = Job::parse(&mut body)?;
                body.finish()?;
                Ok(Self::Job(job))
            }
            (kind, _) => Err(WireError::Kind(kind)),
        }
    }
}

/// What the worker says.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// Once, first, when the jail is locked.
    Hello(Hello),
    Outcome(Outcome),
}

impl FromWorker {
    /// # Errors
    /// Whatever [`parse`](Self::parse) would refuse at the other side.
    pub fn write(&self) -> Result<Vec<u8>, WireError> {
        let mut body = Writer::default();
        let kind = match self {
            Self::Hello(hello) => {
                hello.write(&mut body);
                KIND_HELLO
            }
            Self::Outcome(outcome) => {
                outcome.write(&mut body)?;
                KIND_OUTCOME
            }
        };
        frame(kind, body)
    }

    /// # Errors
    /// [`WireError`] when `message` is anything but exactly one valid message of this version and direction.
    pub fn parse(message: &[u8]) -> Result<Self, WireError> {
        let (kind, mut body) = unframe(message)?;
        let parsed = match kind {
            KIND_HELLO => Self::Hello(Hello::parse(&mut body)?),
            KIND_OUTCOME => Self::Outcome(Outcome::parse(&mut body)?),
            other => return Err(WireError::Kind(other)),
        };
        body.finish()?;
        Ok(parsed)
    }
}

fn frame(kind: u16, body: Writer) -> Result<Vec<u8>, WireError> {
    let body = body.into_bytes();
    let bytes = HEADER_BYTES + body.len();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong { bytes });
    }
    let mut message = Writer::default();
    message.u16(VERSION);
    message.u16(kind);
    message.u32(body.len() as u32);
    let mut message = message.into_bytes();
    message.extend_from_slice(&body);
    Ok(message)
}

fn unframe(message: &[u8]) -> Result<(u16, Reader<'_>), WireError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(WireError::TooLong { bytes: message.len() });
    }
    let mut header = Reader::new(message);
    let theirs = header.u16()?;
    if theirs != VERSION {
        return Err(WireError::Version { ours: VERSION, theirs });
    }
    let kind = header.u16()?;
    let announced = header.u32()?;
    let body = &message[HEADER_BYTES..];
    if announced as usize != body.len() {
        return Err(WireError::Value("body length"));
    }
    Ok((kind, Reader::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::arbitrary;
    use alloc::vec;
    use proptest::prelude::*;

    #[test]
    fn names_both_versions_when_they_differ() {
        let mut message = FromWorker::Outcome(arbitrary::outcome_example()).write().expect("a valid outcome");
        message[0] = 77;
        assert_eq!(FromWorker::parse(&message), Err(WireError::Version { ours: VERSION, theirs: 77 }));
    }

    #[test]
    fn a_job_is_not_an_answer() {
        let message = ToWorker::Job(arbitrary::job_example()).write().expect("a valid job");
        assert_eq!(FromWorker::parse(&message), Err(WireError::Kind(KIND_JOB)));
    }

    #[test]
    fn refuses_every_shortened_and_lengthened_message() {
        let message = FromWorker::Outcome(arbitrary::outcome_example()).write().expect("a valid outcome");
        for length in 0..message.len() {
            assert!(FromWorker::parse(&message[..length]).is_err(), "{length} of {} bytes", message.len());
        }
        let mut longer = message.clone();
        longer.push(0);
        assert!(FromWorker::parse(&longer).is_err());
        assert_eq!(FromWorker::parse(&vec![0; MESSAGE_BYTES_MAX + 1]), Err(WireError::TooLong { bytes: 2049 }));
    }

    proptest! {
        #[test]
        fn jobs_survive_the_trip(job in arbitrary::job()) {
            let message = ToWorker::Job(job.clone()).write().expect("a valid job");
            prop_assert_eq!(ToWorker::parse(&message), Ok(ToWorker::Job(job)));
        }

        #[test]
        fn hellos_survive_the_trip(hello in arbitrary::hello()) {
            let message = FromWorker::Hello(hello.clone()).write().expect("a valid hello");
            prop_assert_eq!(FromWorker::parse(&message), Ok(FromWorker::Hello(hello)));
        }

        #[test]
        fn outcomes_survive_the_trip(outcome in arbitrary::outcome()) {
            let message = FromWorker::Outcome(outcome.clone()).write().expect("a valid outcome");
            prop_assert_eq!(FromWorker::parse(&message), Ok(FromWorker::Outcome(outcome)));
        }

        #[test]
        fn any_bytes_are_refused_or_mean_themselves(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            crate::fuzz::messages(&bytes);
        }

        #[test]
        fn a_flipped_byte_never_panics(outcome in arbitrary::outcome(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut message = FromWorker::Outcome(outcome).write().expect("a valid outcome");
            let at = at.index(message.len());
            message[at] ^= 1 << bit;
            crate::fuzz::messages(&message);
        }
    }
}
