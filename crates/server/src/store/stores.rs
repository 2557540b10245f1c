//! Which store a bucket is in.

use std::path::PathBuf;
use std::sync::Arc;

use framehook_domain::object_key::ObjectKey;
use framehook_domain::template::StoreTarget;
use framehook_domain::time::UnixMs;

use super::remote::Remote;
use super::{Bucket, Local, LocalStore, ObjectStore};
use crate::clock::Clock;
use crate::config::{self, StoreKind};
use crate::notify::tls::{Tls, TlsError};

/// Every store there is. Clones share them.
#[derive(Clone, Debug)]
pub struct Stores {
    local: Arc<Local>,
    remote: Arc<[Configured]>,
}

/// A store of the configuration.
#[derive(Debug)]
struct Configured {
    name: Arc<str>,
    claim: Claim,
    short_bucket_names: bool,
    store: Arc<dyn ObjectStore>,
}

/// Where a template's pictures go.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// What the database calls the store.
    pub name: Arc<str>,
    /// As the store calls it.
    pub bucket: String,
    /// `None`: the configuration has stores, and none of them takes the template.
    pub store: Option<Arc<dyn ObjectStore>>,
}

impl Chosen {
    /// `pic_full_url` of an object that is committed `now`. `None`: that is not known before the object is stored, since no
    /// store takes it yet, or there is nothing to sign its URL with.
    pub fn full_url(&self, target: &StoreTarget, key: &ObjectKey, now: UnixMs) -> Option<String> {
        let store = self.store.as_ref()?;
        store.full_url(Bucket { region: target.region(), name: &self.bucket }, key.as_str(), now).ok()
    }
}

/// Why the stores of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoresError {
    #[error("the certificate authorities in {} cannot be read", path.display())]
    CaFile { path: PathBuf, source: std::io::Error },
    #[error("TLS towards the object store {store} cannot be set up")]
    Tls { store: String, source: TlsError },
}

impl Stores {
    /// Only the store in the data directory.
    pub fn new(local: Local) -> Self {
        Self { local: Arc::new(local), remote: Arc::new([]) }
    }

    /// With the stores of the configuration. Nothing is sent yet.
    ///
    /// # Errors
    /// See [`StoresError`].
    pub fn open(local: Local, settings: &[config::ObjectStore], clock: Clock) -> Result<Self, StoresError> {
        let open = |settings: &config::ObjectStore| {
            let read = |path: &PathBuf| {
                std::fs::read(path).map_err(|source| StoresError::CaFile { path: path.clone(), source })
            };
            let authorities = settings.ca_file.as_ref().map(read).transpose()?;
            let tls = Tls::new(authorities.as_deref())
                .map_err(|source| StoresError::Tls { store: settings.name.clone(), source })?;
            Ok(Configured {
                name: settings.name.as_str().into(),
                claim: Claim::of(settings),
                short_bucket_names: settings.short_bucket_names,
                store: Arc::new(Remote::new(settings, tls.client_config(), clock)),
            })
        };
        let remote = settings.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { local: Arc::new(local), remote })
    }

    /// The store in the data directory.
    pub fn local(&self) -> &Local {
        &self.local
    }

    /// What the database calls the store of pictures that no store takes. They wait for a start whose configuration has one.
    pub const UNCLAIMED: &str = "unclaimed";

    /// The store that a template's pictures go to.
    pub fn choose(&self, target: &StoreTarget) -> Chosen {
        let claims: Vec<&Claim> = self.remote.iter().map(|known| &known.claim).collect();
        match choice(&claims, target) {
            None => Chosen { name: Self::UNCLAIMED.into(), bucket: target.full_bucket(), store: None },
            Some(Choice::Local) => Chosen {
                name: LocalStore::NAME.into(),
                bucket: target.full_bucket(),
                store: Some(Arc::clone(&self.local) as Arc<dyn ObjectStore>),
            },
            Some(Choice::Nth(index)) => {
                let Configured { name, short_bucket_names, store, .. } = &self.remote[index];
                let bucket = if *short_bucket_names { target.bucket().to_owned() } else { target.full_bucket() };
                Chosen { name: Arc::clone(name), bucket, store: Some(Arc::clone(store)) }
            }
        }
    }

    /// The store that takes a bucket, by its full name, which none took before; `None`: still none does.
    pub fn choose_again(&self, full_bucket: &str, region: &str) -> Option<Chosen> {
        let (bucket, app_id) = full_bucket.rsplit_once('-')?;
        let target = StoreTarget::new(app_id.parse().ok()?, bucket, region).ok()?;
        Some(self.choose(&target)).filter(|chosen| chosen.store.is_some())
    }

    /// The store of that name; `None` if none is configured under it.
    pub fn named(&self, name: &str) -> Option<Arc<dyn ObjectStore>> {
        if name == LocalStore::NAME {
            return Some(Arc::clone(&self.local) as Arc<dyn ObjectStore>);
        }
        self.remote.iter().find(|known| *known.name == *name).map(|known| Arc::clone(&known.store))
    }
}

