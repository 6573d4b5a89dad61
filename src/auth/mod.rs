//! From an API key to a [`Caller`]: who is asking, for which tenant, and what they may do.

mod key;

use std::fmt;
use std::sync::Arc;

pub use key::{HashedKey, PlainKey};

/// Tenant of everything that the key from the environment sends.
const DEFAULT_TENANT: &str = "default";

/// Whose data it is. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// A tenant by its name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name, as column `tenant_id` holds it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Post reports.
    Ingest,
    /// Read sessions.
    Read,
}

impl Scope {
    /// The scope's name in messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
        }
    }
}

/// Names a key where it must be told from others; not the key, and nothing that leads to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyId(Arc<str>);

/// An authenticated client.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Where its reports go.
    pub tenant: Tenant,
    /// Which key it used; limits count per key.
    pub key: KeyId,
    scopes: Arc<[Scope]>,
}

impl Caller {
    /// Whether the key has a scope.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }
}

/// The keys that are known.
pub struct Keys {
    hash: HashedKey,
    caller: Caller,
}

impl Keys {
    /// The one key of the environment: tenant `default`, scopes ingest and read.
    #[must_use]
    pub fn from_environment(key: &PlainKey) -> Self {
        let caller = Caller {
            tenant: Tenant::new(DEFAULT_TENANT),
            key: KeyId("environment".into()),
            scopes: Arc::new([Scope::Ingest, Scope::Read]),
        };
        Self { hash: key.hash(), caller }
    }

    /// Who holds this key; `None` when nobody does. Takes the same time either way.
    #[must_use]
    pub fn authenticate(&self, presented: &[u8]) -> Option<&Caller> {
        self.hash.matches(presented).then_some(&self.caller)
    }

    /// Tenants that are known, for metrics that start at zero.
    pub fn tenants(&self) -> impl Iterator<Item = &Tenant> {
        std::iter::once(&self.caller.tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_opens() {
        let keys = Keys::from_environment(&PlainKey::new("a-secret".to_owned()));
        let caller = keys.authenticate(b"a-secret").expect("known");
        assert_eq!(caller.tenant.as_str(), "default");
        assert!(caller.may(Scope::Ingest) && caller.may(Scope::Read));
        for wrong in [&b""[..], b"a-secre", b"a-secret ", b"A-SECRET", b"\xff\xfe"] {
            assert!(keys.authenticate(wrong).is_none());
        }
    }

    #[test]
    fn keys_never_show_in_debug_output() {
        let key = PlainKey::new("canary-5f1e".to_owned());
        assert!(!format!("{key:?} {:?}", key.hash()).contains("canary"));
    }
}
