//! Chains of certificates, verified as OpenSSL does it for libpq: `X509_verify_cert` with the
//! purpose of a TLS server and no further flags. webpki is stricter in some points (no X.509
//! v1, no authority as a server, no self-signed server) and laxer in others (an expired root).

use std::fmt;

use rustls::pki_types::SignatureVerificationAlgorithm;
use x509_cert::certificate::{CertificateInner, Raw, Version};
use x509_cert::der::asn1::{AnyRef, BitString, BitStringRef, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode, Encode, Reader, SliceReader, Tag, Tagged};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::{GeneralName, GeneralNames};
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, NameConstraints,
};
use x509_cert::name::Name;

use crate::constraints;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const SUBJECT_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.14");
const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");
const ALTERNATIVE_NAMES: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.17");
const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
const NAME_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.30");
const AUTHORITY_KEY_ID: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.35");
const EXTENDED_KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.37");
const NETSCAPE_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.113730.1.1");

/// Critical extensions that OpenSSL accepts and that mean nothing unless a policy is asked for
/// or a revocation list is given.
const HARMLESS: [ObjectIdentifier; 5] = [
    ObjectIdentifier::new_unwrap("2.5.29.31"), // CRL distribution points
    ObjectIdentifier::new_unwrap("2.5.29.32"), // certificate policies
    ObjectIdentifier::new_unwrap("2.5.29.33"), // policy mappings
    ObjectIdentifier::new_unwrap("2.5.29.36"), // policy constraints
    ObjectIdentifier::new_unwrap("2.5.29.54"), // inhibit any policy
];

/// Purposes that a TLS server may have.
const SERVER_PURPOSES: [ObjectIdentifier; 3] = [
    ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1"), // TLS server
    ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.10.3.3"), // Microsoft's server gated crypto
    ObjectIdentifier::new_unwrap("2.16.840.1.113730.4.1"), // Netscape's server gated crypto
];

/// Longer chains do not occur.
const MAX_LENGTH: usize = 16;
/// Bounds the work for a server that sends many certificates of one name.
const MAX_SIGNATURES: usize = 64;

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    Invalid(&'static str),
    UnknownIssuer,
    Signature,
    Expired,
    NotYetValid,
    CriticalExtension,
    NotAuthority,
    NotServer,
    TooLong,
    NameConstraint,
    Host { host: String, names: Vec<String> },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server's certificate is refused: ")?;
        match self {
            Self::Invalid(what) => write!(f, "it, or one above it, has {what}"),
            Self::UnknownIssuer => f.write_str("no certificate of sslrootcert has issued it"),
            Self::Signature => f.write_str("its signature is wrong or its algorithm not supported"),
            Self::Expired => f.write_str("it, or one above it, has expired"),
            Self::NotYetValid => f.write_str("it, or one above it, is not valid yet"),
            Self::CriticalExtension => {
                f.write_str("it, or one above it, has a critical extension that is not supported")
            }
            Self::NotAuthority => f.write_str("its issuer is not a certificate authority"),
            Self::NotServer => f.write_str("it is not meant for servers"),
            Self::TooLong => f.write_str("an authority above it allows fewer others in between"),
            Self::NameConstraint => f.write_str("an authority above it may not issue its names"),
            Self::Host { host, names } => {
                write!(f, "it is for {}, not for host {host:?}", names.join(", "))
            }
        }
    }
}

impl std::error::Error for Refused {}

/// A distinguished name in the form in which names are compared.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CanonicalName(Vec<Vec<CanonicalAttribute>>);

/// Type and value; the value's own type only if it is not text.
type CanonicalAttribute = (ObjectIdentifier, Option<Tag>, Vec<u8>);

impl CanonicalName {
    pub(crate) fn new(name: &Name) -> Self {
        let attribute = |attribute: &x509_cert::attr::AttributeTypeAndValue| {
            let (tag, value) = (attribute.value.tag(), attribute.value.value());
            let is_text = matches!(
                tag,
                Tag::Utf8String
                    | Tag::PrintableString
                    | Tag::Ia5String
                    | Tag::TeletexString
                    | Tag::VisibleString
            );
            if !is_text {
                return (attribute.oid, Some(tag), value.to_vec());
            }
            // Case and the amount of white space do not count.
            let words = value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            let value = words.collect::<Vec<_>>().join(&b' ').to_ascii_lowercase();
            (attribute.oid, None, value)
        };
        let parts = name.iter_rdn().map(|part| part.iter().map(attribute).collect());
        Self(parts.collect())
    }

    pub(crate) fn is_within(&self, base: &Self) -> bool {
        self.0.starts_with(&base.0)
    }
}

/// A public key.
pub(crate) struct Key {
    algorithm: Vec<u8>,
    bits: Vec<u8>,
}

impl Key {
    pub(crate) fn verify(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        algorithm.public_key_alg_id().as_ref() == self.algorithm
            && algorithm.verify_signature(&self.bits, message, signature).is_ok()
    }
}

