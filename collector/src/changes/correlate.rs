//! Which runs are one change: those that share a key, the surest kind first.

use std::time::Duration;

use super::claims::Claims;

/// Kinds of keys, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// What somebody chose.
    Explicit,
    /// A trace id.
    Trace,
    /// A pipeline's run.
    CiRun,
    /// A commit of a repository.
    Commit,
    PullRequest,
    /// The state that a plan is of.
    State,
}

impl KeyKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Trace => "trace",
            Self::CiRun => "ci_run",
            Self::Commit => "commit",
            Self::PullRequest => "pull_request",
            Self::State => "state",
        }
    }

    /// Runs further apart are not one change: the same commit may be planned every night for years.
    pub fn joins_within(self) -> Duration {
        const HOUR: u64 = 60 * 60;
        Duration::from_secs(match self {
            Self::Explicit | Self::Trace | Self::CiRun => 90 * 24 * HOUR,
            Self::Commit | Self::PullRequest => 30 * 24 * HOUR,
            Self::State => 12 * HOUR,
        })
    }
}

/// A key of a run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: KeyKind,
    pub text: String,
}

/// The keys that a run's claims give, the surest first. What would be the same for all runs there are is none.
pub fn keys(claims: &Claims) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |kind, parts: &[&str]| {
        let text = parts.join("\u{1f}");
        keys.push(Key { kind, text });
    };
    if let Some(id) = &claims.change_id {
        add(KeyKind::Explicit, &[id]);
    }
    if let Some(id) = claims.trace_id() {
        add(KeyKind::Trace, &[&id.to_lowercase()]);
    }
    let repository = claims.repository.as_deref().map(normal).unwrap_or_default();
    if let Some(run) = &claims.run_id {
        let provider = claims.ci_provider.as_deref().unwrap_or_default();
        add(
            KeyKind::CiRun,
            &[&repository, &provider.to_lowercase(), run],
        );
    }
    for commit in [&claims.commit, &claims.merge_commit].into_iter().flatten() {
        if is_commit(commit) {
            add(KeyKind::Commit, &[&repository, &commit.to_lowercase()]);
        }
    }
    if let Some(request) = &claims.pull_request
        && !repository.is_empty()
    {
        add(KeyKind::PullRequest, &[&repository, request]);
    }
    if let Some(workspace) = &claims.workspace {
        let environment = claims.environment.as_deref().unwrap_or_default();
        add(KeyKind::State, &[&repository, environment, workspace]);
    }
    keys
}

/// A full or abbreviated hash; `HEAD` is none.
fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether two names are of one repository.
pub fn is_same_repository(one: &str, other: &str) -> bool {
    normal(one) == normal(other)
}

/// `https://git.example/a/b.git`, `git@git.example:a/b` and `a/b` are the same repository.
fn normal(repository: &str) -> String {
    let text = repository.to_lowercase();
    let text = text.trim_end_matches('/').trim_end_matches(".git");
    let path = match text.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or(rest, |(_, path)| path),
        None => match text.split_once(':') {
            Some((host, path)) if host.contains('@') => path,
            _ => text,
        },
    };
    path.trim_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repository_has_one_name_however_it_is_reached() {
        for text in [
            "https://git.example/Team/infra.git",
            "git@git.example:team/infra.git",
            "ssh://git@git.example/team/infra",
            "team/infra/",
        ] {
            assert_eq!(normal(text), "team/infra", "{text}");
        }
    }

    #[test]
    fn keys_come_surest_first_and_what_says_nothing_is_none() {
        let claims = Claims {
            change_id: Some("CHG-1".to_owned()),
            repository: Some("team/infra".to_owned()),
            commit: Some("ABCDEF0123".to_owned()),
            merge_commit: Some("HEAD".to_owned()),
            pull_request: Some("12".to_owned()),
            run_id: Some("7".to_owned()),
            ci_provider: Some("github".to_owned()),
            workspace: Some("prod".to_owned()),
            ..Claims::default()
        };
        let keys = keys(&claims);
        let kinds: Vec<_> = keys.iter().map(|key| key.kind.name()).collect();
        assert_eq!(
            kinds,
            ["explicit", "ci_run", "commit", "pull_request", "state"]
        );
        assert_eq!(keys[2].text, "team/infra\u{1f}abcdef0123");
        assert!(super::keys(&Claims::default()).is_empty());
        // A number alone is any repository's.
        let alone = Claims {
            pull_request: Some("12".to_owned()),
            ..Claims::default()
        };
        assert!(super::keys(&alone).is_empty());
    }
}
