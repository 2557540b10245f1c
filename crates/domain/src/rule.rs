//! Who gets which template (CSS, 267/30835 and 267/30816): a rule binds one to a domain, an app or a stream, and the most
//! specific rule wins.

use alloc::collections::BTreeMap;
use core::fmt;

use crate::{
    field::FieldError,
    id::{RuleId, TemplateId},
    stream::{AppName, DomainName, StreamId, StreamName},
};

/// What a rule applies to; also its identity, for there is at most one rule per scope. CSS writes "every" as `""` or
/// `*`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleScope {
    pub domain: DomainName,
    /// `None`: every app.
    pub app: Option<AppName>,
    /// `None`: every stream.
    pub stream: Option<StreamName>,
}

impl RuleScope {
    /// Reads a scope as the API and the configuration file write it: `""` and `*` for every app or every stream.
    ///
    /// # Errors
    /// A malformed domain, app or stream name.
    pub fn parse(domain: &str, app: &str, stream: &str) -> Result<Self, FieldError> {
        let is_every = |text: &str| matches!(text, "" | "*");
        Ok(Self {
            domain: DomainName::parse(domain)?,
            app: if is_every(app) { None } else { Some(AppName::parse(app)?) },
            stream: if is_every(stream) { None } else { Some(StreamName::parse(stream)?) },
        })
    }

    pub fn covers(&self, stream: &StreamId) -> bool {
        self.domain == stream.domain
            && self.app.as_ref().is_none_or(|app| *app == stream.app)
            && self.stream.as_ref().is_none_or(|name| *name == stream.name)
    }

    /// Every scope that covers `stream`, the most specific first.
    pub fn covering(stream: &StreamId) -> [Self; 4] {
        let scope = |app: Option<&AppName>, name: Option<&StreamName>| Self {
            domain: stream.domain.clone(),
            app: app.cloned(),
            stream: name.cloned(),
        };
        let (app, name) = (&stream.app, &stream.name);
        [scope(Some(app), Some(name)), scope(Some(app), None), scope(None, Some(name)), scope(None, None)]
    }
}

impl fmt::Display for RuleScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let app = self.app.as_ref().map_or("*", AppName::as_str);
        let stream = self.stream.as_ref().map_or("*", StreamName::as_str);
        write!(f, "{}/{app}/{stream}", self.domain)
    }
}

impl fmt::Debug for RuleScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Binds a snapshot template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotRule {
    pub id: RuleId,
    pub scope: RuleScope,
    pub template: TemplateId,
}

/// Binds a callback template. CSS's has no stream name, so `scope.stream` is always `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallbackRule {
    pub id: RuleId,
    pub scope: RuleScope,
    pub template: TemplateId,
}

/// The one value that applies to `stream`: that of the most specific scope. Nothing is merged.
pub fn most_specific<'a, T>(rules: &'a BTreeMap<RuleScope, T>, stream: &StreamId) -> Option<&'a T> {
    RuleScope::covering(stream).iter().find_map(|scope| rules.get(scope))
}

#[cfg(test)]
mod tests {
    use alloc::{collections::BTreeMap, string::ToString, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn scope(domain: &str, app: &str, stream: &str) -> RuleScope {
        RuleScope::parse(domain, app, stream).expect("a scope")
    }

    fn stream(domain: &str, app: &str, name: &str) -> StreamId {
        StreamId {
            domain: DomainName::parse(domain).expect("a domain"),
            app: AppName::parse(app).expect("an app"),
            name: StreamName::parse(name).expect("a stream"),
        }
    }

    #[test]
    fn an_empty_name_or_a_star_means_every() {
        assert_eq!(scope("Push.Example", "", "*").to_string(), "push.example/*/*");
        assert_eq!(scope("push.example", "", ""), scope("push.example", "*", "*"));
        for (domain, app, stream, field) in
            [("", "", "", "domain"), ("a", "b/c", "", "app"), ("a", "", "b c", "stream")]
        {
            assert_eq!(RuleScope::parse(domain, app, stream).expect_err(field).field, field);
        }
    }

    #[test]
    fn the_most_specific_rule_wins() {
        let all = [("a", "*", "*"), ("a", "*", "room"), ("a", "live", "*"), ("a", "live", "room")];
        let cases = [
            ("domain, app and stream", ("a", "live", "room"), Some("a/live/room")),
            ("app beats stream on any app", ("a", "live", "other"), Some("a/live/*")),
            ("stream on any app", ("a", "vod", "room"), Some("a/*/room")),
            ("domain alone", ("a", "vod", "other"), Some("a/*/*")),
            ("another domain", ("b", "live", "room"), None),
            ("apps are case-sensitive", ("a", "LIVE", "other"), Some("a/*/*")),
        ];
        let rules: BTreeMap<_, _> = all.map(|(d, a, s)| (scope(d, a, s), scope(d, a, s).to_string())).into();
        for (name, (domain, app, stream_name), expected) in cases {
            let winner = most_specific(&rules, &stream(domain, app, stream_name));
            assert_eq!(winner.map(|text| &**text), expected, "{name}");
        }
    }

    fn any_scope() -> impl Strategy<Value = RuleScope> {
        ("[ab]", "[ab*]", "[ab*]").prop_map(|(domain, app, stream)| scope(&domain, &app, &stream))
    }

    proptest! {
        #[test]
        fn agrees_with_comparing_every_rule(
            scopes in prop::collection::btree_set(any_scope(), 0..12),
            d in "[ab]",
            a in "[ab]",
            s in "[ab]",
        ) {
            let rules: BTreeMap<_, _> = scopes.into_iter().map(|scope| (scope.clone(), scope)).collect();
            let stream = stream(&d, &a, &s);
            // An app weighs more than a stream name, and both weigh more than either.
            let weight = |scope: &RuleScope| 2 * u8::from(scope.app.is_some()) + u8::from(scope.stream.is_some());
            let covering: Vec<_> = rules.values().filter(|scope| scope.covers(&stream)).collect();
            prop_assert_eq!(most_specific(&rules, &stream), covering.into_iter().max_by_key(|scope| weight(scope)));
        }
    }
}
