//! Waiting for something to become true, with a deadline and never by a fixed sleep.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition that nobody can signal is looked at again. Short beside every deadline a test would set, long
/// enough that a hundred waiting tests do not load the machine they measure.
const POLL_EVERY: Duration = Duration::from_millis(5);

/// Looks at `condition` until it gives a value.
///
/// # Errors
/// When it gave none within `patience`; the message says what was waited for.
pub fn until<T>(what: &str, patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {patience:?} in vain for {what}");
        }
        std::thread::sleep(POLL_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_first_value_the_condition_gives() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some("here")
        });
        assert_eq!(value.unwrap(), "here");
        assert_eq!(looks, 3);
    }

    #[test]
    fn names_what_never_came() {
        let failure = until::<()>("a miracle", Duration::from_millis(20), || None).unwrap_err();
        assert_eq!(failure.to_string(), "waited 20ms in vain for a miracle");
    }
}
