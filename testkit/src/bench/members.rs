//! The hosts of a measurement: made by SQL, certified by the collector's own CA.
//!
//! Enrollment is left out, nothing else: each has rows as enrollment and a first batch leave them, and a
//! certificate of its own (over one key, which nothing forbids).

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use infratrack_agent::tls;
use infratrack_collector::ca::{Ca, Issued, Request};
use infratrack_collector::clock::Clock;
use infratrack_shared::ids::{BootId, HostId, InstanceId, StreamId};
use rcgen::{CertificateParams, KeyPair};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SigningKey, SingleCertAndKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sqlx::{AssertSqlSafe, Executor, PgConnection};
use uuid::Uuid;

/// Rows of one statement.
const CHUNK: usize = 5000;

/// A host.
#[derive(Clone, Debug)]
pub struct Member {
    pub host: HostId,
    pub stream: StreamId,
    pub instance: InstanceId,
    pub boot_id: BootId,
    chain: Vec<CertificateDer<'static>>,
    serial: Vec<u8>,
}

/// Makes hosts and their certificates.
#[derive(Debug)]
pub struct Registry {
    ca: Ca,
    clock: Clock,
    csr: Vec<u8>,
    key: Arc<dyn SigningKey>,
    tls: ClientConfig,
}

impl Registry {
    /// Over the collector's CA, which is there already.
    pub fn open(ca_dir: &Path) -> anyhow::Result<Self> {
        let ca = Ca::open(ca_dir)?;
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?;
        let roots: Vec<_> = ca.accepted().map(|one| one.root.clone()).collect();
        Ok(Self {
            ca,
            clock: Clock::system(),
            csr: csr.der().to_vec(),
            key: any_supported_type(&PrivateKeyDer::Pkcs8(key.serialize_der().into()))?,
            tls: tls::server_only(&roots)?,
        })
    }

    /// The name a collector proves.
    pub fn server_name(&self) -> anyhow::Result<ServerName<'static>> {
        Ok(tls::server_name(self.ca.trust_domain())?)
    }

    /// TLS as a member.
    pub fn tls_of(&self, member: &Member) -> Arc<ClientConfig> {
        let certified = CertifiedKey::new(member.chain.clone(), Arc::clone(&self.key));
        let mut tls = self.tls.clone();
        tls.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        Arc::new(tls)
    }

    /// Members beyond `members`, up to `count`, entered in each of `databases`.
    pub async fn grow(
        &self,
        members: &mut Vec<Member>,
        count: usize,
        databases: &mut [&mut PgConnection],
    ) -> anyhow::Result<()> {
        let request = Request::parse(&self.csr)?;
        while members.len() < count {
            let some = CHUNK.min(count - members.len());
            let new: Vec<_> = (0..some)
                .map(|_| self.member(&request))
                .collect::<anyhow::Result<_>>()?;
            for database in databases.iter_mut() {
                enter(database, &new, &request.spki_sha256).await?;
            }
            members.extend(new);
        }
        for database in databases {
            database.execute("vacuum analyze").await?;
        }
        Ok(())
    }

    fn member(&self, request: &Request) -> anyhow::Result<Member> {
        let now = self.clock.now();
        let host = HostId::at(self.clock.unix_millis());
        let lifetime = time::Duration::days(30);
        let Issued {
            serial,
            certificate,
            ..
        } = self.ca.issue_host(request, host, now, lifetime)?;
        let chain = self.ca.chain_of(certificate.to_vec());
        Ok(Member {
            host,
            stream: StreamId::random(),
            instance: InstanceId::random(),
            boot_id: BootId::random(),
            chain: chain.into_iter().map(|one| one.into_vec().into()).collect(),
            serial,
        })
    }
}

/// The rows that enrollment and a first batch leave.
async fn enter(
    database: &mut PgConnection,
    members: &[Member],
    spki_sha256: &[u8],
) -> anyhow::Result<()> {
    let hosts: Vec<Uuid> = members.iter().map(|member| member.host.0).collect();
    let instances: Vec<Uuid> = members.iter().map(|member| member.instance.0).collect();
    let boots: Vec<Uuid> = members.iter().map(|member| member.boot_id.0).collect();
    let leaf = |member: &Member| member.chain.first().map(|leaf| leaf.to_vec());
    let certificates: Option<Vec<_>> = members.iter().map(leaf).collect();
    let certificates = certificates.context("a member has a certificate")?;
    let serials: Vec<_> = members.iter().map(|member| member.serial.clone()).collect();
    for sql in [
        "insert into hosts (host_id, name, created_at)
         select host_id, 'bench-' || right(host_id::text, 12), now() from unnest($1::uuid[]) as i (host_id)",
        "insert into host_liveness (host_id) select * from unnest($1::uuid[])
         on conflict do nothing",
    ] {
        sqlx::query(sql).bind(&hosts).execute(&mut *database).await?;
    }
    sqlx::query(
        "insert into host_instances (host_id, instance, boot_id, address, first_seen_at)
         select *, '127.0.0.1', now() from unnest($1::uuid[], $2::uuid[], $3::uuid[])",
    )
    .bind(&hosts)
    .bind(&instances)
    .bind(&boots)
    .execute(&mut *database)
    .await?;
    sqlx::query(
        "update host_liveness l set instance = i.instance, instance_changed_at = now()
         from unnest($1::uuid[], $2::uuid[]) as i (host_id, instance) where l.host_id = i.host_id",
    )
    .bind(&hosts)
    .bind(&instances)
    .execute(&mut *database)
    .await?;
    sqlx::query(
        "insert into agent_certs
             (serial, host_id, certificate, spki_sha256, issued_at, not_after, issue_logged_at)
         select *, $4, now(), now() + interval '30 days', now()
         from unnest($1::bytea[], $2::uuid[], $3::bytea[])",
    )
    .bind(&serials)
    .bind(&hosts)
    .bind(&certificates)
    .bind(spki_sha256)
    .execute(database)
    .await?;
    Ok(())
}

/// Empties the tables that a measurement fills, so that each begins as the one before.
pub async fn empty(database: &mut PgConnection) -> anyhow::Result<()> {
    for sql in [
        "truncate heartbeats, heartbeats_5m, heartbeats_1h, heartbeats_dirty, events, gaps",
        "vacuum host_liveness",
        "checkpoint",
    ] {
        database.execute(AssertSqlSafe(sql)).await?;
    }
    Ok(())
}
