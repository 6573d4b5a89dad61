//! What rustls asks about the server's certificate.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use crate::chain::{self, Cert, Refused};
use crate::host;

/// All that a server may sign a handshake with, if nobody verifies that signature.
const ALL_SCHEMES: [SignatureScheme; 11] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::ED448,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// Whom to trust.
pub(crate) enum Trust {
    /// Any server with any certificate.
    Anyone,
    /// A server with a certificate below one of the roots and, if a host is named, for it.
    Roots { roots: Arc<[Cert]>, host: Option<String> },
}

pub(crate) struct Verifier {
    trust: Trust,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(crate) const fn new(trust: Trust, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { trust, algorithms }
    }

    /// Verifies that the server holds the key of its certificate. rustls's own function parses
    /// the certificate with webpki, which rejects X.509 v1.
    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &[u8],
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // Anybody can make a certificate, so the signature proves nothing without trust.
        if matches!(self.trust, Trust::Anyone) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        let certificate = Cert::parse(certificate).map_err(refused)?;
        let schemes = self.algorithms.mapping.iter();
        let algorithms = schemes.filter(|(scheme, _)| *scheme == signed.scheme);
        let mut algorithms = algorithms.flat_map(|(_, algorithms)| algorithms.iter());
        let is_signed = algorithms
            .any(|algorithm| certificate.key.verify(*algorithm, message, signed.signature()));
        if is_signed {
            Ok(HandshakeSignatureValid::assertion())
        } else {
            Err(CertificateError::BadSignature.into())
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Trust::Roots { roots, host } = &self.trust {
            let end_entity = Cert::parse(end_entity).map_err(refused)?;
            let sent: Vec<_> =
                intermediates.iter().filter_map(|sent| Cert::parse(sent).ok()).collect();
            let algorithms = self.algorithms.all;
            chain::verify(&end_entity, &sent, roots, algorithms, now.as_secs()).map_err(refused)?;
            if let Some(host) = host {
                host::verify(&end_entity, host).map_err(refused)?;
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self.trust {
            Trust::Anyone => ALL_SCHEMES.to_vec(),
            Trust::Roots { .. } => self.algorithms.supported_schemes(),
        }
    }
}

fn refused(why: Refused) -> Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verifier")
    }
}
