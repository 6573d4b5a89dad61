//! Keys as plain text, for as short as possible, and as the hash that stays in memory.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// A key as it was configured. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct PlainKey(SecretString);

impl PlainKey {
    /// Takes a key.
    #[must_use]
    pub fn new(key: String) -> Self {
        Self(key.into())
    }

    /// What a key may be made of.
    pub const EXPECTED: &str =
        "visible ASCII characters without blanks, as a header can carry them";

    /// Whether it is made of that.
    #[must_use]
    pub fn is_sendable(&self) -> bool {
        self.0.expose_secret().bytes().all(|byte| byte.is_ascii_graphic())
    }

    /// The hash under which the key is known.
    #[must_use]
    pub fn hash(&self) -> HashedKey {
        HashedKey::of(self.0.expose_secret().as_bytes())
    }

    /// The key itself, for those who must show or send it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for PlainKey {
    fn from(key: String) -> Self {
        Self::new(key)
    }
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey([hidden])")
    }
}

/// SHA-256 of a key: keys are long and random, so a slow hash would protect nothing.
#[derive(Clone)]
pub struct HashedKey([u8; 32]);

impl HashedKey {
    fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Compares in constant time.
    #[must_use]
    pub fn matches(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(&Self::of(presented).0).into()
    }
}

impl fmt::Debug for HashedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashedKey([hidden])")
    }
}
