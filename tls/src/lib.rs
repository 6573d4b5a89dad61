//! TLS to PostgreSQL with libpq's rules, behind the interface of the crate `native-tls`.
//!
//! sqlx brings two TLS back ends. The rustls one parses the server's certificate with webpki,
//! which rejects X.509 v1 even when nothing is verified, and adds the system's authorities to
//! `sslrootcert`. The other one calls the crate `native-tls`. Cargo replaces that crate with
//! this one, so sqlx runs its connections on rustls with the verifier below. Only what sqlx
//! calls is here.

mod chain;
mod constraints;
mod host;
mod stream;
mod verify;

use std::fmt;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::crypto::ring::{default_provider, sign};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection};

use chain::Cert;
pub use stream::{HandshakeError, MidHandshakeTlsStream, TlsStream};
use verify::{Trust, Verifier};

/// As content of a root certificate: the authorities that the system trusts.
pub const SYSTEM: &str = "system";

/// Why TLS cannot be used.
#[derive(Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn new(text: impl fmt::Display) -> Self {
        Self(text.to_string())
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        use rustls::{CertificateError, Error as Tls};
        match error {
            // rustls would print the debug form.
            Tls::InvalidCertificate(CertificateError::Other(why)) => Self::new(why.0),
            error => Self::new(error),
        }
    }
}

/// Certificates of authorities.
#[derive(Clone)]
pub struct Certificate(Roots);

#[derive(Clone)]
enum Roots {
    System,
    Given(Vec<CertificateDer<'static>>),
}

impl Certificate {
    /// All certificates of a PEM text, or [`SYSTEM`].
    ///
    /// # Errors
    /// The text is not PEM.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        if pem == SYSTEM.as_bytes() {
            return Ok(Self(Roots::System));
        }
        certificates(pem).map(Roots::Given).map(Self)
    }
}

/// A client certificate with its key.
#[derive(Clone)]
pub struct Identity(Arc<SingleCertAndKey>);

impl Identity {
    /// A chain of certificates and a private key, both in PEM. The name is from `native-tls`;
    /// PKCS #1 and SEC 1 keys are accepted as well.
    ///
    /// # Errors
    /// One of the two cannot be read.
    pub fn from_pkcs8(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|error| Error::new(format_args!("sslkey: {error}")))?;
        let key = sign::any_supported_type(&key)?;
        // Not `from_der`, which rejects X.509 v1.
        Ok(Self(Arc::new(CertifiedKey::new(chain, key).into())))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(Error::new("no certificate in PEM found")),
        Ok(found) => Ok(found),
        Err(error) => Err(Error::new(format_args!("not a certificate in PEM: {error}"))),
    }
}

/// Starts TLS on connected sockets.
pub struct TlsConnector {
    config: Config,
    is_host_verified: bool,
}

enum Config {
    /// The host is part of the verifier, so the configuration is made per connection.
    Verified(Arc<[Cert]>, Option<Identity>),
    Unverified(Option<Identity>),
}

/// Collects settings of a [`TlsConnector`].
#[derive(Default)]
pub struct TlsConnectorBuilder {
    is_unverified: bool,
    is_any_host: bool,
    roots: Option<Roots>,
    identity: Option<Identity>,
}

impl TlsConnectorBuilder {
    /// Whether the server's certificate is not verified at all.
    pub fn danger_accept_invalid_certs(&mut self, accept: bool) -> &mut Self {
        self.is_unverified = accept;
        self
    }

    /// Whether the server's certificate may be for another host.
    pub fn danger_accept_invalid_hostnames(&mut self, accept: bool) -> &mut Self {
        self.is_any_host = accept;
        self
    }

    /// Sets the authorities to trust. No others are trusted.
    pub fn add_root_certificate(&mut self, roots: Certificate) -> &mut Self {
        self.roots = Some(roots.0);
        self
    }

    /// Sets the client certificate.
    pub fn identity(&mut self, identity: Identity) -> &mut Self {
        self.identity = Some(identity);
        self
    }

    /// Builds the connector. Reads the system's authorities if they are wanted, so it may block.
    ///
    /// # Errors
    /// Certificates are to be verified, and no usable authority is known.
    pub fn build(&self) -> Result<TlsConnector, Error> {
        let identity = self.identity.clone();
        let config = if self.is_unverified {
            Config::Unverified(identity)
        } else {
            let roots = match &self.roots {
                None => return Err(Error::new("no sslrootcert to verify the server with")),
                Some(Roots::System) => rustls_native_certs::load_native_certs().certs,
                Some(Roots::Given(certificates)) => certificates.clone(),
            };
            let roots: Arc<[Cert]> = roots.iter().filter_map(|der| Cert::parse(der).ok()).collect();
            if roots.is_empty() {
                return Err(Error::new("no certificate of sslrootcert can be used"));
            }
            Config::Verified(roots, identity)
        };
        Ok(TlsConnector { config, is_host_verified: !self.is_any_host })
    }
}

impl TlsConnector {
    /// A connector that verifies everything, until told otherwise.
    pub fn builder() -> TlsConnectorBuilder {
        TlsConnectorBuilder::default()
    }

    /// Starts the handshake.
    ///
    /// # Errors
    /// The handshake failed, or waits for the socket.
    pub fn connect<S: Read + Write>(
        &self,
        host: &str,
        socket: S,
    ) -> Result<TlsStream<S>, HandshakeError<S>> {
        let connection = self.connection(host).map_err(HandshakeError::Failure)?;
        MidHandshakeTlsStream::new(connection, socket).handshake()
    }

    fn connection(&self, host: &str) -> Result<ClientConnection, Error> {
        let (trust, identity) = match &self.config {
            Config::Unverified(identity) => (Trust::Anyone, identity),
            Config::Verified(roots, identity) => {
                let host = self.is_host_verified.then(|| host.to_owned());
                (Trust::Roots { roots: Arc::clone(roots), host }, identity)
            }
        };
        let provider = Arc::new(default_provider());
        let verifier = Verifier::new(trust, provider.signature_verification_algorithms);
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let config = match identity {
            None => config.with_no_client_auth(),
            Some(Identity(identity)) => config.with_client_cert_resolver(identity.clone()),
        };
        // rustls takes the name for the handshake alone; the verifier has the host. An address
        // is not sent.
        let nameless = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
        let name = ServerName::try_from(host.to_owned()).unwrap_or(nameless);
        Ok(ClientConnection::new(Arc::new(config), name)?)
    }
}
