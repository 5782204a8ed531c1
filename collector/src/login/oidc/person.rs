//! Who a provider says somebody is, in our terms: what they are called, and what they may do.

use serde_json::{Map, Value};

use crate::config::Oidc;
use crate::login::user;
use crate::roles::Role;

/// The claims of somebody, checked.
pub(super) type Claims = Map<String, Value>;

/// The longest name.
const NAME_CHARS: usize = 64;
/// Groups that a message names.
const NAMED: usize = 10;

/// What they are called: the configured claim, else `email`, else `sub`, whichever first has a name in it.
pub(super) fn name(claims: &Claims, config: &Oidc) -> Option<String> {
    let mut texts = [config.name_claim.as_str(), "email", "sub"]
        .into_iter()
        .filter_map(|claim| claims.get(claim)?.as_str());
    texts.find_map(plain)
}

/// The text as a user's name: lower case, with `-` for what no name has.
fn plain(text: &str) -> Option<String> {
    let fits = |char: char| char.is_ascii_alphanumeric() || "._@+-".contains(char);
    let name: String = text
        .trim()
        .chars()
        .map(|char| if fits(char) { char } else { '-' })
        .skip_while(|char| !char.is_ascii_alphanumeric())
        .take(NAME_CHARS)
        .collect();
    user::name(name.trim_end_matches('-')).ok()
}

/// The name to take where `name` is another user's, the `n`th try.
pub(super) fn numbered(name: &str, n: u32) -> String {
    let suffix = format!("-{n}");
    let kept: String = name.chars().take(NAME_CHARS - suffix.len()).collect();
    kept + &suffix
}

/// The groups they are in.
pub(super) fn groups<'a>(claims: &'a Claims, config: &Oidc) -> Vec<&'a str> {
    match claims.get(&config.groups_claim) {
        Some(Value::String(group)) => vec![group],
        Some(Value::Array(groups)) => groups.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The highest role that their groups have, else the default; or the words that say which groups would do.
pub(super) fn role(claims: &Claims, config: &Oidc) -> Result<Role, String> {
    let groups = groups(claims, config);
    let of_groups = groups
        .iter()
        .filter_map(|group| Role::parse(config.roles.get(*group)?))
        .max();
    of_groups
        .or_else(|| Role::parse(&config.default_role))
        .ok_or_else(|| wanted(config))
}

fn wanted(config: &Oidc) -> String {
    let mut names: Vec<&str> = config.roles.keys().map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    names.truncate(NAMED);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    format!("{}{more}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        value.as_object().cloned().unwrap()
    }

    fn config(default_role: &str) -> Oidc {
        let roles = [("staff", "read"), ("sre", "admin"), ("ops", "member")];
        Oidc {
            roles: roles
                .map(|(group, role)| (group.to_owned(), role.to_owned()))
                .into(),
            default_role: default_role.to_owned(),
            ..Oidc::default()
        }
    }

    #[test]
    fn a_name_is_the_claim_then_the_address_then_the_subject() {
        let named = |value| name(&claims(&value), &Oidc::default()).unwrap();
        let all = json!({ "preferred_username": "Ada", "email": "a@b.example", "sub": "1" });
        assert_eq!(named(all), "ada");
        assert_eq!(
            named(json!({ "email": "A@b.example", "sub": "1" })),
            "a@b.example"
        );
        assert_eq!(
            named(json!({ "preferred_username": 7, "sub": "auth0|x y" })),
            "auth0-x-y"
        );
        assert_eq!(
            named(json!({ "preferred_username": "ädä/é", "sub": "1" })),
            "d"
        );
        let long = named(json!({ "sub": "x".repeat(300) }));
        assert_eq!(long.len(), 64);
        assert_eq!(numbered(&long, 12).len(), 64);
        assert!(user::name(&numbered(&long, 12)).is_ok());
        assert!(name(&claims(&json!({ "sub": "///" })), &Oidc::default()).is_none());
    }

    #[test]
    fn of_several_groups_the_highest_role_wins_and_none_is_no_role() {
        let role = |value, default| role(&claims(&value), &config(default));
        assert_eq!(
            role(json!({ "groups": ["staff", "sre", "x"] }), ""),
            Ok(Role::Admin)
        );
        assert_eq!(role(json!({ "groups": "ops" }), ""), Ok(Role::Operator));
        assert_eq!(
            role(json!({ "groups": ["staff"] }), "lead"),
            Ok(Role::Viewer)
        );
        assert_eq!(role(json!({ "groups": ["x"] }), "viewer"), Ok(Role::Viewer));
        let none = [
            json!({}),
            json!({ "groups": ["SRE", "sre "] }),
            json!({ "groups": { "sre": 1 } }),
        ];
        for none in none {
            assert_eq!(role(none, ""), Err("ops, sre, staff".to_owned()));
        }
    }
}
