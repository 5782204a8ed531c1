//! Passwords: argon2id (RFC 9106) with the parameters that OWASP names first (19 MiB, two passes), as PHC strings.

use std::sync::LazyLock;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use thiserror::Error;

/// The least length, in characters; NIST SP 800-63B asks for 15 where a password is the only factor, and 8 at least.
pub const MIN_CHARS: usize = 12;
/// The greatest length, in bytes: hashing takes time by it.
pub const MAX_BYTES: usize = 256;

/// What a password is held against where there is no user: to find that out takes as long as a wrong password.
static NOBODY: LazyLock<Option<String>> =
    LazyLock::new(|| hash(&hex::encode(rand::random::<[u8; 32]>())).ok());

/// Why a password is not taken.
#[derive(Debug, Error)]
pub enum PasswordError {
    #[error("a password has at least {MIN_CHARS} characters")]
    TooShort,
    #[error("a password has at most {MAX_BYTES} bytes")]
    TooLong,
    #[error("a password cannot be hashed: {0}")]
    Hash(argon2::password_hash::Error),
}

/// What is stored of a password.
pub fn hash(password: &str) -> Result<String, PasswordError> {
    if password.chars().count() < MIN_CHARS {
        return Err(PasswordError::TooShort);
    }
    if password.len() > MAX_BYTES {
        return Err(PasswordError::TooLong);
    }
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(PasswordError::Hash)?.to_string())
}

/// Whether it is the password of this hash. Takes a processor for some 20 ms, without a hash too.
pub fn matches(password: &str, hash: Option<&str>) -> bool {
    if password.len() > MAX_BYTES {
        return false;
    }
    let Some(stored) = hash.or(NOBODY.as_deref()) else {
        return false;
    };
    let Ok(parsed) = PasswordHash::new(stored) else {
        return false;
    };
    let verified = Argon2::default().verify_password(password.as_bytes(), &parsed);
    verified.is_ok() && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_its_own_and_no_other() {
        let stored = hash("correct horse battery").unwrap();
        assert!(
            stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{stored}"
        );
        assert!(matches("correct horse battery", Some(&stored)));
        assert!(!matches("correct horse batterz", Some(&stored)));
        assert!(!matches("", Some(&stored)));
        assert!(!matches("correct horse battery", None));
        assert!(!matches("correct horse battery", Some("no hash")));
        assert_ne!(stored, hash("correct horse battery").unwrap());
    }

    #[test]
    fn lengths_are_bounded() {
        assert!(matches!(hash("elevenchars"), Err(PasswordError::TooShort)));
        assert!(hash("zwölfzeichen").is_ok());
        assert!(hash(&"x".repeat(MAX_BYTES)).is_ok());
        let long = "x".repeat(MAX_BYTES + 1);
        assert!(matches!(hash(&long), Err(PasswordError::TooLong)));
    }
}
