//! Heartbeats for the sample hosts that are to look alive. Where there are none, one look at an empty table.

use std::sync::Arc;

use sqlx::PgConnection;

use crate::app::App;
use crate::jobs::run::{Done, Work};
use crate::sample;
use crate::sample::member::{Member, Presence};
use crate::store::sample_hosts;

/// One heartbeat of each host that reports; those that are to be late stay behind by as much.
pub(super) fn run<'a>(app: &'a Arc<App>, connection: &'a mut PgConnection) -> Work<'a, Done> {
    Box::pin(beat(app, connection))
}

async fn beat(app: &Arc<App>, connection: &mut PgConnection) -> anyhow::Result<Done> {
    let hosts = sample_hosts::list_in_use(connection).await?;
    let Some(loaded_at) = hosts.first().map(|host| host.loaded_at) else {
        return Ok(Done::Whole);
    };
    let cutoffs = app.silence.cutoffs(app.clock.now());
    let beating = hosts.iter().filter_map(|row| {
        let member = Member(row.number.unsigned_abs());
        let is_alive = matches!(member.presence(), Presence::Online | Presence::Late);
        let at = sample::last_seen_at(member, cutoffs).filter(|_| is_alive)?;
        Some((member, at))
    });
    let beating: Vec<_> = beating.collect();
    sample::beat_once(connection, &beating, loaded_at, loaded_at).await?;
    Ok(Done::Whole)
}
