//! A host's name in its certificate: the URI SAN `spiffe://<trust-domain>/host/<uuid>`
//! (SPIFFE-ID.md, sections 2.1 to 2.3), and the trust domain's own in a root certificate.

use crate::ids::HostId;

/// The URI that names `host` in `trust_domain`.
pub fn host_uri(trust_domain: &str, host: HostId) -> String {
    format!("spiffe://{trust_domain}/host/{host}")
}

/// The host that `uri` names in `trust_domain`; `None` for another domain or path.
pub fn host_of_uri(uri: &str, trust_domain: &str) -> Option<HostId> {
    uri.strip_prefix("spiffe://")?
        .strip_prefix(trust_domain)?
        .strip_prefix("/host/")
        .and_then(|id| id.parse().ok())
}

/// The URI that a root certificate carries for its trust domain.
pub fn trust_domain_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}")
}

/// The trust domain that a root certificate's `uri` names.
pub fn trust_domain_of_uri(uri: &str) -> Option<&str> {
    uri.strip_prefix("spiffe://")
        .filter(|domain| is_trust_domain(domain))
}

/// Whether `name` may be a trust domain: lower-case letters, digits, `.`, `-`, `_`; 1 to 255 bytes.
pub fn is_trust_domain(name: &str) -> bool {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    (1..=255).contains(&name.len()) && name.bytes().all(allowed)
}

/// The name a collector's certificate is verified against, whatever address it is reached at.
pub fn collector_server_name(trust_domain: &str) -> String {
    format!("collector.{trust_domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_found_only_in_its_own_trust_domain() {
        let host = HostId::random();
        let uri = host_uri("example.org", host);
        assert_eq!(host_of_uri(&uri, "example.org"), Some(host));
        assert_eq!(host_of_uri(&uri, "example"), None);
        assert_eq!(host_of_uri(&uri, "other.org"), None);
        assert_eq!(
            host_of_uri("spiffe://example.org/user/x", "example.org"),
            None
        );
    }

    #[test]
    fn a_trust_domain_has_no_path_and_no_capitals() {
        assert_eq!(
            trust_domain_of_uri("spiffe://example.org"),
            Some("example.org")
        );
        assert_eq!(trust_domain_of_uri("spiffe://example.org/host/x"), None);
        assert!(!is_trust_domain("Example"));
        assert!(!is_trust_domain(""));
    }
}
