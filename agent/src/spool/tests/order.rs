//! Order, cursors, rewinds, forks and losses: the queue's rules, over the store in memory.

use infratrack_shared::time::UnixMillis;
use infratrack_shared::wire::batch::{Class, LostReason};

use super::super::queue::RING;
use super::super::{Budget, Spool, SpoolError};
use super::{
    ALL, NOW, acknowledge, boot, cursor, expected, lost, next, next_part, numbered, said, seqs,
    texts,
};

const MINUTE: i64 = 60_000;

fn later(millis: i64) -> UnixMillis {
    NOW.plus_millis(millis)
}

async fn with_critical(count: u64) -> Spool {
    let spool = Spool::in_memory(NOW);
    let last = spool.append(Class::Critical, numbered(1..=count)).await;
    assert_eq!(last.unwrap(), count);
    spool
}

#[tokio::test]
async fn records_are_sent_in_order_until_they_are_acknowledged() {
    let spool = with_critical(3).await;
    assert_eq!(texts(&next_part(&spool).await), ["1", "2", "3"]);
    acknowledge(&spool, Class::Critical, 2, NOW).await;
    let part = next_part(&spool).await;
    assert_eq!((part.first_seq, texts(&part)), (3, vec!["3".to_owned()]));
    acknowledge(&spool, Class::Critical, 3, NOW).await;
    assert_eq!(next(&spool).await, None);
    assert_eq!(spool.usage().critical_records, 0);
}

#[tokio::test]
async fn a_batch_holds_to_its_budget_but_is_never_empty() {
    let spool = with_critical(5).await;
    let two = Budget { records: 2, ..ALL };
    let part = &spool.next(two, boot()).await.unwrap().unwrap().parts[0];
    assert_eq!(seqs(part), [1, 2]);
    let nothing = Budget { bytes: 1, ..ALL };
    let part = &spool.next(nothing, boot()).await.unwrap().unwrap().parts[0];
    assert_eq!(seqs(part), [1]);
}

#[tokio::test]
async fn a_record_of_another_boot_names_it() {
    let spool = Spool::in_memory(NOW);
    let mut foreign = said("foreign");
    foreign.boot_id = infratrack_shared::ids::BootId::random();
    let records = vec![foreign.clone(), said("own")];
    spool.append(Class::Critical, records).await.unwrap();
    let part = next_part(&spool).await;
    let boots: Vec<_> = part.records.iter().map(|record| record.boot_id).collect();
    assert_eq!(boots, [Some(foreign.boot_id), None]);
}

#[tokio::test]
async fn a_record_over_the_limit_is_refused() {
    let spool = Spool::in_memory(NOW);
    let big = said(&"x".repeat(256 * 1024));
    let appended = spool.append(Class::Critical, vec![big]).await;
    assert!(matches!(appended, Err(SpoolError::TooLarge { .. })));
    let long = said(&"x".repeat(64 * 1024 + 1));
    let appended = spool.append(Class::Critical, vec![long]).await;
    assert!(matches!(appended, Err(SpoolError::Unreadable(_))));
    assert_eq!(next(&spool).await, None);
}

#[tokio::test]
async fn a_full_ring_drops_the_oldest_beats_and_says_which() {
    let spool = Spool::in_memory(NOW);
    for start in (0..RING + 10).step_by(10) {
        let beats = numbered(start + 1..=start + 10);
        spool.append(Class::Beat, beats).await.unwrap();
    }
    let part = next_part(&spool).await;
    assert_eq!(part.lost, [lost(1, 10, LostReason::RingFull)]);
    assert_eq!(seqs(&part), (11..=RING + 10).collect::<Vec<_>>());
    assert_eq!(spool.usage().beat_records, RING);
}

