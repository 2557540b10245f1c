//! Which receiver each endpoint leads to.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use framehook_domain::catalog::Catalog;
use framehook_domain::dispatch::Lane;

use super::attempt::Target;
use crate::db::outbox::{self, EndpointId, EndpointRow};
use crate::db::secret::Vault;
use crate::db::{DbError, Tx};

/// Where each endpoint leads, remembered for as long as the configuration stays: finding out takes opening and parsing a
/// URL.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The configuration that they are true of.
    version: u64,
    /// `None`: its row is damaged, and what is owed to it waits for a person.
    known: HashMap<EndpointId, Option<(Arc<EndpointRow>, Lane)>>,
    /// By scheme, host and port. They outlive a change of the configuration, as what a receiver was like does.
    names: HashMap<String, Lane>,
    /// Numbers are not used twice, so that no receiver is taken for another.
    given_out: u32,
    /// How many may be remembered before the idle ones are forgotten.
    evict_at: usize,
}

/// Endpoints and receivers that are remembered although nothing goes there, some 200 bytes each. There are three endpoints
/// for each template, and one for each URL that replays are sent to.
const LANES_IDLE_MAX: usize = 10_000;

/// The lane of endpoints that lead nowhere: their deliveries are settled without a request.
const NOWHERE: Lane = Lane(0);

impl Default for Lanes {
    fn default() -> Self {
        Self { version: 0, known: HashMap::new(), names: HashMap::new(), given_out: 0, evict_at: LANES_IDLE_MAX }
    }
}

impl Lanes {
    /// Forgets what another configuration made of the endpoints. Tells whether it did.
    pub(super) fn follow(&mut self, catalog: &Catalog) -> bool {
        let changed = self.version != catalog.version();
        if changed {
            self.version = catalog.version();
            self.known.clear();
        }
        changed
    }

    /// Forgets where every endpoint leads.
    pub(super) fn forget_endpoints(&mut self) {
        self.known.clear();
    }

    /// Forgets endpoints that nothing waits for, and receivers that are not engaged, once there are many of them.
    pub(super) fn evict_idle(&mut self, is_waiting: impl Fn(EndpointId) -> bool, is_engaged: impl Fn(Lane) -> bool) {
        if self.known.len().max(self.names.len()) < self.evict_at {
            return;
        }
        self.known.retain(|id, _| is_waiting(*id));
        let waited_for: HashSet<Lane> = self.known.values().flatten().map(|(_, lane)| *lane).collect();
        self.names.retain(|_, lane| waited_for.contains(lane) || is_engaged(*lane));
        // So that a look does not go through them all each time while so many are busy.
        self.evict_at = LANES_IDLE_MAX + 2 * self.known.len().max(self.names.len());
    }

    /// The lane of an endpoint that was asked for under this configuration.
    pub(super) fn known(&self, id: EndpointId) -> Option<Lane> {
        self.known.get(&id)?.as_ref().map(|(_, lane)| *lane)
    }

    /// An endpoint's row and its lane, by scheme, host and port. `None`: nothing can be sent there.
    ///
    /// # Errors
    /// Those of the database.
    pub(super) fn of(
        &mut self,
        tx: &Tx<'_>,
        catalog: &Catalog,
        vault: &Vault,
        id: EndpointId,
    ) -> Result<Option<(Arc<EndpointRow>, Lane)>, DbError> {
        if let Some(known) = self.known.get(&id) {
            return Ok(known.clone());
        }
        let row = match outbox::endpoint(tx, id) {
            Ok(Some(row)) => Arc::new(row),
            Ok(None) => return Ok(None),
            Err(error @ DbError::Damaged { .. }) => {
                tracing::error!(endpoint = id.0, %error, "an endpoint is damaged: nothing is sent to it");
                self.known.insert(id, None);
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let lane = match Target::of(catalog, vault, &row) {
            Ok(target) => *self.names.entry(target.endpoint.origin().to_string()).or_insert_with(|| {
                self.given_out += 1;
                Lane(self.given_out)
            }),
            Err(_) => NOWHERE,
        };
        let known = (row, lane);
        self.known.insert(id, Some(known.clone()));
        Ok(Some(known))
    }
}

#[cfg(test)]
mod tests {
    use framehook_domain::callback::EventKind;
    use framehook_domain::id::TemplateId;

    use super::*;

    #[test]
    fn of_many_endpoints_the_idle_ones_are_forgotten() {
        let mut lanes = Lanes::default();
        let remember = |lanes: &mut Lanes, numbers: std::ops::Range<u32>| {
            for number in numbers {
                let id = EndpointId(number.into());
                let row = EndpointRow { id, template: TemplateId(1), kind: EventKind::Snapshot, url_override: None };
                lanes.known.insert(id, Some((Arc::new(row), Lane(number))));
                lanes.names.insert(format!("http://receiver{number}:80"), Lane(number));
            }
        };
        let evict = |lanes: &mut Lanes| lanes.evict_idle(|id| id.0 < 7, |lane| lane.0 >= 9_995);
        remember(&mut lanes, 0..9_999);
        evict(&mut lanes);
        assert_eq!(lanes.known.len(), 9_999, "there is room");
        remember(&mut lanes, 9_999..10_000);
        evict(&mut lanes);
        let mut kept: Vec<u32> = lanes.names.values().map(|lane| lane.0).collect();
        kept.sort_unstable();
        assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 9_995, 9_996, 9_997, 9_998, 9_999]);
        assert_eq!(lanes.known.len(), 7);
    }
}
