//! Retention by the store itself: a rule of the bucket removes the objects that bear our tag with its number of days.
//!
//! The bucket's rules are one document, which can only be read and written whole. Ours are put before its end, so that every
//! byte of the others stays as somebody wrote it.

/// The tag's name; its value is the number of days.
pub(super) const TAG: &str = "framehook-retention-days";

/// What the rule for `days` is called in the bucket.
pub fn rule_id(days: u32) -> String {
    format!("{TAG}-{days}")
}

/// The rule for `days`, in the words that COS and S3 share.
pub fn rule(days: u32) -> String {
    let id = rule_id(days);
    format!(
        "<Rule><ID>{id}</ID><Filter><Tag><Key>{TAG}</Key><Value>{days}</Value></Tag></Filter><Status>Enabled</Status>\
         <Expiration><Days>{days}</Days></Expiration></Rule>"
    )
}

/// The document with our rule in it. `None`: it has it already, or is none that we understand.
pub(super) fn merged(document: Option<&str>, days: u32) -> Option<String> {
    const END: &str = "</LifecycleConfiguration>";
    let rule = rule(days);
    let Some(document) = document else { return Some(format!("<LifecycleConfiguration>{rule}{END}")) };
    if document.contains(&format!("<ID>{}</ID>", rule_id(days))) {
        return None;
    }
    match document.rfind(END) {
        Some(at) => Some(format!("{}{rule}{}", &document[..at], &document[at..])),
        // An empty document may be one element that ends in itself.
        None if document.contains("<LifecycleConfiguration") && !document.contains("<Rule") => merged(None, days),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_others_stay_as_they_are() {
        let theirs = "<?xml version=\"1.0\"?>\n<LifecycleConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                      <Rule><ID>logs</ID><Filter><Prefix>l/</Prefix></Filter><Status>Enabled</Status></Rule>\n";
        let merged_once = merged(Some(&format!("{theirs}</LifecycleConfiguration>")), 7).expect("a document");
        assert!(merged_once.starts_with(theirs) && merged_once.contains("<Days>7</Days>"), "{merged_once}");
        assert_eq!(merged(Some(&merged_once), 7), None, "once is enough");
        let both = merged(Some(&merged_once), 70).expect("a rule for each number of days");
        assert!(both.contains("<Days>7</Days>") && both.contains("<Days>70</Days>"));
    }

    #[test]
    fn a_bucket_without_rules_gets_its_first() {
        for none in [None, Some("<LifecycleConfiguration/>"), Some("<LifecycleConfiguration xmlns=\"x\"/>")] {
            let document = merged(none, 7).expect("a document");
            assert!(
                document.starts_with("<LifecycleConfiguration><Rule>")
                    && document.ends_with("</LifecycleConfiguration>")
            );
        }
        assert_eq!(merged(Some("<html>no such page</html>"), 7), None, "what is no such document is left alone");
    }
}
