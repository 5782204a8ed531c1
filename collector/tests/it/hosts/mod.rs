//! `/api/v1/hosts`: lists, searches and exports over made-up fleets; edits, retirement, merges and bulk actions.

mod bulk;
mod edit;
mod export;
mod list;
mod page;
mod retire;
mod search;
mod series;
mod timeline;
pub(crate) mod touched;
mod what_changed;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use infratrack_shared::digest::Digest;
use infratrack_shared::wire::batch::StatePart;
use serde_json::Value;

use crate::harness::{Collector, Host};

/// Adds `count` hosts with random metadata and readings, the same for the same seed; of every optional value some
/// are null, and many names are equal.
pub(crate) async fn fleet(collector: &Collector, seed: i32, count: i32) {
    let sql = "with made as (
             select i, gen_random_uuid() as host_id, r
             from generate_series($4, least($4 + 1999, $2)) as i,
                  lateral (select array_agg(('x' || substr(md5($1 || '-' || i || '-' || k), 1, 6))::bit(24)::int) as r
                           from generate_series(1, 12) as k) as random
         ), host as (
             insert into hosts (host_id, name, tags, owner, environment, addresses, os_id, origin, created_at,
                                retired_at, missing_since)
             select host_id, (array['web', 'db', 'cache'])[1 + r[1] % 3] || '-' || r[1] % 7,
                 array_remove(array['all', case r[2] % 3 when 0 then 'role:web' end,
                                    case r[3] % 2 when 0 then 'dc:1' end], null),
                 case r[4] % 3 when 0 then 'alice' when 1 then 'bob' end,
                 case r[5] % 3 when 0 then 'prod' when 1 then 'test' end,
                 array[('10.' || r[6] % 4 || '.0.' || r[6] % 250)::inet], case r[7] % 2 when 0 then 'debian' end,
                 (array['agent', 'manual', 'inventory'])[1 + r[8] % 3], $3::timestamptz - make_interval(hours => r[9] % 9),
                 case r[10] % 10 when 0 then $3::timestamptz end, case r[11] % 10 when 0 then $3::timestamptz end
             from made
         )
         insert into host_liveness (host_id, last_seen_at, agent_version, cpu_ratio, memory_used_ratio,
                                    disk_used_ratio, failed_unit_count)
         select host_id, case when r[12] % 4 > 0 then $3::timestamptz - make_interval(secs => r[12] % 5 * 40) end,
             case when r[1] % 5 > 0 then '0.' || r[1] % 3 end, (r[2] % 5 / 4.0)::real,
             case when r[3] % 3 > 0 then (r[3] % 7 / 7.0)::real end,
             case when r[4] % 3 > 0 then (r[4] % 11 / 10.0)::real end, r[5] % 4 / 3
         from made";
    for first in (1..=count).step_by(2000) {
        sqlx::query(sql)
            .bind(seed)
            .bind(count)
            .bind(collector.clock.now())
            .bind(first)
            .execute(&collector.pool)
            .await
            .unwrap();
    }
}

/// All hosts of a list, page by page; the total is to be the same on every page.
pub(crate) async fn walk(collector: &Collector, query: &str, limit: usize) -> Vec<Value> {
    let first = format!("/api/v1/hosts?limit={limit}&{query}");
    let (mut hosts, mut path, mut total) = (Vec::new(), first.clone(), None);
    loop {
        let page = collector.get(&path).await;
        let items = page["items"].as_array().unwrap();
        assert_eq!(
            *total.get_or_insert(page["total"].clone()),
            page["total"],
            "{path}"
        );
        hosts.extend(items.iter().cloned());
        let Some(cursor) = page["next_cursor"].as_str() else {
            assert_eq!(total.unwrap(), hosts.len(), "{first}");
            return hosts;
        };
        assert_eq!(items.len(), limit, "{path}");
        path = format!("{first}&cursor={cursor}");
    }
}

/// The sorted ids of hosts.
pub(crate) fn ids(hosts: &[Value]) -> Vec<String> {
    let mut ids: Vec<_> = hosts
        .iter()
        .map(|host| host["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

/// A call with headers of its own, as the administrator or with another token.
pub(crate) async fn call(
    collector: &Collector,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Bytes> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "test");
    if !headers.iter().any(|(name, _)| *name == "authorization") {
        request = request.header("authorization", format!("Bearer {}", collector.admin_token));
    }
    let has_type = headers.iter().any(|(name, _)| *name == "content-type");
    if !body.is_empty() && !has_type {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::from(body.to_owned()));
    collector.request(request.body(body).unwrap()).await
}

fn json(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or_default()
}

/// A host without an agent, by its name.
pub(crate) async fn made(collector: &Collector, body: Value) -> Value {
    let (status, host) = collector
        .api(Method::POST, "/api/v1/hosts", &body.to_string())
        .await;
    assert_eq!(status, StatusCode::CREATED, "{host}");
    host
}

/// Has the host's agent say a fact.
pub(crate) async fn say(collector: &Collector, host: &Host, version: u64, key: &str, body: Value) {
    let body = tree(&body);
    let mut batch = host.batch(collector);
    batch.heartbeat = Some(host.heartbeat(collector));
    batch.state = vec![StatePart {
        key: key.to_owned(),
        version,
        base_hash: None,
        new_hash: Digest::of(&infratrack_shared::codec::encode(&body).unwrap()),
        part: 0,
        parts: 1,
        body,
    }];
    host.send(collector, &batch).await.unwrap();
}

pub(crate) fn tree(value: &Value) -> rmpv::Value {
    match value {
        Value::Null => rmpv::Value::Nil,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => number
            .as_i64()
            .map_or_else(|| number.as_f64().unwrap().into(), Into::into),
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => rmpv::Value::Array(values.iter().map(tree).collect()),
        Value::Object(object) => {
            let pairs = object
                .iter()
                .map(|(key, value)| (key.as_str().into(), tree(value)));
            rmpv::Value::Map(pairs.collect())
        }
    }
}
