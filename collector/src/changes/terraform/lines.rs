//! Secrets by name in texts of several lines: YAML, properties, scripts. A line whose name says that it is a secret loses
//! what follows; marks and values are looked for elsewhere.

use super::names::is_secret_name;
use super::secrets::REDACTED;

/// What is no secret, whatever its name.
const NO_SECRETS: [&str; 9] = [
    "", REDACTED, "true", "false", "null", "~", "{}", "[]", "\"\"",
];

/// The text without what its lines say is secret; nothing where there is none. Counts what it takes out.
pub(super) fn clean(text: &str, count: &mut u64) -> Option<String> {
    if !text.contains('\n') {
        return None;
    }
    let before = *count;
    let mut kept = Vec::new();
    // What stands further to the right than this belongs to a secret.
    let mut block = None;
    for line in text.split('\n') {
        let bare = line.trim();
        let indent = line.len() - line.trim_start().len();
        if block.is_some_and(|block| bare.is_empty() || indent > block) {
            let is_secret = !bare.is_empty() && bare != REDACTED;
            *count += u64::from(is_secret);
            let begin = line.get(..indent).unwrap_or_default();
            kept.push(if is_secret {
                format!("{begin}{REDACTED}")
            } else {
                line.to_owned()
            });
            continue;
        }
        block = None;
        let Some((begin, value)) = secret(line) else {
            kept.push(line.to_owned());
            continue;
        };
        if is_block(value) {
            block = Some(indent);
        }
        if block.is_some() || NO_SECRETS.contains(&value) || value == "''" {
            kept.push(line.to_owned());
        } else {
            *count += 1;
            kept.push(format!("{begin}{REDACTED}"));
        }
    }
    (*count > before).then(|| kept.join("\n"))
}

/// What stands before a secret of a line, and the secret.
fn secret(line: &str) -> Option<(&str, &str)> {
    let rest = line.trim_start_matches([' ', '\t', '#', ';', '/', '-']);
    let exported = rest.strip_prefix("export");
    let exported = exported.filter(|rest| rest.starts_with([' ', '\t']));
    let rest = exported.map_or(rest, blank);
    let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let end = rest.bytes().position(|byte| !is_part(byte))?;
    let (name, rest) = rest.split_at_checked(end)?;
    let rest = blank(rest.strip_prefix(['"', '\'']).unwrap_or(rest));
    let value = match rest.strip_prefix(':') {
        Some(value) if value.starts_with([' ', '\t']) => value,
        Some(_) => return None,
        None => rest.strip_prefix('=')?,
    };
    let value = blank(value);
    let begin = line.get(..line.len() - value.len())?;
    is_secret_name(name).then_some((begin, value.trim()))
}

fn blank(text: &str) -> &str {
    text.trim_start_matches([' ', '\t'])
}

/// `|`, `>-`, `|2`: the value stands on the next lines.
fn is_block(value: &str) -> bool {
    value.strip_prefix(['|', '>']).is_some_and(|rest| {
        let is_mark = |byte: u8| byte.is_ascii_digit() || b"+-".contains(&byte);
        rest.len() <= 2 && rest.bytes().all(is_mark)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_a_secret_lose_it_and_others_stay() {
        for (text, kept) in [
            (
                "a: b\nadminPassword: x y # z\n",
                "a: b\nadminPassword: [redacted]\n",
            ),
            (
                "export DB_TOKEN=abc\nPORT=1",
                "export DB_TOKEN=[redacted]\nPORT=1",
            ),
            (
                "- \"client-secret\" : \"x\"\n",
                "- \"client-secret\" : [redacted]\n",
            ),
            ("# db.password = x\n", "# db.password = [redacted]\n"),
            (
                "k:\n  privateKey: |-\n    one\n\n    two\n  port: 1\n",
                "k:\n  privateKey: |-\n    [redacted]\n\n    [redacted]\n  port: 1\n",
            ),
        ] {
            let mut count = 0;
            assert_eq!(clean(text, &mut count).as_deref(), Some(kept), "{text}");
            let before = count;
            assert_eq!(clean(kept, &mut count), None, "{kept}");
            assert_eq!(count, before);
        }
        for text in [
            "password: x",
            "secretName: x\ntoken: true\npassword:\n",
            "https://token:x\n",
            "the password: of x\n",
        ] {
            assert_eq!(clean(text, &mut 0), None, "{text}");
        }
    }
}
