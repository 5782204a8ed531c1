//! What the clients were told against what is in the tables.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx::PgPool;
use uuid::Uuid;

use super::{Told, word};

/// What is wrong.
pub type Finding = String;

/// Every acknowledged task is there once, and in the audit log once; every acknowledged change is in the log once;
/// each change of the common task was made on the one before it, so that none was lost; and nothing else happened.
pub async fn verify(pool: &PgPool, told: &Told) -> anyhow::Result<Vec<Finding>> {
    let mut findings = Vec::new();
    tasks(pool, told, &mut findings).await?;
    changes(pool, told, &mut findings).await?;
    tags(told, &mut findings);
    Ok(findings)
}

async fn tasks(pool: &PgPool, told: &Told, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let common: Uuid = told.common.parse()?;
    let sql = "with made as (
                   select after ->> 'id' as id, count(*) as times from audit_log
                   where action = 'task.create' group by after ->> 'id'
               )
               select t.title, t.task_id, coalesce(made.times, 0)
               from tasks t left join made on made.id = t.task_id::text where t.task_id <> $1";
    let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(sql).bind(common).fetch_all(pool).await?;
    let mut stored: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (title, id, in_log) in &rows {
        stored.entry(title).or_default().push(id.to_string());
        if *in_log != 1 {
            findings.push(format!("task {title} is {in_log} times in the audit log"));
        }
    }
    for (title, id) in &told.made {
        if stored.get(title.as_str()) != Some(&vec![id.clone()]) {
            let there = stored.get(title.as_str());
            findings.push(format!(
                "task {title} was answered as {id}, and is {there:?}"
            ));
        }
    }
    for title in &told.answer_lost {
        if !stored.contains_key(title.as_str()) {
            findings.push(format!(
                "task {title} was said to be made, and is not there"
            ));
        }
    }
    let made = told.made.iter().map(|(title, _)| title);
    let asked = made.chain(&told.answer_lost).map(String::as_str);
    let asked: BTreeSet<_> = asked.collect();
    for (title, ids) in &stored {
        if ids.len() > 1 {
            findings.push(format!("task {title} is there {} times", ids.len()));
        }
        if !asked.contains(title) {
            findings.push(format!("task {title} was never asked for"));
        }
    }
    Ok(())
}

async fn changes(pool: &PgPool, told: &Told, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    let sql = "select before -> 'notes', after -> 'notes' from audit_log
               where action = 'task.update' and after ->> 'id' = $1 order by audit_id";
    let rows: Vec<(serde_json::Value, serde_json::Value)> = sqlx::query_as(sql)
        .bind(&told.common)
        .fetch_all(pool)
        .await?;
    let mut times: HashMap<String, usize> = HashMap::new();
    let mut last = serde_json::json!("start after nothing");
    for (before, after) in rows {
        let text = after.as_str().unwrap_or_default();
        let (own, saw) = text.split_once(" after ").unwrap_or_default();
        if before != last || word(&before).as_deref() != Some(saw) {
            findings.push(format!(
                "change {own} was made on {before}, saw {saw}, and came after {last}"
            ));
        }
        *times.entry(own.to_owned()).or_default() += 1;
        last = after;
    }
    let is: String = sqlx::query_scalar("select notes from tasks where task_id = $1::uuid")
        .bind(&told.common)
        .fetch_one(pool)
        .await?;
    if last != is.as_str() {
        findings.push(format!(
            "the common task says {is:?}, its last change {last}"
        ));
    }
    for (own, ..) in &told.changed {
        if times.remove(own) != Some(1) {
            findings.push(format!(
                "change {own} was acknowledged and is not in the log once"
            ));
        }
    }
    for own in &told.doubtful {
        if times.remove(own).is_some_and(|times| times > 1) {
            findings.push(format!("change {own} is in the log more than once"));
        }
    }
    for own in times.keys() {
        findings.push(format!("change {own} was refused, and is in the log"));
    }
    Ok(())
}

/// No two changes were taken with the same tag.
fn tags(told: &Told, findings: &mut Vec<Finding>) {
    let mut by_tag = HashMap::new();
    for (own, before, after) in &told.changed {
        if let Some(other) = by_tag.insert(before, own) {
            findings.push(format!(
                "changes {own} and {other} were both made on {before}"
            ));
        }
        if before == after {
            findings.push(format!("change {own} left the tag as it was"));
        }
    }
}
