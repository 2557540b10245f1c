//! Certificate authorities of a template's own.

use alloc::sync::Arc;
use core::fmt;

use crate::field::FieldError;

/// Certificate authorities that the receivers of one template may have their certificates from, beside those that the machine
/// trusts: certificates in PEM. No other template's receivers are believed for them.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authorities(Arc<str>);

/// Some thirty certificates. A private authority is one or two; whoever pastes a whole bundle of the system's did not mean it.
const AUTHORITIES_BYTES_MAX: usize = 64 << 10;

impl Authorities {
    /// Checks what can be told from the text. Whether each certificate can be used is for a TLS library to say.
    ///
    /// # Errors
    /// Longer than 64 KiB, without a certificate, or with a private key, which does not belong here.
    pub fn parse(pem: &str) -> Result<Self, FieldError> {
        const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
        let is_certificates = pem.contains(CERTIFICATE) && !pem.contains("PRIVATE KEY-----");
        if is_certificates && pem.len() <= AUTHORITIES_BYTES_MAX {
            Ok(Self(pem.into()))
        } else {
            // It may hold a private key, so the error must not repeat it.
            Err(FieldError::secret(
                "ca_certificates",
                pem,
                "certificates in PEM, at most 65536 bytes, and no private key",
            ))
        }
    }

    /// The certificates in PEM.
    pub fn pem(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use alloc::{format, string::ToString};

    use super::*;

    #[test]
    fn takes_certificates_and_nothing_else() {
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        assert_eq!(Authorities::parse(certificate).expect("PEM").pem(), certificate);
        let key = format!("{certificate}-----BEGIN EC PRIVATE KEY-----\ns3cret\n-----END EC PRIVATE KEY-----\n");
        let long = certificate.repeat(2_000);
        for refused in ["", "MIIB", &key, &long] {
            let error = Authorities::parse(refused).expect_err(refused);
            assert_eq!(error.field, "ca_certificates");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
    }
}
