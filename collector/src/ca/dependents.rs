//! Who would be turned away if a generation of the CA were retired. `infratrack-collector ca retire` asks.

use infratrack_shared::ids::HostId;
use rustls_pki_types::CertificateDer;
use sqlx::PgPool;
use time::OffsetDateTime;

use super::authority::Authority;
use super::issuer_key_id;
use crate::store::{agent_certs, enroll_tokens};

/// Hosts looked at in one turn.
const PAGE: i64 = 1000;

/// What still depends on a generation.
#[derive(Debug, Default)]
pub struct Dependents {
    /// Seen lately, and their newest certificate is from it.
    pub hosts: Vec<HostId>,
    /// Enrollment tokens that can still be used and pin its root.
    pub tokens: i64,
}

impl Dependents {
    /// Looks for them. Hosts count that were seen since `seen_since`, tokens that were made before the next
    /// generation signed.
    pub async fn find(
        pool: &PgPool,
        of: &Authority,
        next_signs_from: OffsetDateTime,
        seen_since: OffsetDateTime,
        now: OffsetDateTime,
    ) -> sqlx::Result<Self> {
        let mut connection = pool.acquire().await?;
        let tokens = enroll_tokens::count_open(&mut connection, next_signs_from, now).await?;
        let (mut hosts, mut after) = (Vec::new(), None);
        loop {
            let page =
                agent_certs::list_newest(&mut connection, now, seen_since, after, PAGE).await?;
            after = page.last().map(|(host, _)| *host);
            let of_it = page.iter().filter(|(_, certificate)| {
                let by = issuer_key_id(&CertificateDer::from(certificate.as_slice()));
                of.is_issuer(by.as_deref())
            });
            hosts.extend(of_it.map(|(host, _)| *host));
            if after.is_none() {
                return Ok(Self { hosts, tokens });
            }
        }
    }
}
