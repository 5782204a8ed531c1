//! The lines of two logs in the order in which they were written.

use std::collections::VecDeque;

use super::Said;
use super::source::Source;
use super::transactions::{FRONT, LOGS, Over, RUNS, Spot, Transactions};

/// What one line says.
#[derive(Clone, Debug)]
pub struct Line {
    pub spot: Spot,
    /// UTC, in milliseconds.
    pub at: i64,
    pub said: Said,
}

/// Lines of one log that have been read, and whether it has more.
#[derive(Debug, Default)]
pub struct Waiting {
    pub lines: VecDeque<Line>,
    pub has_more: bool,
}

/// Takes the lines as far as their order is known: where one log has more than is read, what may be later than it waits.
pub fn merge(waiting: &mut [Waiting; LOGS], now: i64, transactions: &mut Transactions) {
    loop {
        let heads = [FRONT, RUNS].map(|log| {
            let head = waiting[log].lines.front();
            head.map(|line| (line.at, line.said.rank()))
        });
        let log = match heads {
            [Some(front), Some(run)] if front <= run => FRONT,
            [Some((end, _)), Some((begin, _))]
                if end == begin
                    && is(waiting, FRONT, &Said::End)
                    && is(waiting, RUNS, &Said::Run)
                    && transactions.has_one_run() =>
            {
                FRONT
            }
            [Some(_), None] if !waiting[RUNS].has_more => FRONT,
            [Some(_), Some(_)] => RUNS,
            [None, Some(_)] if !waiting[FRONT].has_more => RUNS,
            _ => return,
        };
        if let Some(line) = waiting[log].lines.pop_front() {
            transactions.add(log, line.spot, line.at, now, line.said);
        }
    }
}

fn is(waiting: &[Waiting; LOGS], log: usize, said: &Said) -> bool {
    let head = waiting[log].lines.front();
    head.is_some_and(|line| line.said == *said)
}

/// What whole logs tell, read as if they were of UTC and `now` long after them.
pub fn read_whole(source: Source, texts: [&str; LOGS]) -> Vec<Over> {
    let mut transactions = Transactions::new(source.settings());
    let mut waiting: [Waiting; LOGS] = Default::default();
    for (log, parser) in source.logs().into_iter().enumerate() {
        let Some(mut parser) = parser.map(|log| log.parser) else {
            continue;
        };
        let mut offset = 0;
        for text in texts[log].lines() {
            let mut said = Vec::new();
            parser.line(text, &mut said);
            let spot = Spot { file: 0, offset };
            offset += text.len() as u64 + 1;
            let lines = said.into_iter().map(|(stamp, said)| {
                let at = stamp.as_utc().0;
                Line { spot, at, said }
            });
            waiting[log].lines.extend(lines);
        }
    }
    merge(&mut waiting, i64::MAX, &mut transactions);
    transactions.rest(i64::MAX);
    transactions.take()
}
