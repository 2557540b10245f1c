//! Retention by the store itself: a rule of the bucket removes the objects that bear our tag with its number of days.
//!
//! The bucket's rules are one document, which can only be read and written whole. Ours are put before its end, so that every
//! byte of the others stays as somebody wrote it.

use std::time::Duration;

use crate::store::{Retry, StoreError};

/// How long objects are put without a rule that could not be made since the store failed, before it is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// The same where a person has to mend something: a right that is missing, rules that we do not understand. Each try is two
/// requests and a line in the log.
const AGAIN_HELD: Duration = Duration::from_secs(3600);

/// Why a bucket's rule for a number of days could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuleError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("it could not be seen to within {0:?}")]
    TimedOut(Duration),
    #[error("the rules that the bucket has are no document that could be added to")]
    Unreadable,
}

impl RuleError {
    /// How long it is not tried again.
    pub(super) fn again(&self) -> Duration {
        match self {
            Self::TimedOut(_) => AGAIN,
            Self::Store(error) if error.retry() == Retry::Later => AGAIN,
            Self::Store(_) | Self::Unreadable => AGAIN_HELD,
        }
    }
}

/// The tag's name; its value is the number of days that the template says.
pub(super) const TAG: &str = "framehook-retention-days";

/// How many days later the rule removes an object than its template says. The store knows nothing of callbacks: this lets the
/// longest schedule of attempts, which is a day, end while the picture can still be fetched, and leaves a day for a store's
/// outage before the first of them.
const GRACE_DAYS: u32 = 2;

/// What the rule for `days` is called in the bucket.
pub fn rule_id(days: u32) -> String {
    format!("{TAG}-{days}")
}

/// The rule for `days`, in the words that COS and S3 share.
pub fn rule(days: u32) -> String {
    let (id, expires) = (rule_id(days), days.saturating_add(GRACE_DAYS));
    format!(
        "<Rule><ID>{id}</ID><Filter><Tag><Key>{TAG}</Key><Value>{days}</Value></Tag></Filter><Status>Enabled</Status>\
         <Expiration><Days>{expires}</Days></Expiration></Rule>"
    )
}

/// What becomes of a bucket's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Merged {
    /// Our rule is among them.
    Known,
    /// The document with our rule in it.
    Added(String),
    /// They are no document that we understand: it is better left alone.
    Unreadable,
}

/// Adds our rule to a document of rules; `None`: the bucket has none.
pub(super) fn merged(document: Option<&str>, days: u32) -> Merged {
    const END: &str = "</LifecycleConfiguration>";
    let rule = rule(days);
    let Some(document) = document else { return Merged::Added(format!("<LifecycleConfiguration>{rule}{END}")) };
    if document.contains(&format!("<ID>{}</ID>", rule_id(days))) {
        return Merged::Known;
    }
    match document.rfind(END) {
        Some(at) => Merged::Added(format!("{}{rule}{}", &document[..at], &document[at..])),
        // An empty document may be one element that ends in itself.
        None if document.contains("<LifecycleConfiguration") && !document.contains("<Rule") => merged(None, days),
        None => Merged::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(document: Option<&str>, days: u32) -> String {
        match merged(document, days) {
            Merged::Added(document) => document,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_rules_of_others_stay_as_they_are() {
        let theirs = "<?xml version=\"1.0\"?>\n<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                      <Rule><ID>logs</ID><Filter><Prefix>l/</Prefix></Filter><Status>Enabled</Status></Rule>\n";
        let once = added(Some(&format!("{theirs}</LifecycleConfiguration>")), 7);
        assert!(once.starts_with(theirs) && once.contains("<Value>7</Value>"), "{once}");
        assert_eq!(merged(Some(&once), 7), Merged::Known, "once is enough");
        let both = added(Some(&once), 70);
        assert!(both.contains("<Value>7</Value>") && both.contains("<Value>70</Value>"), "one for each number of days");
    }

    #[test]
    fn a_bucket_without_rules_gets_its_first() {
        for none in [None, Some("<LifecycleConfiguration/>"), Some("<LifecycleConfiguration xmlns=\"x\"/>")] {
            let document = added(none, 7);
            assert!(
                document.starts_with("<LifecycleConfiguration><Rule>")
                    && document.ends_with("</LifecycleConfiguration>")
            );
        }
        assert_eq!(merged(Some("<html>no such page</html>"), 7), Merged::Unreadable);
    }

    #[test]
    fn a_rule_that_could_not_be_made_is_tried_again_this_way_or_that() {
        let no_url = StoreError::NoUrl { bucket: "b".to_owned() };
        let timed_out = StoreError::TimedOut { host: "h".to_owned(), waited: AGAIN };
        let rows = [
            (RuleError::Unreadable, AGAIN_HELD),
            (no_url.into(), AGAIN_HELD),
            (timed_out.into(), AGAIN),
            (RuleError::TimedOut(AGAIN), AGAIN),
        ];
        for (error, again) in rows {
            assert_eq!(error.again(), again, "{error}");
        }
    }

    #[test]
    fn an_object_outlives_its_days_by_those_of_its_last_callback() {
        assert!(rule(7).contains("<Value>7</Value>") && rule(7).contains("<Days>9</Days>"), "{}", rule(7));
    }
}
