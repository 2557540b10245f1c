//! A certificate and its key, from two PEM files.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use framehook_domain::time::UnixMs;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError as Judgement, RootCertStore};

/// Largest file that is read: a chain of four certificates has some 10 KB.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The first second after the last that a certificate can name (RFC 5280, 4.1.2.5: 9999-12-31 23:59:59).
const END_OF_TIME_SECS: u64 = 253_402_300_800;

/// Where a certificate lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, the server's own certificate first.
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// Why a pair of files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("cannot read {}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} is larger than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} is not a PEM file of certificates", path.display())]
    NotCertificates { path: PathBuf, source: pem::Error },
    #[error("there is no certificate in {}", path.display())]
    NoCertificate { path: PathBuf },
    #[error("there is no private key in {}", path.display())]
    NoKey { path: PathBuf, source: pem::Error },
    #[error("{} and {} do not make a pair", cert.display(), key.display())]
    NoPair { cert: PathBuf, key: PathBuf, source: rustls::Error },
}

/// A certificate that can be shown.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub(super) key: Arc<CertifiedKey>,
    /// The last second in which clients believe it, if it can be told.
    pub not_after: Option<UnixMs>,
}

impl Certificate {
    /// Reads and checks both files.
    ///
    /// # Errors
    /// See [`CertificateError`].
    pub fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let CertificateFiles { cert, key } = files;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&read(cert)?)
            .collect::<Result<_, _>>()
            .map_err(|source| CertificateError::NotCertificates { path: cert.clone(), source })?;
        let Some(own) = chain.first().cloned() else {
            return Err(CertificateError::NoCertificate { path: cert.clone() });
        };
        let secret = PrivateKeyDer::from_pem_slice(&read(key)?)
            .map_err(|source| CertificateError::NoKey { path: key.clone(), source })?;
        let pair = CertifiedKey::from_der(chain, secret, &aws_lc_rs::default_provider());
        let pair = pair.map_err(|source| CertificateError::NoPair { cert: cert.clone(), key: key.clone(), source })?;
        Ok(Self { key: Arc::new(pair), not_after: not_after(&own) })
    }

    /// Whole days until it ends; negative when it has.
    pub fn days_left(&self, now: UnixMs) -> Option<i64> {
        Some((self.not_after?.0 - now.0).div_euclid(86_400_000))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(CertificateError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

/// When a certificate ends. The library reads it and does not tell, except as the reason why it would not believe it: so it
/// is asked as of the end of time.
fn not_after(certificate: &CertificateDer<'_>) -> Option<UnixMs> {
    let mut roots = RootCertStore::empty();
    // The verifier wants a root, and looks at the time before it looks for one.
    roots.add(certificate.clone()).ok()?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok()?;
    let name = ServerName::try_from("any.invalid").ok()?;
    let end = UnixTime::since_unix_epoch(Duration::from_secs(END_OF_TIME_SECS));
    match verifier.verify_server_cert(certificate, &[], &name, &[], end) {
        Err(rustls::Error::InvalidCertificate(Judgement::ExpiredContext { not_after, .. })) => {
            i64::try_from(not_after.as_secs()).ok().map(UnixMs::from_secs)
        }
        _ => None,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    /// A certificate of its own authority, which ends on the first day of `year`.
    pub(crate) fn write_pair(dir: &Path, year: i32) -> CertificateFiles {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        let files = CertificateFiles { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        fs::write(&files.cert, parameters.self_signed(&key).expect("a certificate").pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    #[test]
    fn a_pair_tells_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        for (year, secs) in [(2040, 2_208_988_800), (2020, 1_577_836_800), (4096, 67_090_118_400)] {
            let certificate = Certificate::load(&write_pair(dir.path(), year)).unwrap();
            assert_eq!(certificate.not_after, Some(UnixMs::from_secs(secs)), "{year}");
        }
        let certificate = Certificate::load(&write_pair(dir.path(), 2040)).unwrap();
        let end = UnixMs::from_secs(2_208_988_800);
        assert_eq!(certificate.days_left(end.minus(Duration::from_secs(86_400))), Some(1));
        assert_eq!(certificate.days_left(end.plus(Duration::from_secs(1))), Some(-1));
    }

    #[test]
    fn each_thing_that_can_be_wrong_with_a_pair_is_told_apart() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let files = write_pair(dir.path(), 2040);
        let others = write_pair(other.path(), 2040);
        let load = |cert: &Path, key: &Path| {
            Certificate::load(&CertificateFiles { cert: cert.to_owned(), key: key.to_owned() }).unwrap_err()
        };
        let nowhere = dir.path().join("nowhere");
        assert!(matches!(load(&nowhere, &files.key), CertificateError::Unreadable { .. }));
        assert!(matches!(load(&files.cert, &others.key), CertificateError::NoPair { .. }));
        assert!(matches!(load(&files.key, &files.key), CertificateError::NoCertificate { .. }));
        assert!(matches!(load(&files.cert, &files.cert), CertificateError::NoKey { .. }));
        let torn = dir.path().join("torn");
        fs::write(&torn, "-----BEGIN CERTIFICATE-----\nMIIB\n").unwrap();
        assert!(matches!(load(&torn, &files.key), CertificateError::NotCertificates { .. }));
        fs::write(&torn, vec![b'\n'; FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(load(&torn, &files.key), CertificateError::TooLarge { .. }));
    }
}
