//! What clients get, and what ends them.

use std::net::IpAddr;

use super::*;

const NOW: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

fn live(clients: usize, of_one: usize, queue: usize) -> Arc<Live> {
    Arc::new(Live::with_limits(Limits {
        clients,
        of_one,
        queue,
    }))
}

fn watcher(who: &str, hosts: &[Uuid]) -> Watcher {
    Watcher {
        who: who.to_owned(),
        hosts: hosts.to_vec(),
        view: 1,
        credential: Credential {
            headers: HeaderMap::new(),
            address: Address::local(IpAddr::from([127, 0, 0, 1])),
            role: Some(Role::Viewer),
            is_asked_again: true,
        },
    }
}

fn hosts<const N: usize>() -> [Uuid; N] {
    std::array::from_fn(|_| Uuid::new_v4())
}

/// A round of the reader in which those hosts changed.
fn round(live: &Live, changed: &[Uuid]) {
    let wanted = live.wanted();
    let rows = wanted.rows.iter();
    let rows = rows.map(|row| (*row, Bytes::from(row.0.to_string())));
    let rows = rows.collect();
    live.send_rows(&wanted, &changed.iter().copied().collect(), &rows, None);
}

async fn all(mut subscription: Subscription) -> Vec<String> {
    let mut messages = Vec::new();
    while let Some(message) = subscription.next().await {
        messages.push(String::from_utf8(message.to_vec()).unwrap());
    }
    messages
}

#[tokio::test]
async fn who_comes_gets_all_its_hosts_and_then_what_changes_of_them() {
    let live = live(9, 9, 9);
    let [a, b, other] = hosts();
    let first = live.watch(watcher("ada", &[a, b]), NOW).unwrap();
    round(&live, &[]);
    let second = live.watch(watcher("ada", &[b, other]), NOW).unwrap();
    round(&live, &[a]);
    round(&live, &[other]);
    live.end_all();
    let end = "event: end\ndata: again\n\n".to_owned();
    let [a, b, other] = [a, b, other].map(|id| id.to_string());
    assert_eq!(all(first).await, [a.clone(), b.clone(), a, end.clone()]);
    assert_eq!(all(second).await, [b, other.clone(), other, end]);
}

#[tokio::test]
async fn a_client_that_is_slow_is_sent_away_and_told_so_and_the_others_go_on() {
    let live = live(9, 9, 3);
    let [a] = hosts();
    let slow = live.watch(watcher("ada", &[a]), NOW).unwrap();
    let mut quick = live.watch(watcher("bob", &[a]), NOW).unwrap();
    for _ in 0..5 {
        round(&live, &[a]);
        assert_eq!(quick.next().await.unwrap(), a.to_string());
    }
    assert_eq!(live.count(), 1);
    let messages = all(slow).await;
    assert_eq!(messages.len(), 4, "{messages:?}");
    assert_eq!(messages.last().unwrap(), "event: end\ndata: resync\n\n");
}

#[test]
fn clients_are_limited_in_all_and_of_each_and_one_that_leaves_makes_room() {
    let live = live(3, 2, 1);
    let first = live.watch(watcher("ada", &[]), NOW).unwrap();
    let _second = live.watch(watcher("ada", &[]), NOW).unwrap();
    assert_eq!(live.watch(watcher("ada", &[]), NOW).unwrap_err(), Full);
    let _third = live.watch(watcher("bob", &[]), NOW).unwrap();
    assert_eq!(live.watch(watcher("cleo", &[]), NOW).unwrap_err(), Full);
    drop(first);
    assert!(live.watch(watcher("cleo", &[]), NOW).is_ok());
}

#[test]
fn a_client_watches_so_many_hosts_and_no_more() {
    let live = live(3, 3, 1);
    let hosts = hosts::<150>();
    let _first = live.watch(watcher("ada", &hosts), NOW).unwrap();
    assert_eq!(live.wanted().hosts.len(), MOST_HOSTS);
}

#[tokio::test]
async fn clients_are_asked_again_once_a_minute_and_come_anew_after_ten() {
    let live = live(9, 9, 9);
    let client = live.watch(watcher("ada", &[]), NOW).unwrap();
    let mut proxied = watcher("proxy", &[]);
    proxied.credential.is_asked_again = false;
    let _proxied = live.watch(proxied, NOW).unwrap();
    assert!(live.due(NOW + CHECK - Duration::SECOND).is_empty());
    let due = live.due(NOW + CHECK);
    assert_eq!(due.len(), 1);
    live.is_checked(due[0].0, NOW + CHECK);
    assert!(live.due(NOW + CHECK).is_empty());
    // The database is away.
    live.is_unchecked(due[0].0, NOW + CHECK * 2);
    assert_eq!(live.count(), 2);
    live.is_unchecked(due[0].0, NOW + CHECK + UNCHECKED);
    assert_eq!(live.count(), 1);
    assert!(live.due(NOW + LIFETIME).is_empty());
    assert_eq!(live.count(), 0);
    assert_eq!(all(client).await, ["event: end\ndata: again\n\n"]);
}

#[test]
fn there_is_one_reader_while_somebody_watches() {
    let live = live(9, 9, 9);
    assert!(!live.begin_reading());
    let client = live.watch(watcher("ada", &[]), NOW).unwrap();
    assert!(live.begin_reading());
    assert!(!live.begin_reading());
    assert!(!live.end_reading());
    drop(client);
    assert!(live.end_reading());
    let _client = live.watch(watcher("ada", &[]), NOW).unwrap();
    assert!(live.begin_reading());
}
