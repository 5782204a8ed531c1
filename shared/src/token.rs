//! The enrollment token `ID.SECRET.PIN`.
//!
//! `ID` finds its row, `SECRET` proves that the bearer was given it (only its SHA-256 is stored),
//! `PIN` is the SHA-256 of the root certificate's `SubjectPublicKeyInfo` (as in RFC 7469, section 2.4),
//! by which the agent knows the collector at first contact. All three are base64url without padding.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use thiserror::Error;

const ID_BYTES: usize = 9;
const SECRET_BYTES: usize = 32;
const PIN_BYTES: usize = 32;

/// An enrollment token. Its text form is a secret; `Debug` shows the id alone.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrollToken {
    id: [u8; ID_BYTES],
    secret: [u8; SECRET_BYTES],
    pin: [u8; PIN_BYTES],
}

/// Why a text is no enrollment token.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("an enrollment token has three parts, ID.SECRET.PIN; this has {0}")]
    Parts(usize),
    #[error("the {0} of the enrollment token is damaged; was it copied whole?")]
    Part(&'static str),
}

impl EnrollToken {
    /// A token from random bytes and the pin of the root it is for.
    pub fn new(id: [u8; ID_BYTES], secret: [u8; SECRET_BYTES], pin: [u8; PIN_BYTES]) -> Self {
        Self { id, secret, pin }
    }

    /// The public part that names the token in lists and logs.
    pub fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.id)
    }

    /// What is stored of the secret: its SHA-256. (The secret has 256 random bits, so no slow hash.)
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(self.secret).into()
    }

    /// The SHA-256 of the `SubjectPublicKeyInfo` of the root that the collector must show.
    pub fn pin(&self) -> &[u8; PIN_BYTES] {
        &self.pin
    }

    /// The whole token, to be shown once or sent.
    pub fn reveal(&self) -> String {
        let [id, secret, pin] =
            [&self.id[..], &self.secret, &self.pin].map(|part| URL_SAFE_NO_PAD.encode(part));
        format!("{id}.{secret}.{pin}")
    }
}

impl FromStr for EnrollToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [id, secret, pin] = parts[..] else {
            return Err(TokenError::Parts(parts.len()));
        };
        Ok(Self {
            id: part(id, "id")?,
            secret: part(secret, "secret")?,
            pin: part(pin, "pin")?,
        })
    }
}

fn part<const N: usize>(text: &str, name: &'static str) -> Result<[u8; N], TokenError> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| TokenError::Part(name))?;
    bytes.try_into().map_err(|_| TokenError::Part(name))
}

impl fmt::Debug for EnrollToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrollToken({}.***)", self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_form_and_hides_its_secret() {
        let token = EnrollToken::new([1; 9], [2; 32], [3; 32]);
        let text = token.reveal();
        assert_eq!(
            format!("{text}\n").parse::<EnrollToken>().expect("valid"),
            token
        );
        let secret = text.split('.').nth(1).expect("three parts");
        assert!(!format!("{token:?}").contains(secret));
    }

    #[test]
    fn a_damaged_token_names_the_damaged_part() {
        let text = EnrollToken::new([1; 9], [2; 32], [3; 32]).reveal();
        assert_eq!("a.b".parse::<EnrollToken>(), Err(TokenError::Parts(2)));
        let cut = &text[..text.len() - 4];
        assert_eq!(cut.parse::<EnrollToken>(), Err(TokenError::Part("pin")));
    }
}
