//! Who may recover: an age identity file opens a volume's key.

use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, ensure};
use infratrack_shared::backup::{KeyDocument, KeyId, VolumeKey};
use infratrack_shared::ids::VolumeId;
use zeroize::Zeroizing;

/// More than a wrapped key has.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// The identities of one file.
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl Identities {
    pub fn of_file(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read(path).map(Zeroizing::new);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is no identity file", path.display()))
    }

    fn parse(text: &[u8]) -> anyhow::Result<Self> {
        let identities = age::IdentityFile::from_buffer(text)?.into_identities()?;
        ensure!(!identities.is_empty(), "there is no identity in it");
        Ok(Self(identities))
    }

    /// Opens a wrapped key, and checks that it is the one of this volume and id.
    pub fn open(&self, wrapped: &[u8], volume: VolumeId, id: KeyId) -> anyhow::Result<VolumeKey> {
        let identities = self
            .0
            .iter()
            .map(|identity| &**identity as &dyn age::Identity);
        let opened = age::Decryptor::new_buffered(BufReader::new(wrapped))?.decrypt(identities)?;
        let mut document = Zeroizing::new(Vec::new());
        opened.take(MAX_KEY_BYTES).read_to_end(&mut document)?;
        let document = KeyDocument::decode(&document)?;
        ensure!(
            document.volume_id == volume,
            "it is of volume {}",
            document.volume_id
        );
        let key = document.key();
        ensure!(key.id() == id, "it is the key {}", key.id());
        Ok(key)
    }
}

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_opens_for_its_recipient_as_its_volumes_and_for_no_other() {
        let own = age::x25519::Identity::generate();
        let other = age::x25519::Identity::generate();
        let (volume, key) = (VolumeId::random(), VolumeKey::new([7; 32]));
        let document = key.to_document(volume).encode().unwrap();
        let wrapped = age::encrypt(&own.to_public(), &document).unwrap();
        let identities = |identity: &age::x25519::Identity| {
            use age::secrecy::ExposeSecret;
            let text = format!("# a comment\n{}\n", identity.to_string().expose_secret());
            Identities::parse(text.as_bytes()).unwrap()
        };
        let opened = identities(&own).open(&wrapped, volume, key.id()).unwrap();
        assert_eq!(opened.id(), key.id());
        assert!(identities(&other).open(&wrapped, volume, key.id()).is_err());
        let another = VolumeId::random();
        assert!(identities(&own).open(&wrapped, another, key.id()).is_err());
        let another = VolumeKey::new([8; 32]).id();
        assert!(identities(&own).open(&wrapped, volume, another).is_err());
        assert!(identities(&own).open(b"damaged", volume, key.id()).is_err());
        assert!(Identities::parse(b"").is_err());
    }
}
