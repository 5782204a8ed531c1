//! Names in place of addresses, looked up before a sync begins, where that was asked for.
//!
//! As the machine looks up every name (its hosts file and DNS), so that a name means here what it means to Ansible. A name
//! that does not resolve is a warning.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::documents::Document;

/// Names of a document that are looked up at most.
pub const MOST_NAMES: usize = 1000;
/// A name is given up after this.
pub const EACH: Duration = Duration::from_secs(2);
/// And all that are left after this.
pub const WHOLE: Duration = Duration::from_secs(10);
/// Names looked up at once, by all syncs together.
pub const CONCURRENCY: usize = 16;

/// A lookup cannot be called back: it has its turn until it ends, however long ago it was given up.
static TURNS: Semaphore = Semaphore::const_new(CONCURRENCY);

/// Gives the entries of a document the addresses of their names.
pub async fn resolve(document: &mut Document) {
    resolve_by(document, find).await;
}

async fn find(name: String) -> Vec<IpAddr> {
    let Ok(turn) = TURNS.acquire().await else {
        return Vec::new();
    };
    let asking = tokio::spawn(async move {
        let found = lookup_host((name.as_str(), 0)).await;
        drop(turn);
        let found = found.into_iter().flatten();
        found.map(|address| address.ip().to_canonical()).collect()
    });
    asking.await.unwrap_or_default()
}

async fn resolve_by<F: Future<Output = Vec<IpAddr>>>(
    document: &mut Document,
    find: impl Fn(String) -> F,
) {
    let lookups = std::mem::take(&mut document.lookups);
    let names: BTreeSet<_> = lookups.iter().map(|lookup| lookup.name.clone()).collect();
    let until = Instant::now() + WHOLE;
    let asked = names.into_iter().take(MOST_NAMES).map(|name| {
        let asking = timeout(EACH, find(name.clone()));
        async move { (name, asking.await.unwrap_or_default()) }
    });
    let mut asking = Box::pin(stream::iter(asked).buffer_unordered(CONCURRENCY));
    let mut found = HashMap::new();
    while let Ok(Some((name, addresses))) = timeout_at(until, asking.next()).await {
        found.insert(name, addresses);
    }
    drop(asking);
    for lookup in lookups {
        match found.get(&lookup.name) {
            Some(addresses) if !addresses.is_empty() => {
                document.add_addresses(&lookup, addresses);
            }
            Some(_) => {
                let detail = format!("has the name {}, which does not resolve", lookup.name);
                document.warn(&lookup.place, &detail);
            }
            None => {
                let detail = format!(
                    "has the name {}, which was not looked up: {MOST_NAMES} names and {} s are the most",
                    lookup.name,
                    WHOLE.as_secs()
                );
                document.warn(&lookup.place, &detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::documents::{Kind, read};
    use super::*;

    /// Hosts with these names as their `ansible_host`.
    fn document(names: impl IntoIterator<Item = String>) -> Document {
        let hosts = names.into_iter().enumerate();
        let hosts = hosts.map(|(number, name)| {
            (
                format!("h{number:04}"),
                serde_json::json!({"ansible_host": name}),
            )
        });
        let hosts: serde_json::Map<_, _> = hosts.collect();
        let text = serde_json::json!({"_meta": {"hostvars": hosts}}).to_string();
        read(Kind::Ansible, text.as_bytes()).unwrap()
    }

    fn names(names: &[&str]) -> Document {
        document(names.iter().map(|name| (*name).to_owned()))
    }

    #[tokio::test]
    async fn a_name_becomes_its_addresses_and_one_without_any_a_warning() {
        let mut document = names(&[
            "db.example",
            "gone.example",
            "local.example",
            "db.example",
            "10.0.0.9",
            "{{ host }}",
            "1.2.3",
        ]);
        let asked = AtomicUsize::new(0);
        resolve_by(&mut document, async |name| {
            asked.fetch_add(1, Ordering::Relaxed);
            match name.as_str() {
                "db.example" => ["10.0.0.2", "10.0.0.1", "127.0.0.1", "10.0.0.2"]
                    .map(|address| address.parse().unwrap())
                    .to_vec(),
                "local.example" => vec![IpAddr::from([127, 0, 0, 1])],
                _ => Vec::new(),
            }
        })
        .await;
        assert_eq!(asked.into_inner(), 3, "each once, and only names");
        let of = |index: usize| -> Vec<String> {
            let addresses = document.entries[index].addresses.iter();
            addresses.map(ToString::to_string).collect()
        };
        assert_eq!(of(0), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(of(3), of(0));
        assert_eq!(of(4), ["10.0.0.9"]);
        for nothing in [1, 2, 5, 6] {
            assert!(of(nothing).is_empty());
        }
        assert_eq!(
            document.warnings,
            ["/_meta/hostvars/h0001 has the name gone.example, which does not resolve"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_has_2_seconds_and_all_of_them_10() {
        let begun = Instant::now();
        let mut few = names(&["slow.example", "fast.example"]);
        resolve_by(&mut few, async |name| {
            if name.starts_with("slow") {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            vec![IpAddr::from([10, 0, 0, 1])]
        })
        .await;
        assert_eq!(begun.elapsed(), EACH);
        assert_eq!(few.entries[1].addresses.len(), 1);
        assert_eq!(few.warning_count, 1);

        let begun = Instant::now();
        let running = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        let slow = (0..500).map(|n| format!("slow-{n}.example"));
        let mut many = document(slow);
        resolve_by(&mut many, |_| {
            let (running, most) = (&running, &most);
            async move {
                let now = running.fetch_add(1, Ordering::Relaxed) + 1;
                most.fetch_max(now, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1900)).await;
                running.fetch_sub(1, Ordering::Relaxed);
                Vec::new()
            }
        })
        .await;
        assert_eq!(begun.elapsed(), WHOLE);
        assert_eq!(most.into_inner(), CONCURRENCY);
        assert_eq!(many.warning_count, 500);
    }

    #[tokio::test]
    async fn so_many_names_are_looked_up_and_no_more() {
        let mut document = document((0..MOST_NAMES + 7).map(|n| format!("n{n:05}.example")));
        let asked = AtomicUsize::new(0);
        resolve_by(&mut document, async |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            vec![IpAddr::from([10, 0, 0, 1])]
        })
        .await;
        assert_eq!(asked.into_inner(), MOST_NAMES);
        assert_eq!(document.warning_count, 7);
        assert!(document.warnings[0].contains("was not looked up"));
    }
}
