//! The local store behind the port: its blocking work on threads that may, and the URLs of its objects.

use std::sync::Arc;

use framehook_domain::object_key::pic_full_url;
use framehook_domain::time::UnixMs;

use super::{
    Answer, Bucket, LocalStore, ObjectStore, Probe, StoreError, URL_LIFE_LEFT_MIN, Upload, UrlRefused, UrlSigner,
};

/// The objects in the data directory, and how receivers reach them over our own HTTP listener.
#[derive(Clone, Debug)]
pub struct Local {
    files: Arc<LocalStore>,
    public_url: String,
    /// Signs the URLs, where objects are given out to signed ones only.
    signer: Option<UrlSigner>,
}

impl Local {
    /// `public_url` is what stands before `/<bucket>-<appid>/<key>`, for instance `http://127.0.0.1:8080/objects`.
    pub fn new(files: Arc<LocalStore>, public_url: &str, signer: Option<UrlSigner>) -> Self {
        Self { files, public_url: public_url.trim_end_matches('/').to_owned(), signer }
    }

    /// The files themselves.
    pub fn files(&self) -> &LocalStore {
        &self.files
    }

    /// Whether a request for an object may have it: with any query, or with a signed one where that is asked for.
    ///
    /// # Errors
    /// See [`UrlRefused`].
    pub fn admit(&self, bucket: &str, key: &str, query: &str, now: UnixMs) -> Result<(), UrlRefused> {
        self.signer.as_ref().map_or(Ok(()), |signer| signer.check(bucket, key, query, now))
    }

    /// Whether objects are given out to signed URLs only.
    pub fn is_signed(&self) -> bool {
        self.signer.is_some()
    }

    /// Runs `work` on the files where it may block.
    fn blocking<T: Send + 'static>(
        &self,
        bucket: &str,
        key: &str,
        work: impl FnOnce(&LocalStore, &str, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Answer<'static, T> {
        let (files, bucket, key) = (Arc::clone(&self.files), bucket.to_owned(), key.to_owned());
        Box::pin(async move {
            let names = (bucket.clone(), key.clone());
            match tokio::task::spawn_blocking(move || work(&files, &bucket, &key)).await {
                Ok(done) => done,
                Err(panic) => Err(panicked(&names.0, &names.1, panic)),
            }
        })
    }
}

fn panicked(bucket: &str, key: &str, panic: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Failed { bucket: bucket.to_owned(), key: key.to_owned(), source: std::io::Error::other(panic) }
}

impl ObjectStore for Local {
    fn put<'a>(&'a self, bucket: Bucket<'a>, key: &'a str, upload: Upload<'a>) -> Answer<'a, ()> {
        let file = upload.file.to_owned();
        self.blocking(bucket.name, key, move |files, bucket, key| files.put(bucket, key, &file))
    }

    fn exists<'a>(&'a self, bucket: Bucket<'a>, key: &'a str) -> Answer<'a, bool> {
        self.blocking(bucket.name, key, LocalStore::exists)
    }

    fn remove<'a>(&'a self, bucket: Bucket<'a>, key: &'a str) -> Answer<'a, ()> {
        self.blocking(bucket.name, key, LocalStore::remove)
    }

    /// The directory is there since the start; whether it can be written to, each put tells and `doctor` tries.
    fn probe<'a>(&'a self, _bucket: Bucket<'a>) -> Answer<'a, Probe> {
        Box::pin(async { Ok(Probe::default()) })
    }

    /// Framehook does it itself.
    fn removes_after<'a>(&'a self, _bucket: Bucket<'a>, _days: u32) -> Answer<'a, bool> {
        Box::pin(async { Ok(true) })
    }

    fn full_url(&self, bucket: Bucket<'_>, key: &str, now: UnixMs) -> Result<String, StoreError> {
        let url = pic_full_url(&format!("{}/{}", self.public_url, bucket.name), key);
        Ok(match &self.signer {
            Some(signer) => format!("{url}?{}", signer.query(bucket.name, key, now)),
            None => url,
        })
    }

    fn still_opens(&self, bucket: Bucket<'_>, key: &str, full_url: &str, now: UnixMs) -> bool {
        let query = full_url.split_once('?').map_or("", |(_, query)| query);
        self.admit(bucket.name, key, query, now).is_ok()
    }

    fn opens_for_long(&self, bucket: Bucket<'_>, key: &str, full_url: &str, now: UnixMs) -> bool {
        match &self.signer {
            Some(signer) => self.still_opens(bucket, key, full_url, now.plus(signer.life() / URL_LIFE_LEFT_MIN)),
            None => !full_url.contains('?'),
        }
    }
}
