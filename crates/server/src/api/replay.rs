//! Requests signed with version 1, which must not be carried out twice.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use framehook_tc3::error::{ApiError, ErrorCode};
use framehook_tc3::sign::TIME_WINDOW_SECS;
use framehook_tc3::time::UnixSecs;

/// Signatures that are remembered. Only holders of a key add to them, and each is forgotten once its time stamp is too old
/// to be accepted: 166 requests a second for ten minutes, in some 10 MiB.
const SIGNATURES_MAX: usize = 100_000;

/// The signatures that were accepted and could be again. A new process knows none: what was sent to the one before it can be
/// repeated within five minutes, once.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// With the last second in which each could be accepted.
    signatures: Mutex<HashMap<String, UnixSecs>>,
}

impl Seen {
    /// Lets a signature pass that was not seen before.
    ///
    /// # Errors
    /// `AuthFailure.SignatureFailure` if it was, `RequestLimitExceeded` if no more can be remembered.
    pub(super) fn admit(&self, signature: String, timestamp: UnixSecs, now: UnixSecs) -> Result<(), ApiError> {
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        if signatures.contains_key(&signature) {
            return Err(ApiError::signature_reused());
        }
        if signatures.len() >= SIGNATURES_MAX {
            signatures.retain(|_, until| now <= *until);
            if signatures.len() >= SIGNATURES_MAX {
                let message = "Too many requests with a signature of version 1; wait a minute or use TC3-HMAC-SHA256.";
                return Err(ApiError::new(ErrorCode::RequestLimitExceeded, message));
            }
        }
        signatures.insert(signature, timestamp.plus_secs(TIME_WINDOW_SECS));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSecs = UnixSecs(1_735_689_600);

    #[test]
    fn a_signature_passes_once() {
        let seen = Seen::default();
        assert_eq!(seen.admit("a".to_owned(), NOW, NOW), Ok(()));
        assert_eq!(seen.admit("b".to_owned(), NOW, NOW), Ok(()));
        assert_eq!(seen.admit("a".to_owned(), NOW, NOW), Err(ApiError::signature_reused()));
    }

    #[test]
    fn what_could_be_accepted_again_is_not_forgotten_for_want_of_room() {
        let seen = Seen::default();
        for index in 0..SIGNATURES_MAX {
            seen.admit(index.to_string(), NOW, NOW).expect("room");
        }
        let last = NOW.plus_secs(TIME_WINDOW_SECS);
        let full = seen.admit("one more".to_owned(), last, last).expect_err("no room");
        assert_eq!(full.code, ErrorCode::RequestLimitExceeded);
        let later = last.plus_secs(1);
        assert_eq!(seen.admit("one more".to_owned(), later, later), Ok(()));
        assert_eq!(seen.signatures.lock().expect("no panic").len(), 1);
    }
}
