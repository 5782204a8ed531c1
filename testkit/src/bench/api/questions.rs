//! What is asked: each question in forms that differ, so that no answer is only a repetition of the one before.

use std::time::Duration;

use super::Client;

/// A list, filter or search, at p95.
pub(super) const LIST: Duration = Duration::from_millis(200);
/// One host, at p95.
const ONE: Duration = Duration::from_millis(100);

/// A question in its forms.
#[derive(Clone, Debug)]
pub struct Question {
    pub name: &'static str,
    pub goal: Option<Duration>,
    paths: Vec<String>,
}

impl Question {
    /// With one form.
    pub fn fixed(name: &'static str, goal: Option<Duration>, path: &str) -> Self {
        Self {
            name,
            goal,
            paths: vec![path.to_owned()],
        }
    }

    /// The form of the request with this number.
    pub fn path(&self, index: usize) -> &str {
        let index = index % self.paths.len().max(1);
        self.paths.get(index).map_or("/", String::as_str)
    }

    /// The parameters, where it is the list of hosts without a cursor.
    pub fn query(&self, index: usize) -> Option<&str> {
        let (path, query) = self
            .path(index)
            .split_once('?')
            .unwrap_or((self.path(index), ""));
        let is_page = !query.contains("cursor=") && !query.contains("format=");
        (path == "/api/v1/hosts" && is_page).then_some(query)
    }
}

/// Lists by their parameters; `{}` is a number.
const LISTS: &[(&str, &str)] = &[
    ("all, by name", ""),
    ("500 a page", "limit=500"),
    ("two fields", "limit=500&fields=id,name"),
    ("by name, backwards", "sort=-name"),
    ("by status", "sort=status"),
    ("by last seen", "sort=last_seen_at"),
    ("by last seen, backwards", "sort=-last_seen_at"),
    ("by creation", "sort=-created_at"),
    ("by disk", "sort=-disk_used_ratio"),
    ("by memory", "sort=-memory_used_ratio"),
    ("by CPU", "sort=-cpu_ratio"),
    ("by agent version", "sort=agent_version"),
    ("status=unhealthy", "status=unhealthy"),
    ("status=healthy", "status=healthy"),
    ("liveness=offline", "liveness=offline"),
    ("reason=disk_critical", "reason=disk_critical"),
    ("a tag", "tag=dc:{}"),
    (
        "two tags and not a third",
        "tag=env:prod&tag=role:web&not_tag=dc:{}",
    ),
    ("owner and environment", "owner=team-{}&environment=prod"),
    ("os", "os=debian"),
    ("origin", "origin=manual"),
    ("agent version", "agent_version=0.1.0"),
    ("a network", "address=10.{}.0.0/16"),
    ("last seen before", "last_seen_before=2030-01-01T00:00:00Z"),
    ("created after", "created_after=2020-01-01T00:00:00Z"),
    ("retired", "state=retired"),
    (
        "six filters and a sort",
        "status=degraded,unhealthy&environment=prod&os=debian&tag=dc:{}&q=web&liveness=online&sort=-disk_used_ratio",
    ),
    ("q: part of a name", "q=web-{}"),
    ("q: inside a part of a name", "q=eb-{}"),
    ("q: beginning of an address", "q=10.{}."),
    ("q: a word of every host", "q=linux"),
    (
        "q: a word of every host, by disk",
        "q=linux&sort=-disk_used_ratio",
    ),
    ("q: a kernel", "q=6.1.0-{}"),
    ("q: a mount point", "q=/srv/data{}"),
    ("q: three words", "q=prod+epyc+web"),
    ("q: nothing like it", "q=nonesuch{}"),
];

/// What is below a host.
const BELOW: &[(&str, &str)] = &[
    ("one host", ""),
    ("its heartbeats", "/heartbeats?limit=50"),
    ("its facts", "/facts"),
    ("its events", "/events?limit=50"),
    ("its gaps", "/gaps"),
    ("its commands", "/commands"),
    ("its conflicts", "/conflicts"),
];

/// Every question. Ids and cursors are asked for.
pub async fn all(client: &mut Client) -> anyhow::Result<Vec<Question>> {
    let mut questions: Vec<_> = LISTS
        .iter()
        .map(|(name, query)| {
            let forms = if query.contains("{}") { 10 } else { 1 };
            let paths = (0..forms)
                .map(|n| format!("/api/v1/hosts?{}", query.replace("{}", &n.to_string())));
            Question {
                name,
                goal: Some(LIST),
                paths: paths.collect(),
            }
        })
        .collect();
    for (name, sort) in [
        ("a page half-way, by name", "name"),
        ("a page half-way, by CPU", "-cpu_ratio"),
        ("a page half-way, by status", "status"),
    ] {
        questions.push(Question {
            name,
            goal: Some(LIST),
            paths: vec![half_way(client, sort).await?],
        });
    }
    let first = client
        .document("/api/v1/hosts?limit=100&fields=id&liveness=online&sort=cpu_ratio")
        .await?;
    let hosts = first["items"].as_array().into_iter().flatten();
    let ids: Vec<_> = hosts.filter_map(|host| host["id"].as_str()).collect();
    anyhow::ensure!(!ids.is_empty(), "no host is online");
    for (name, below) in BELOW {
        questions.push(Question {
            name,
            goal: Some(ONE),
            paths: ids
                .iter()
                .map(|id| format!("/api/v1/hosts/{id}{below}"))
                .collect(),
        });
    }
    Ok(questions)
}

async fn half_way(client: &mut Client, sort: &str) -> anyhow::Result<String> {
    let base = format!("/api/v1/hosts?limit=500&fields=id&sort={sort}");
    let (mut path, mut seen) = (base.clone(), 0);
    loop {
        let page = client.document(&path).await?;
        seen += 500;
        let cursor = page["next_cursor"].as_str().unwrap_or_default();
        path = format!("{base}&cursor={cursor}");
        if cursor.is_empty() || seen * 2 >= page["total"].as_i64().unwrap_or_default() {
            anyhow::ensure!(!cursor.is_empty(), "a fleet of one page has no half-way");
            return Ok(path.replace("limit=500&fields=id", "limit=50"));
        }
    }
}
