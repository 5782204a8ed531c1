//! What changed on a host in the hours before a moment: changes, packages, facts and reboots together, as
//! [`super::rank`] orders them. The API and its page ask it.

use infratrack_shared::ids::HostId;
use serde::Serialize;
use sqlx::PgConnection;
use time::OffsetDateTime;
use time::serde::rfc3339;
use utoipa::ToSchema;

use super::rank::{Cause, rank};
use super::{attribution, words};
use crate::store::timeline::sources::{CHANGES, EVENTS, FACTS, PACKAGES};
use crate::store::timeline::{self as store, Ask, Whats};

/// Rows that are read of each source, the nearest to the moment; and items of an answer.
pub const MOST: usize = 200;

/// What changed, the likely causes first.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct WhatChanged {
    /// From this time on,
    #[serde(with = "rfc3339")]
    pub after: OffsetDateTime,
    /// up to this one.
    #[serde(with = "rfc3339")]
    pub before: OffsetDateTime,
    pub counts: Counts,
    /// There is more than is told: of a kind only the nearest 200 are looked at, and of all, 200 are told.
    pub is_cut: bool,
    pub items: Vec<Cause>,
}

/// How many there are of each kind, what stands below changes included; of what is cut, of what was looked at.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = WhatChangedCounts)]
pub struct Counts {
    /// Runs, plans among them, and what somebody wrote down.
    pub changes: usize,
    /// Transactions, and what inventories showed.
    pub packages: usize,
    pub facts: usize,
    pub reboots: usize,
    /// Changes of packages and facts among them that nobody can be named for.
    pub unattributed: usize,
}

/// What changed from `after` up to `before`.
pub async fn read(
    connection: &mut PgConnection,
    host: HostId,
    (after, before): (OffsetDateTime, OffsetDateTime),
    now: OffsetDateTime,
) -> sqlx::Result<WhatChanged> {
    let events = Whats::OneOf(vec!["package_transaction", "boot"]);
    let sources = [
        (&CHANGES, None),
        (&PACKAGES, None),
        (&FACTS, None),
        (&EVENTS, Some(events)),
    ];
    let (mut items, mut is_cut) = (Vec::new(), false);
    for (source, whats) in sources {
        let ask = Ask {
            host,
            from: None,
            is_forward: false,
            after: Some(after),
            before: Some(before),
            whats,
            limit: i64::try_from(MOST + 1).unwrap_or(i64::MAX),
        };
        let rows = store::list(connection, source, &ask).await?;
        is_cut |= rows.len() > MOST;
        let rows = rows.into_iter().take(MOST);
        items.extend(rows.map(|row| words::item(source, row, now)));
    }
    items.retain(|item| !attribution::is_first(item));
    attribution::attribute(connection, host, &mut items).await?;
    let of = |kind: &str| items.iter().filter(|item| item.kind == kind).count();
    let counts = Counts {
        changes: of("change"),
        packages: of("package"),
        facts: of("fact"),
        reboots: of("event"),
        unattributed: items.iter().filter(|item| item.unattributed).count(),
    };
    let mut items = rank(items, before);
    is_cut |= items.len() > MOST;
    items.truncate(MOST);
    Ok(WhatChanged {
        after,
        before,
        counts,
        is_cut,
        items,
    })
}
