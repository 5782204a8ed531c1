//! What changes cost: large documents of Terraform in CPU and memory, records of plays, and questions about a year of
//! changes over a fleet. Each of the three has a collector of its own.

pub mod documents;
pub mod lists;
pub mod plan;
pub mod plays;
pub mod post;
pub mod report;
pub mod sample;

use infratrack_collector::clock::Clock;
use infratrack_collector::login::token::{self, NewToken};
use infratrack_collector::roles::Role;
use sqlx::{Connection, PgConnection};

use super::subject::Subject;
use sample::Past;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Resource changes of the plan that is posted.
    pub plan: usize,
    /// Results of the records that are posted.
    pub results: usize,
    pub past: Past,
    /// Requests of each question.
    pub requests: usize,
    pub parts: Parts,
}

/// Which of the three.
#[derive(Clone, Copy, Debug)]
pub struct Parts {
    pub documents: bool,
    pub lists: bool,
    pub plays: bool,
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Results {
    pub documents: Option<documents::Results>,
    pub lists: Option<lists::Results>,
    pub plays: Option<plays::Results>,
}

/// Runs all of it.
pub async fn run(options: Options, say: impl Fn(&str)) -> anyhow::Result<Results> {
    let parts = options.parts;
    let mut results = Results {
        documents: None,
        lists: None,
        plays: None,
    };
    if parts.documents {
        results.documents = Some(documents::run(options.plan, &say).await?);
    }
    if parts.plays {
        results.plays = Some(plays::run(options.results, &say).await?);
    }
    if parts.lists {
        results.lists = Some(lists::run(options.past, options.requests, &say).await?);
    }
    Ok(results)
}

/// One that may do anything.
async fn token(subject: &Subject) -> anyhow::Result<String> {
    let mut connection = PgConnection::connect_with(&subject.own).await?;
    let new = NewToken::of_role("bench", Role::Admin, "bench");
    let (_, secret) = token::create(&mut connection, &new, Clock::system().now()).await?;
    connection.close().await?;
    Ok(secret)
}
