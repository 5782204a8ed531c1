//! The page of what changed on a host in the hours before a moment, the likely causes first.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use infratrack_shared::ids::HostId;
use serde::Deserialize;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::api::hosts::what_changed::{self as api, WhatChangedQuery};
use crate::api::hosts::{self, Host};
use crate::api::input::{Path, Query};
use crate::api::problem::Problem;
use crate::app::App;
use crate::timeline::rank::Cause;
use crate::timeline::what_changed::Counts;
use crate::web::frame::Frame;
use crate::web::host::query::{instant, text};
use crate::web::host::timeline::ItemView;
use crate::web::plain::{encoded, line};
use crate::web::{self, words};

/// Before when, and how long; a form sends its empty fields too.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Asked {
    before: String,
    hours: String,
}

impl Asked {
    fn query(&self) -> Result<WhatChangedQuery, Problem> {
        let hours = self.hours.trim();
        let hours = (!hours.is_empty()).then(|| hours.parse());
        let hours = hours.transpose();
        Ok(WhatChangedQuery {
            before: instant("before", &self.before)?,
            hours: hours.map_err(|_| Problem::parameter("hours", "must be a whole number"))?,
        })
    }
}

/// A possible cause as it is shown.
#[derive(Debug)]
struct CauseView {
    /// `3 h`.
    before: String,
    item: ItemView,
    during: Vec<ItemView>,
    during_count: usize,
}

#[derive(Template)]
#[template(path = "host/what_changed.html")]
struct WhatChangedPage {
    frame: Frame,
    host: Host,
    hours: i64,
    after: OffsetDateTime,
    before: OffsetDateTime,
    counts: Counts,
    is_cut: bool,
    causes: Vec<CauseView>,
}

impl WhatChangedPage {
    fn name(&self) -> String {
        line(&self.host.name, 120)
    }

    /// As the form's field takes it.
    fn field(&self) -> String {
        text(self.before).trim_end_matches('Z').to_owned()
    }

    /// The same time on the timeline.
    fn timeline(&self) -> String {
        let (after, before) = (encoded(&text(self.after)), encoded(&text(self.before)));
        let host = self.host.id;
        format!("/hosts/{host}?before={before}&after={after}#timeline")
    }

    /// "2 changes, 1 reboot".
    fn counted(&self) -> String {
        let Counts {
            changes,
            packages,
            facts,
            reboots,
            unattributed,
        } = self.counts;
        let counted = |count: usize, one: &str, many: &str| {
            (count > 0).then(|| format!("{count} {}", if count == 1 { one } else { many }))
        };
        let parts = [
            counted(changes, "change", "changes"),
            counted(packages, "change of packages", "changes of packages"),
            counted(facts, "changed fact", "changed facts"),
            counted(reboots, "reboot", "reboots"),
            counted(unattributed, "of them unattributed", "of them unattributed"),
        ];
        let parts: Vec<_> = parts.into_iter().flatten().collect();
        parts.join(", ")
    }
}

/// `GET /hosts/{id}/what-changed`.
pub async fn page(
    State(app): State<Arc<App>>,
    frame: Frame,
    Path(id): Path<Uuid>,
    Query(asked): Query<Asked>,
) -> Result<Response, Problem> {
    let id = HostId(id);
    let host = hosts::find(&app, id).await?;
    let query = asked.query()?;
    let found = api::read(&app, id, &query).await?;
    let now = frame.now;
    let causes = found.items.into_iter().map(|cause| view(id, cause, now));
    let page = WhatChangedPage {
        hours: query.hours.unwrap_or(api::DEFAULT_HOURS),
        after: found.after,
        before: found.before,
        counts: found.counts,
        is_cut: found.is_cut,
        causes: causes.collect(),
        frame,
        host,
    };
    Ok(web::page(&page.frame, &page))
}

fn view(host: HostId, cause: Cause, now: OffsetDateTime) -> CauseView {
    let shown = |item| ItemView::of(host, item, now, &mut 0);
    CauseView {
        before: words::duration(cause.seconds_before),
        item: shown(cause.item),
        during: cause.during.into_iter().map(shown).collect(),
        during_count: cause.during_count,
    }
}