#[tokio::test]
async fn a_collector_that_lost_its_last_commits_gets_them_again() {
    let spool = with_critical(10).await;
    acknowledge(&spool, Class::Critical, 4, NOW).await;
    acknowledge(&spool, Class::Critical, 8, later(MINUTE)).await;
    let back = [expected(spool.stream(), Class::Critical, 3)];
    let rewound = spool.rewind(&back, later(2 * MINUTE)).await.unwrap();
    assert!(rewound.went_back);
    let part = next_part(&spool).await;
    assert_eq!((part.first_seq, part.lost.len()), (3, 0));
    assert_eq!(seqs(&part), (3..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_no_longer_kept_for_a_rewind_is_declared_lost() {
    let spool = with_critical(10).await;
    acknowledge(&spool, Class::Critical, 4, NOW).await;
    acknowledge(&spool, Class::Critical, 8, later(16 * MINUTE)).await;
    let back = [expected(spool.stream(), Class::Critical, 3)];
    spool.rewind(&back, later(16 * MINUTE)).await.unwrap();
    let part = next_part(&spool).await;
    assert_eq!(part.first_seq, 3);
    assert_eq!(part.lost, [lost(3, 4, LostReason::AckedNotKept)]);
    assert_eq!(seqs(&part), (5..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_rewind_window_is_bounded_in_bytes() {
    let spool = Spool::in_memory(NOW);
    let body = "x".repeat(60 * 1024);
    for n in 1..=100 {
        spool
            .append(Class::Critical, vec![said(&body)])
            .await
            .unwrap();
        acknowledge(&spool, Class::Critical, n, later(n.cast_signed() * 1_000)).await;
    }
    let size = spool.usage().size_bytes;
    assert!(size > 3 << 20 && size <= 4 << 20, "{size} bytes are kept");
}

#[tokio::test]
async fn an_expectation_ahead_of_the_cursor_acknowledges() {
    let spool = with_critical(4).await;
    let ahead = [expected(spool.stream(), Class::Critical, 3)];
    let rewound = spool.rewind(&ahead, NOW).await.unwrap();
    assert!(!rewound.went_back && rewound.forked.is_empty());
    assert_eq!(seqs(&next_part(&spool).await), [3, 4]);
}

#[tokio::test]
async fn a_cursor_above_the_highest_number_means_a_forked_stream() {
    let spool = with_critical(4).await;
    let stream = spool.stream();
    let above = [cursor(stream, Class::Critical, 5)];
    let done = spool.acknowledge(&above, NOW).await.unwrap();
    assert_eq!((done.advanced, done.forked), (false, vec![stream]));
    let above = [expected(stream, Class::Critical, 6)];
    assert_eq!(spool.rewind(&above, NOW).await.unwrap().forked, [stream]);
}

#[tokio::test]
async fn a_fork_sends_all_that_is_not_acknowledged_under_a_new_stream() {
    let spool = with_critical(6).await;
    let old = spool.stream();
    spool.append(Class::Beat, numbered([100])).await.unwrap();
    acknowledge(&spool, Class::Critical, 2, NOW).await;
    spool.refuse(old, Class::Critical, 4).await.unwrap();
    let new = spool.fork(old, NOW).await.unwrap().unwrap();
    assert_eq!((spool.stream(), new == old), (new, false));
    let outgoing = next(&spool).await.unwrap();
    assert_eq!(outgoing.stream, new);
    let [critical, beat] = <[_; 2]>::try_from(outgoing.parts).unwrap();
    assert_eq!(texts(&critical), ["3", "5", "6"]);
    assert_eq!(critical.lost, [lost(2, 2, LostReason::Refused)]);
    assert_eq!(
        (seqs(&beat), texts(&beat)),
        (vec![1], vec!["100".to_owned()])
    );
    assert_eq!(
        spool.append(Class::Critical, numbered([7])).await.unwrap(),
        5
    );
    assert_eq!(spool.fork(old, NOW).await.unwrap(), None);
}

#[tokio::test]
async fn a_refused_record_becomes_a_loss() {
    let spool = with_critical(3).await;
    let stream = spool.stream();
    for seq in [2, 2, 9] {
        spool.refuse(stream, Class::Critical, seq).await.unwrap();
    }
    let part = next_part(&spool).await;
    assert_eq!(part.lost, [lost(2, 2, LostReason::Refused)]);
    assert_eq!(seqs(&part), [1, 3]);
    assert_eq!(spool.usage().critical_records, 2);
}

#[tokio::test]
async fn asking_again_answers_the_same() {
    let spool = with_critical(3).await;
    assert_eq!(next(&spool).await, next(&spool).await);
}

#[tokio::test]
async fn a_small_value_is_what_was_put_last() {
    let spool = Spool::in_memory(NOW);
    assert_eq!(spool.get("dpkg").await.unwrap(), None);
    spool.put("dpkg", "1".into()).await.unwrap();
    spool.put("dpkg", "2".into()).await.unwrap();
    assert_eq!(spool.get("dpkg").await.unwrap().unwrap(), "2");
    spool.remove("dpkg").await.unwrap();
    assert_eq!(spool.get("dpkg").await.unwrap(), None);
}
