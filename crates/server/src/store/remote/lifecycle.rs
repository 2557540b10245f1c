//! Retention by the store itself: a rule of the bucket removes the objects that bear our tag with its number of days.
//!
//! The bucket's rules are one document, which can only be read and written whole. Ours are put before its end, so that every
//! byte of the others stays as somebody wrote it.

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
    fn an_object_outlives_its_days_by_those_of_its_last_callback() {
        assert!(rule(7).contains("<Value>7</Value>") && rule(7).contains("<Days>9</Days>"), "{}", rule(7));
    }
}