/// Which templates a store takes.
#[derive(Clone, Debug)]
struct Claim {
    /// `None`: every one but the local store's.
    regions: Option<Vec<String>>,
    app_ids: Vec<i64>,
    buckets: Vec<String>,
}

impl Claim {
    fn of(settings: &config::ObjectStore) -> Self {
        let long = |region: &String| config::long_region(region);
        let regions: Vec<String> = settings.regions.iter().filter_map(long).collect();
        let regions = match (settings.kind, regions.is_empty()) {
            (_, false) => Some(regions),
            (StoreKind::Cos, true) => None,
            (StoreKind::S3, true) => Some(config::long_region(&settings.region).into_iter().collect()),
        };
        Self { regions, app_ids: settings.app_ids.clone(), buckets: settings.buckets.clone() }
    }

    /// How closely it fits a template: by bucket, by account, by region. `None`: not at all.
    fn fit(&self, target: &StoreTarget) -> Option<(bool, bool, bool)> {
        let takes_region = match &self.regions {
            Some(regions) => regions.iter().any(|region| region == target.region()),
            None => target.region() != StoreTarget::LOCAL_REGION,
        };
        let takes_account = self.app_ids.is_empty() || self.app_ids.contains(&target.app_id());
        let takes_bucket = self.buckets.is_empty() || self.buckets.contains(&target.full_bucket());
        (takes_region && takes_account && takes_bucket)
            .then(|| (!self.buckets.is_empty(), !self.app_ids.is_empty(), self.regions.is_some()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Local,
    Nth(usize),
}

/// The closest claim to a template, the first of those that are alike. The local store takes its own region, and all of them
/// where there is no other store: whoever only tries things out needs no account anywhere.
fn choice(claims: &[&Claim], target: &StoreTarget) -> Option<Choice> {
    if target.region() == StoreTarget::LOCAL_REGION || claims.is_empty() {
        return Some(Choice::Local);
    }
    let fits = claims.iter().enumerate().filter_map(|(index, claim)| Some((claim.fit(target)?, index)));
    let closest = fits.max_by_key(|(fit, index)| (*fit, usize::MAX - index));
    closest.map(|(_, index)| Choice::Nth(index))
}

/// Whether some store takes a template's pictures.
pub(crate) fn is_taken(settings: &[config::ObjectStore], target: &StoreTarget) -> bool {
    let claims: Vec<Claim> = settings.iter().map(Claim::of).collect();
    choice(&claims.iter().collect::<Vec<_>>(), target).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(regions: &[&str], app_ids: &[i64], buckets: &[&str]) -> Claim {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let regions = (!regions.is_empty()).then(|| own(regions));
        Claim { regions, app_ids: app_ids.to_vec(), buckets: own(buckets) }
    }

    #[test]
    fn the_closest_claim_takes_a_template() {
        let any = claim(&[], &[], &[]);
        let minio = claim(&["ap-minio"], &[], &[]);
        let account = claim(&[], &[7], &[]);
        let bucket = claim(&[], &[], &["shots-8"]);
        let nth = |index| Some(Choice::Nth(index));
        type Row<'a> = (&'a str, &'a [&'a Claim], (i64, &'a str), Option<Choice>);
        let rows: [Row<'_>; 10] = [
            ("no other store", &[], (7, "ap-guangzhou"), Some(Choice::Local)),
            ("the local store's own region", &[&any], (7, "local"), Some(Choice::Local)),
            ("the only store", &[&any], (7, "ap-guangzhou"), nth(0)),
            ("its region", &[&any, &minio], (7, "minio"), nth(1)),
            ("another region", &[&any, &minio], (7, "beijing"), nth(0)),
            ("its account", &[&any, &account], (7, "beijing"), nth(1)),
            ("an account comes before a region", &[&minio, &account], (7, "minio"), nth(1)),
            ("a bucket comes before both", &[&minio, &account, &bucket], (8, "minio"), nth(2)),
            ("the first of two alike", &[&any, &any], (7, "beijing"), nth(0)),
            ("nobody", &[&minio, &account], (9, "beijing"), None),
        ];
        for (name, claims, (app_id, region), expected) in rows {
            let target = StoreTarget::new(app_id, "shots", region).expect("a target");
            assert_eq!(choice(claims, &target), expected, "{name}");
        }
    }
}
