//! Whether a certificate is for a host, with libpq's rules.

use std::net::IpAddr;

use x509_cert::ext::pkix::name::GeneralName;

use crate::chain::{Cert, Refused};

/// Verifies that a certificate is for a host: an alternative name, or the common name if there
/// is no alternative name of the host's kind.
pub(crate) fn verify(certificate: &Cert, host: &str) -> Result<(), Refused> {
    let address: Option<IpAddr> = host.parse().ok();
    let mut is_common_name_used = true;
    let mut names = Vec::new();
    for name in &certificate.alternative_names {
        match name {
            GeneralName::DnsName(name) => {
                is_common_name_used &= address.is_some();
                if matches(name.as_str().as_bytes(), host)? {
                    return Ok(());
                }
                names.push(name.as_str().to_owned());
            }
            GeneralName::IpAddress(name) => {
                is_common_name_used &= address.is_none();
                let name = ip(name.as_bytes());
                if name.is_some() && name == address {
                    return Ok(());
                }
                names.extend(name.map(|name| name.to_string()));
            }
            _ => {}
        }
    }
    if is_common_name_used && let Some(name) = certificate.common_names().next() {
        if matches(name, host)? {
            return Ok(());
        }
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    Err(Refused::Host { host: host.to_owned(), names })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
    v4().or_else(|| <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from))
}

/// `*.` at the start of a pattern stands for one label.
fn matches(pattern: &[u8], host: &str) -> Result<bool, Refused> {
    if pattern.contains(&0) {
        return Err(Refused::Invalid("a name with a null byte"));
    }
    let host = host.as_bytes();
    if pattern.eq_ignore_ascii_case(host) {
        return Ok(true);
    }
    let wildcard = pattern.strip_prefix(b"*").filter(|rest| rest.len() > 1 && rest[0] == b'.');
    let Some(rest) = wildcard else { return Ok(false) };
    // A label may be empty, as in libpq, but the first dot must be the pattern's.
    let Some(start) = host.len().checked_sub(rest.len()).filter(|start| *start > 0) else {
        return Ok(false);
    };
    let (label, end) = host.split_at(start);
    Ok(end.eq_ignore_ascii_case(rest) && !label.contains(&b'.'))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_match_as_in_libpq() {
        for (pattern, host, expected) in [
            ("db.example.com", "DB.example.com", true),
            ("db.example.com", "db.example.com.", false),
            ("*.example.com", "db.example.com", true),
            ("*.example.com", "a.db.example.com", false),
            ("*.example.com", "example.com", false),
            ("*.example.com", ".example.com", false),
            ("d*.example.com", "db.example.com", false),
            ("*", "localhost", false),
            ("*.", "localhost.", false),
        ] {
            let found = matches(pattern.as_bytes(), host).expect("no null byte");
            assert_eq!(found, expected, "{pattern} {host}");
        }
        assert!(matches(b"db\0.example.com", "db").is_err());
    }
}
