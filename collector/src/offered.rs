//! The values that filters of hosts offer. Which ones a fleet has changes seldom, and to count them reads every host: they
//! are read anew only now and then.

use std::sync::{Arc, PoisonError, RwLock};

use sqlx::PgConnection;
use time::{Duration, OffsetDateTime};

use crate::store::hosts::facets::{self, Value};

/// Values of each field that are offered.
const VALUES: i64 = 40;
/// They are offered for so long.
const FRESH: Duration = Duration::seconds(30);

/// The last that were read, and when.
#[derive(Debug, Default)]
pub struct Offered(RwLock<Option<(OffsetDateTime, Arc<[Value]>)>>);

impl Offered {
    /// The values that most hosts have; up to half a minute old.
    pub async fn values(
        &self,
        connection: &mut PgConnection,
        now: OffsetDateTime,
    ) -> sqlx::Result<Arc<[Value]>> {
        if let Some(values) = self.fresh(now) {
            return Ok(values);
        }
        let values: Arc<[Value]> = facets::list_values(connection, VALUES).await?.into();
        let mut last = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *last = Some((now, Arc::clone(&values)));
        Ok(values)
    }

    fn fresh(&self, now: OffsetDateTime) -> Option<Arc<[Value]>> {
        let last = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let (at, values) = last.as_ref()?;
        (*at..*at + FRESH)
            .contains(&now)
            .then(|| Arc::clone(values))
    }
}