/// A certificate, with all that is verified about it.
pub(crate) struct Cert {
    der: Vec<u8>,
    signed: Vec<u8>,
    signature_algorithm: Vec<u8>,
    signature: Vec<u8>,
    pub(crate) key: Key,
    is_v1: bool,
    serial: Vec<u8>,
    raw_subject: Name,
    pub(crate) subject: CanonicalName,
    issuer: CanonicalName,
    /// Seconds since 1970, both included.
    valid: (u64, u64),
    pub(crate) alternative_names: GeneralNames,
    pub(crate) name_constraints: Option<NameConstraints>,
    basic_constraints: Option<BasicConstraints>,
    key_usage: Option<KeyUsage>,
    purposes: Option<ExtendedKeyUsage>,
    netscape_type: Option<u8>,
    key_id: Option<Vec<u8>>,
    issuer_key_id: AuthorityKeyIdentifier,
    has_unknown_critical: bool,
}

impl Cert {
    pub(crate) fn parse(der: &[u8]) -> Result<Self, Refused> {
        Self::decode(der).map_err(|_| Refused::Invalid("a form that cannot be read"))
    }

    fn decode(der: &[u8]) -> x509_cert::der::Result<Self> {
        let certificate = CertificateInner::<Raw>::from_der(der)?;
        let tbs = certificate.tbs_certificate();
        if tbs.signature() != certificate.signature_algorithm() {
            return Err(Tag::Sequence.value_error().into());
        }
        // The bytes as they were signed: encoding what was decoded may differ.
        let (signed, signature_algorithm, signature) =
            SliceReader::new(der)?.sequence(|reader| {
                let signed = reader.tlv_bytes()?;
                let algorithm = AnyRef::decode(reader)?;
                let signature = BitStringRef::decode(reader)?;
                Ok::<_, x509_cert::der::Error>((signed, algorithm, signature))
            })?;
        let info = tbs.subject_public_key_info();
        let key_algorithm = info.algorithm.to_der()?;
        let key = Key {
            algorithm: AnyRef::from_der(&key_algorithm)?.value().to_vec(),
            bits: info.subject_public_key.raw_bytes().to_vec(),
        };
        let validity = tbs.validity();
        let mut this = Self {
            der: der.to_vec(),
            signed: signed.to_vec(),
            signature_algorithm: signature_algorithm.value().to_vec(),
            signature: signature.raw_bytes().to_vec(),
            key,
            is_v1: tbs.version() == Version::V1,
            serial: tbs.serial_number().as_bytes().to_vec(),
            raw_subject: tbs.subject().clone(),
            subject: CanonicalName::new(tbs.subject()),
            issuer: CanonicalName::new(tbs.issuer()),
            valid: (
                validity.not_before.to_unix_duration().as_secs(),
                validity.not_after.to_unix_duration().as_secs(),
            ),
            alternative_names: Vec::new(),
            name_constraints: None,
            basic_constraints: None,
            key_usage: None,
            purposes: None,
            netscape_type: None,
            key_id: None,
            issuer_key_id: AuthorityKeyIdentifier::default(),
            has_unknown_critical: false,
        };
        let mut seen = Vec::new();
        for extension in tbs.extensions().into_iter().flatten() {
            if seen.contains(&extension.extn_id) {
                return Err(Tag::Sequence.value_error().into());
            }
            seen.push(extension.extn_id);
            this.read(extension)?;
        }
        Ok(this)
    }

    fn read(&mut self, extension: &Extension) -> x509_cert::der::Result<()> {
        let value = extension.extn_value.as_bytes();
        match extension.extn_id {
            SUBJECT_KEY_ID => {
                self.key_id = Some(OctetString::from_der(value)?.as_bytes().to_vec());
            }
            KEY_USAGE => self.key_usage = Some(KeyUsage::from_der(value)?),
            ALTERNATIVE_NAMES => self.alternative_names = GeneralNames::from_der(value)?,
            BASIC_CONSTRAINTS => self.basic_constraints = Some(BasicConstraints::from_der(value)?),
            NAME_CONSTRAINTS => self.name_constraints = Some(NameConstraints::from_der(value)?),
            AUTHORITY_KEY_ID => self.issuer_key_id = AuthorityKeyIdentifier::from_der(value)?,
            EXTENDED_KEY_USAGE => self.purposes = Some(ExtendedKeyUsage::from_der(value)?),
            NETSCAPE_TYPE => {
                let bits = BitString::from_der(value)?;
                self.netscape_type = Some(bits.raw_bytes().first().copied().unwrap_or(0));
            }
            id => self.has_unknown_critical |= extension.critical && !HARMLESS.contains(&id),
        }
        Ok(())
    }

    /// The values of all common names.
    pub(crate) fn common_names(&self) -> impl Iterator<Item = &[u8]> {
        let attributes = self.raw_subject.iter().filter(|attribute| attribute.oid == COMMON_NAME);
        attributes.map(|attribute| attribute.value.value())
    }

    pub(crate) fn has_dns_name(&self) -> bool {
        self.alternative_names.iter().any(|name| matches!(name, GeneralName::DnsName(_)))
    }

    fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    fn is_self_signed(&self) -> bool {
        self.has_issued(self)
    }

