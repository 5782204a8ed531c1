//! What a run's tool or pipeline says of it: from which repository, commit and build, by whom. Claims, all of them: only the
//! token that brought them is known.

use serde::{Deserialize, Serialize};

/// A claim's longest text, in characters.
pub const MAX_CHARS: usize = 512;

/// What was said of a run. Nothing that was not said is guessed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
#[schema(as = RunClaims)]
pub struct Claims {
    /// What somebody chose to tell runs of one change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change_id: Option<String>,
    /// As the forge has it: `owner/name`, or an address without credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Of a pull request's head and its base merged, where that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_commit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_request: Option<String>,
    /// `github`, `gitlab`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ci_provider: Option<String>,
    /// Of the pipeline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Of Terraform, or what tells one state from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// W3C Trace Context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// Why a claim is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} {what}")]
pub struct BadClaim {
    pub name: &'static str,
    pub what: String,
}

impl Claims {
    /// Every claim by its name, as headers (`Infratrack-…`) and records have them.
    pub const NAMES: [&'static str; 13] = [
        "change-id",
        "repository",
        "commit",
        "merge-commit",
        "branch",
        "pull-request",
        "ci-provider",
        "run-id",
        "run-url",
        "actor",
        "environment",
        "workspace",
        "traceparent",
    ];

    fn fields(&mut self) -> [&mut Option<String>; 13] {
        [
            &mut self.change_id,
            &mut self.repository,
            &mut self.commit,
            &mut self.merge_commit,
            &mut self.branch,
            &mut self.pull_request,
            &mut self.ci_provider,
            &mut self.run_id,
            &mut self.run_url,
            &mut self.actor,
            &mut self.environment,
            &mut self.workspace,
            &mut self.traceparent,
        ]
    }

    /// Checks what `find` has under each name. Empty is not said.
    pub fn read<'a>(find: impl Fn(&str) -> Option<&'a str>) -> Result<Self, BadClaim> {
        let mut claims = Self::default();
        for (name, field) in Self::NAMES.into_iter().zip(claims.fields()) {
            let Some(text) = find(name).map(str::trim).filter(|text| !text.is_empty()) else {
                continue;
            };
            let bad = |what: &str| BadClaim {
                name,
                what: what.to_owned(),
            };
            if text.chars().count() > MAX_CHARS {
                return Err(bad(&format!("is longer than {MAX_CHARS} characters")));
            }
            if text.chars().any(char::is_control) {
                return Err(bad("has control characters"));
            }
            *field = Some(text.to_owned());
        }
        claims.repository = claims.repository.map(|text| without_credentials(&text));
        claims.run_url = claims.run_url.map(|text| without_credentials(&text));
        if let Some(url) = &claims.run_url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            return Err(BadClaim {
                name: "run-url",
                what: "is not an http or https address".to_owned(),
            });
        }
        Ok(claims)
    }

    /// The trace of `traceparent` (W3C Trace Context: version, trace id, parent id, flags).
    pub fn trace_id(&self) -> Option<&str> {
        let mut parts = self.traceparent.as_deref()?.split('-');
        let (version, id) = (parts.next()?, parts.next()?);
        let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let is_id = version.len() == 2 && id.len() == 32 && is_hex(version) && is_hex(id);
        (is_id && id.bytes().any(|byte| byte != b'0')).then_some(id)
    }
}

/// An address without what is before `@` in its authority.
fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://{host}{path}"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &'static str)]) -> Result<Claims, BadClaim> {
        Claims::read(|name| {
            let mut found = pairs.iter().filter(|(known, _)| *known == name);
            found.next().map(|(_, value)| *value)
        })
    }

    #[test]
    fn credentials_in_addresses_are_left_out_and_empty_is_not_said() {
        let claims = read(&[
            ("repository", "https://bot:s3cret@git.example/a/b.git"),
            ("run-url", "https://git.example/a/b?x=@y"),
            ("branch", "  "),
        ])
        .unwrap();
        assert_eq!(claims.repository.unwrap(), "https://git.example/a/b.git");
        assert_eq!(claims.run_url.unwrap(), "https://git.example/a/b?x=@y");
        assert_eq!(claims.branch, None);
    }

    #[test]
    fn bad_claims_are_refused_by_name() {
        let error = read(&[("run-url", "javascript:alert(1)")]).unwrap_err();
        assert_eq!(error.to_string(), "run-url is not an http or https address");
        let error = read(&[("actor", "a\u{7}b")]).unwrap_err();
        assert_eq!(error.to_string(), "actor has control characters");
    }

    #[test]
    fn a_trace_is_its_id() {
        let trace = |text: &str| {
            let claims = Claims {
                traceparent: Some(text.to_owned()),
                ..Claims::default()
            };
            claims.trace_id().map(str::to_owned)
        };
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            trace(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(),
            Some(id)
        );
        assert_eq!(
            trace("00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
            None
        );
        assert_eq!(trace("nonsense"), None);
    }
}
