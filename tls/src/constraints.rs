//! Which names an authority may issue, as OpenSSL understands it.

use x509_cert::ext::pkix::NameConstraints;
use x509_cert::ext::pkix::constraints::name::GeneralSubtree;
use x509_cert::ext::pkix::name::GeneralName;

use crate::chain::{CanonicalName, Cert, Refused};

/// A name of a certificate below the authority.
enum Named<'a> {
    Subject(&'a CanonicalName),
    Directory(CanonicalName),
    Dns(&'a [u8]),
    Ip(&'a [u8]),
    /// A kind that no TLS server is known by.
    Other,
}

/// Verifies all names of a certificate.
pub(crate) fn check(
    allowed: &NameConstraints,
    certificate: &Cert,
    is_server: bool,
) -> Result<(), Refused> {
    let alternative = certificate.alternative_names.iter().map(|name| match name {
        GeneralName::DnsName(name) => Named::Dns(name.as_str().as_bytes()),
        GeneralName::IpAddress(address) => Named::Ip(address.as_bytes()),
        GeneralName::DirectoryName(name) => Named::Directory(CanonicalName::new(name)),
        _ => Named::Other,
    });
    let subject = std::iter::once(Named::Subject(&certificate.subject));
    // A common name counts where the host is looked for in it.
    let is_common_name_used = is_server && !certificate.has_dns_name();
    let common = certificate.common_names().filter(|name| is_common_name_used && is_host(name));
    let mut names = subject.chain(alternative).chain(common.map(Named::Dns));
    let is_allowed = names.all(|name| {
        let mut permitted = allowed.permitted_subtrees.iter().flatten().peekable();
        let permitted: Vec<_> = permitted.by_ref().filter_map(|tree| covers(tree, &name)).collect();
        let mut excluded = allowed.excluded_subtrees.iter().flatten();
        let is_excluded = excluded.any(|tree| covers(tree, &name) == Some(true));
        !is_excluded && (permitted.is_empty() || permitted.contains(&true))
    });
    let trees = allowed.permitted_subtrees.iter().chain(&allowed.excluded_subtrees).flatten();
    let mut trees = trees.into_iter();
    let is_plain = trees.all(|tree| tree.minimum == 0 && tree.maximum.is_none());
    if is_allowed && is_plain { Ok(()) } else { Err(Refused::NameConstraint) }
}

/// Whether a subtree covers a name; `None` where it speaks of names of another kind.
fn covers(tree: &GeneralSubtree, name: &Named<'_>) -> Option<bool> {
    match (&tree.base, name) {
        (GeneralName::DnsName(base), Named::Dns(name)) => {
            Some(covers_dns(base.as_str().as_bytes(), name))
        }
        (GeneralName::IpAddress(base), Named::Ip(address)) => {
            Some(covers_ip(base.as_bytes(), address))
        }
        (GeneralName::DirectoryName(base), Named::Subject(name)) => {
            Some(name.is_within(&CanonicalName::new(base)))
        }
        (GeneralName::DirectoryName(base), Named::Directory(name)) => {
            Some(name.is_within(&CanonicalName::new(base)))
        }
        _ => None,
    }
}

fn covers_dns(base: &[u8], name: &[u8]) -> bool {
    let Some(start) = name.len().checked_sub(base.len()) else { return false };
    let is_label =
        start == 0 || base.first().is_none_or(|first| *first == b'.') || name[start - 1] == b'.';
    is_label && name[start..].eq_ignore_ascii_case(base)
}

/// The base is an address followed by a mask.
fn covers_ip(base: &[u8], address: &[u8]) -> bool {
    let (network, mask) = base.split_at(base.len() / 2);
    let mut bytes = address.iter().zip(network).zip(mask);
    base.len() == 2 * address.len() && bytes.all(|((a, n), m)| a & m == n & m)
}

/// Whether a common name could be that of a host, with more than one label.
fn is_host(name: &[u8]) -> bool {
    let is_inner_dot = name.len() > 2 && name[1..name.len() - 1].contains(&b'.');
    is_inner_dot && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._*".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::{covers_dns, covers_ip};

    #[test]
    fn subtrees_cover_what_is_below() {
        for (base, name, expected) in [
            ("example.com", "db.example.com", true),
            ("example.com", "Example.com", true),
            (".example.com", "db.example.com", true),
            (".example.com", "example.com", false),
            ("example.com", "badexample.com", false),
            ("", "anything", true),
        ] {
            assert_eq!(covers_dns(base.as_bytes(), name.as_bytes()), expected, "{base} {name}");
        }
        let base = [10, 0, 0, 0, 255, 0, 0, 0];
        assert!(covers_ip(&base, &[10, 1, 2, 3]) && !covers_ip(&base, &[11, 1, 2, 3]));
        assert!(!covers_ip(&base, &[0; 16]) && !covers_ip(&[], &[10, 0, 0, 1]));
    }
}