    /// Whether a certificate names this one as its issuer.
    fn has_issued(&self, other: &Self) -> bool {
        let id = &other.issuer_key_id;
        let is_key = match (&id.key_identifier, &self.key_id) {
            (Some(wanted), Some(own)) => wanted.as_bytes() == own.as_slice(),
            _ => true,
        };
        let serial = id.authority_cert_serial_number.as_ref();
        let is_serial = serial.is_none_or(|serial| serial.as_bytes() == self.serial);
        self.subject == other.issuer && is_key && is_serial
    }

    fn is_signed_by(&self, issuer: &Self, algorithms: Algorithms) -> bool {
        let algorithms = algorithms.iter();
        let mut own = algorithms
            .filter(|algorithm| algorithm.signature_alg_id().as_ref() == self.signature_algorithm);
        own.any(|algorithm| issuer.key.verify(*algorithm, &self.signed, &self.signature))
    }

    /// Whether it may be above another one: at the top if `is_root`, which is less strict.
    fn is_authority(&self, is_root: bool) -> bool {
        if self.key_usage.is_some_and(|usage| !usage.key_cert_sign()) {
            return false;
        }
        match &self.basic_constraints {
            Some(constraints) => constraints.ca,
            None => is_root && (self.is_v1 || self.key_usage.is_some()),
        }
    }

    /// Whether it may be a TLS server's.
    fn is_server(&self) -> bool {
        const NETSCAPE_SERVER: u8 = 0x40;
        let is_usable = self.key_usage.is_none_or(|usage| {
            usage.digital_signature() || usage.key_encipherment() || usage.key_agreement()
        });
        is_usable && self.netscape_type.is_none_or(|kind| kind & NETSCAPE_SERVER != 0)
    }

    fn serves_servers(&self) -> bool {
        self.purposes.as_ref().is_none_or(|purposes| {
            purposes.0.iter().any(|purpose| SERVER_PURPOSES.contains(purpose))
        })
    }
}

type Algorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// Verifies that a chain leads from a server's certificate through those it has sent to a
/// self-signed one of `roots`, and that each link may be what it is.
pub(crate) fn verify(
    server: &Cert,
    sent: &[Cert],
    roots: &[Cert],
    algorithms: Algorithms,
    now: u64,
) -> Result<(), Refused> {
    let mut search = Search { sent, roots, algorithms, now, signatures: 0 };
    search.extend(&mut vec![server])
}

struct Search<'a> {
    sent: &'a [Cert],
    roots: &'a [Cert],
    algorithms: Algorithms,
    now: u64,
    signatures: usize,
}

impl<'a> Search<'a> {
    fn extend(&mut self, chain: &mut Vec<&'a Cert>) -> Result<(), Refused> {
        let last = *chain.last().expect("it starts with the server's");
        if last.is_self_signed() {
            let is_trusted = self.roots.iter().any(|root| root.der == last.der);
            return if is_trusted { check(chain, self.now) } else { Err(Refused::UnknownIssuer) };
        }
        let mut refused = Refused::UnknownIssuer;
        if chain.len() == MAX_LENGTH {
            return Err(refused);
        }
        for issuer in self.roots.iter().chain(self.sent) {
            if !issuer.has_issued(last) || chain.iter().any(|link| link.der == issuer.der) {
                continue;
            }
            self.signatures += 1;
            if self.signatures > MAX_SIGNATURES {
                break;
            }
            let found = if last.is_signed_by(issuer, self.algorithms) {
                chain.push(issuer);
                let found = self.extend(chain);
                chain.pop();
                found
            } else {
                Err(Refused::Signature)
            };
            match found {
                Ok(()) => return Ok(()),
                Err(Refused::UnknownIssuer) => {}
                Err(other) => refused = other,
            }
        }
        Err(refused)
    }
}

/// Verifies a chain whose signatures are right, from the server's certificate to the root.
fn check(chain: &[&Cert], now: u64) -> Result<(), Refused> {
    let root = chain.len() - 1;
    // Authorities below the one in question, without those that only renew themselves.
    let mut below = 0;
    for (depth, certificate) in chain.iter().enumerate() {
        if certificate.has_unknown_critical {
            return Err(Refused::CriticalExtension);
        }
        if now < certificate.valid.0 {
            return Err(Refused::NotYetValid);
        }
        if now > certificate.valid.1 {
            return Err(Refused::Expired);
        }
        if !certificate.serves_servers() || (depth == 0 && !certificate.is_server()) {
            return Err(Refused::NotServer);
        }
        if depth == 0 {
            continue;
        }
        if !certificate.is_authority(depth == root) {
            return Err(Refused::NotAuthority);
        }
        let limit = certificate.basic_constraints.as_ref().and_then(|c| c.path_len_constraint);
        if depth > 1 && limit.is_some_and(|limit| below > usize::from(limit)) {
            return Err(Refused::TooLong);
        }
        below += usize::from(!certificate.is_self_issued());
        if let Some(allowed) = &certificate.name_constraints {
            for (position, other) in chain[..depth].iter().enumerate() {
                if position == 0 || !other.is_self_issued() {
                    constraints::check(allowed, other, position == 0)?;
                }
            }
        }
    }
    Ok(())
}
