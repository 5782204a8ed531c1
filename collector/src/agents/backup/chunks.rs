//! Which chunks have to be sent, and where those are that are wanted back.

use std::collections::{BTreeSet, HashMap};

use infratrack_shared::backup::{Algorithm, ChunkId, PackHash, Salt};
use infratrack_shared::ids::{HostId, VolumeId};
use infratrack_shared::limits;
use infratrack_shared::wire::backup::{Missing, MissingAsked, Place, Places, PlacesAsked};
use serde_bytes::ByteBuf;

use super::{ids, readable, running, unstored};
use crate::agents::problem::Refusal;
use crate::app::App;
use crate::store::packs::{self, HeldRow, PlaceRow, Window};

/// 1, salt, counter.
const HELD_BYTES: usize = 1 + 16 + 2;

/// Chunks of one origin that are told together.
const WINDOW: i32 = 1024;

/// Which chunks a run has to send: all that are not held for sure.
pub(super) async fn missing(
    app: &App,
    host: HostId,
    asked: MissingAsked,
) -> Result<Missing, Refusal> {
    let ids = ids(&asked.ids, limits::BACKUP_MISSING_IDS)?;
    let run = running(app, host, asked.run).await?;
    let found = async {
        let mut connection = app.pool.acquire().await?;
        packs::list_held(&mut connection, VolumeId(run.volume_id), &ids).await
    };
    let found = found.await.map_err(unstored)?;
    let rows = found.iter().map(|row| (row.chunk_id.as_slice(), row));
    // Two of the same id may have been sealed: the first.
    let held: HashMap<_, _> = rows.rev().collect();
    let mut answer = Vec::with_capacity(ids.len() * HELD_BYTES);
    for id in &ids {
        let row = held.get(id.as_slice()).and_then(|row| of_row(row));
        answer.extend_from_slice(&row.unwrap_or_default());
    }
    Ok(Missing {
        held: ByteBuf::from(answer),
    })
}

fn of_row(row: &HeldRow) -> Option<[u8; HELD_BYTES]> {
    let counter = u16::try_from(row.counter).ok()?;
    let mut held = [0; HELD_BYTES];
    held[0] = 1;
    held[1..17].copy_from_slice(row.salt.get(..16)?);
    held[17..].copy_from_slice(&counter.to_be_bytes());
    Some(held)
}

/// Where chunks are.
pub(super) async fn places(app: &App, host: HostId, asked: PlacesAsked) -> Result<Places, Refusal> {
    let ids = ids(&asked.ids, limits::BACKUP_PLACES)?;
    readable(app, host, asked.volume).await?;
    let found = async {
        let mut connection = app.pool.acquire().await?;
        let mut found = packs::list_places(&mut connection, asked.volume, &ids).await?;
        if asked.has_neighbors {
            let windows = windows(&found);
            found.extend(packs::list_in_windows(&mut connection, &windows).await?);
        }
        sqlx::Result::Ok(found)
    };
    let found = found.await.map_err(unstored)?;
    let places = found.iter().filter_map(place).collect();
    Ok(Places { places })
}

/// What is sealed one after another is asked for one after another: where the neighbors of these are, in windows that don't depend on
/// which of a window's chunks is asked for.
fn windows(found: &[PlaceRow]) -> Vec<Window> {
    let window = |row: &PlaceRow| (row.origin_id, row.counter / WINDOW);
    let windows: BTreeSet<_> = found.iter().map(window).collect();
    let window = |(origin_id, number): (i64, i32)| Window {
        origin_id,
        first: number * WINDOW,
        last: number * WINDOW + WINDOW - 1,
    };
    let most = limits::BACKUP_NEIGHBORS / usize::try_from(WINDOW).unwrap_or(usize::MAX);
    windows.into_iter().take(most).map(window).collect()
}

fn place(row: &PlaceRow) -> Option<Place> {
    Some(Place {
        id: ChunkId::new(row.chunk_id.as_slice().try_into().ok()?),
        pack: PackHash::new(row.hash.as_slice().try_into().ok()?),
        offset: row.offset_bytes.try_into().ok()?,
        length: row.length_bytes.try_into().ok()?,
        salt: Salt::new(row.salt.as_slice().try_into().ok()?),
        algorithm: Algorithm::try_from(u8::try_from(row.algorithm).ok()?).ok()?,
        counter: row.counter.try_into().ok()?,
    })
}
