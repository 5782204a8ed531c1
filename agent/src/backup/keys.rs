//! The volumes' keys on this host: made here, kept where root alone reads, and wrapped by age for who may recover them.
//!
//! A stored wrapping is never replaced, so other recipients mean another key: the former stays in its folder, for what was sealed
//! with it. The key in use is the one whose wrapping names the recipients of the configuration.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::{DecryptError, EncryptError, IdentityFile, NoCallbacks, ssh, x25519};
use infratrack_shared::backup::{KeyDocument, KeyId, VolumeKey};
use infratrack_shared::codec::{DecodeError, EncodeError};
use infratrack_shared::ids::VolumeId;
use infratrack_shared::wire::backup::WrappedKey;
use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use thiserror::Error;
use zeroize::Zeroizing;

use super::disk;

/// A key's file, or an identity's.
const MAX_BYTES: u64 = 256 * 1024;
const ENDING: &str = "key";

/// Somebody who can recover keys: a public key as age takes it, without its comment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Recipient(String);

/// It is no public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("is no public key that starts with age1, ssh-ed25519 or ssh-rsa")]
pub struct NoRecipient;

impl Recipient {
    fn of_age(&self) -> Result<Box<dyn age::Recipient>, NoRecipient> {
        if let Ok(recipient) = self.0.parse::<x25519::Recipient>() {
            return Ok(Box::new(recipient));
        }
        let recipient: ssh::Recipient = self.0.parse().map_err(|_| NoRecipient)?;
        Ok(Box::new(recipient))
    }
}

impl FromStr for Recipient {
    type Err = NoRecipient;

    fn from_str(text: &str) -> Result<Self, NoRecipient> {
        let words: Vec<_> = text.split_ascii_whitespace().take(2).collect();
        let recipient = Self(words.join(" "));
        recipient.of_age()?;
        Ok(recipient)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    #[error("cannot {doing} {}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} is damaged", path.display())]
    Damaged {
        path: PathBuf,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("it is the key of the volume {0}")]
    AnotherVolume(VolumeId),
    #[error("the system has no random numbers")]
    Random(#[source] rand::rngs::SysError),
    #[error(transparent)]
    Recipient(#[from] NoRecipient),
    #[error("cannot wrap the key")]
    Wrap(#[source] Box<EncryptError>),
    #[error("cannot write the wrapped key")]
    Write(#[source] io::Error),
    #[error("cannot encode it")]
    Encode(#[from] EncodeError),
    #[error("none of the identities opens it")]
    Unwrap(#[source] Box<DecryptError>),
    #[error("what was wrapped is no key")]
    Document(#[from] DecodeError),
}

/// A volume's key with its wrapping.
#[derive(Clone, Debug)]
pub struct Held {
    pub key: VolumeKey,
    pub wrapped: WrappedKey,
}

impl Held {
    /// Whether these, in whatever order, are who can recover it.
    pub fn is_for(&self, recipients: &[Recipient]) -> bool {
        let mut wanted: Vec<_> = recipients.iter().map(ToString::to_string).collect();
        let mut names = self.wrapped.recipients.clone();
        wanted.sort();
        names.sort();
        names == wanted
    }
}

/// A key's file.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(with = "serde_bytes")]
    document: Vec<u8>,
    wrapped: WrappedKey,
}

impl Drop for Stored {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.document);
    }
}

/// The keys of one volume.
#[derive(Clone, Debug)]
pub struct Keys {
    dir: PathBuf,
    volume: VolumeId,
}

impl Keys {
    /// Below the backups' state directory.
    pub fn of(state_dir: &Path, volume: VolumeId) -> Self {
        let dir = state_dir.join("keys").join(volume.to_string());
        Self { dir, volume }
    }

    /// Those of every volume that has some on this host.
    pub fn of_all(state_dir: &Path) -> Result<Vec<Self>, KeyError> {
        let dir = state_dir.join("keys");
        let failed = |source| KeyError::File {
            doing: "list",
            path: dir.clone(),
            source,
        };
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            volumes.extend(name.to_str().and_then(|name| name.parse::<VolumeId>().ok()));
        }
        volumes.sort();
        let of = |volume: &VolumeId| Self::of(state_dir, *volume);
        Ok(volumes.iter().map(of).collect())
    }

    /// Whose they are.
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The key for these recipients; it is made where there is none. On the disk before this returns.
    pub fn for_recipients(&self, recipients: &[Recipient]) -> Result<Held, KeyError> {
        let mut known = self.all()?.into_iter();
        match known.find(|held| held.is_for(recipients)) {
            Some(held) => Ok(held),
            None => self.make(recipients),
        }
    }

    /// All that there are, by their ids.
    pub fn all(&self) -> Result<Vec<Held>, KeyError> {
        let failed = |source| failed("list", &self.dir, source);
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|ending| ending == ENDING) {
                paths.push(path);
            }
        }
        paths.sort();
        paths.iter().map(|path| self.read(path)).collect()
    }

    /// One of them, wrapped for somebody else too: as text, which nobody keeps but who asked.
    pub fn wrap_for(&self, held: &Held, recipient: &Recipient) -> Result<String, KeyError> {
        let document = held.key.to_document(self.volume).encode()?;
        let wrapped = wrap(&document, std::slice::from_ref(recipient))?;
        let mut text = Vec::new();
        let armored = ArmoredWriter::wrap_output(&mut text, Format::AsciiArmor);
        let mut armored = armored.map_err(KeyError::Write)?;
        armored.write_all(&wrapped).map_err(KeyError::Write)?;
        armored.finish().map_err(KeyError::Write)?;
        String::from_utf8(text).map_err(|error| KeyError::Write(io::Error::other(error)))
    }

    /// The key of this id, if this host has it.
    pub fn find(&self, id: KeyId) -> Result<Option<VolumeKey>, KeyError> {
        let path = self.path(id);
        if !path.exists() {
            return Ok(None);
        }
        self.read(&path).map(|held| Some(held.key))
    }

    fn make(&self, recipients: &[Recipient]) -> Result<Held, KeyError> {
        let mut names: Vec<_> = recipients.iter().map(ToString::to_string).collect();
        names.sort();
        let mut secret = Zeroizing::new([0; 32]);
        SysRng
            .try_fill_bytes(&mut *secret)
            .map_err(KeyError::Random)?;
        let key = VolumeKey::new(*secret);
        let document = key.to_document(self.volume).encode()?;
        let wrapped = WrappedKey {
            id: key.id(),
            age: ByteBuf::from(wrap(&document, recipients)?),
            recipients: names,
        };
        let stored = Stored {
            document: document.to_vec(),
            wrapped: wrapped.clone(),
        };
        let bytes = Zeroizing::new(infratrack_shared::codec::encode(&stored)?);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.dir)
            .map_err(|source| failed("make", &self.dir, source))?;
        let path = self.path(key.id());
        disk::write(&path, 0o600, &bytes).map_err(|source| failed("write", &path, source))?;
        Ok(Held { key, wrapped })
    }

    fn read(&self, path: &Path) -> Result<Held, KeyError> {
        let bytes = File::open(path).and_then(|file| {
            let mut bytes = Zeroizing::new(Vec::new());
            file.take(MAX_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let bytes = bytes.map_err(|source| failed("read", path, source))?;
        let damaged = |source: DecodeError| KeyError::Damaged {
            path: path.to_owned(),
            source: source.into(),
        };
        let limits = infratrack_shared::codec::Limits::bytes(bytes.len());
        let stored: Stored = infratrack_shared::codec::decode(&bytes, &limits).map_err(damaged)?;
        let document = KeyDocument::decode(&stored.document).map_err(damaged)?;
        if document.volume_id != self.volume {
            return Err(KeyError::AnotherVolume(document.volume_id));
        }
        let (key, wrapped) = (document.key(), stored.wrapped.clone());
        Ok(Held { key, wrapped })
    }

    fn path(&self, id: KeyId) -> PathBuf {
        self.dir.join(format!("{id}.{ENDING}"))
    }
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> KeyError {
    KeyError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

fn wrap(document: &[u8], recipients: &[Recipient]) -> Result<Vec<u8>, KeyError> {
    let recipients = recipients.iter().map(Recipient::of_age);
    let recipients: Vec<_> = recipients.collect::<Result<_, _>>()?;
    let encryptor = age::Encryptor::with_recipients(recipients.iter().map(|one| &**one));
    let encryptor = encryptor.map_err(|error| KeyError::Wrap(error.into()))?;
    let mut wrapped = Vec::new();
    let mut writer = encryptor
        .wrap_output(&mut wrapped)
        .map_err(KeyError::Write)?;
    writer.write_all(document).map_err(KeyError::Write)?;
    writer.finish().map_err(KeyError::Write)?;
    Ok(wrapped)
}

/// Who may recover: the secret side of recipients.
pub struct Recovery(Vec<Box<dyn age::Identity>>);

impl Recovery {
    /// From a file with age identities, or an ssh key without a passphrase.
    pub fn of_file(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File {
            doing: "read identities from",
            path: path.to_owned(),
            source,
        };
        let mut text = Zeroizing::new(String::new());
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
            .map_err(failed)?;
        if text.trim_start().starts_with("-----BEGIN") {
            let key = ssh::Identity::from_buffer(BufReader::new(text.as_bytes()), None);
            return match key.map_err(failed)? {
                ssh::Identity::Unencrypted(key) => {
                    Ok(Self(vec![Box::new(ssh::Identity::from(key))]))
                }
                ssh::Identity::Encrypted(_) => Err(failed(io::Error::other(
                    "the ssh key has a passphrase; take it off a copy with ssh-keygen -p",
                ))),
                ssh::Identity::Unsupported(_) => Err(failed(io::Error::other(
                    "this kind of ssh key is not known",
                ))),
            };
        }
        let file = IdentityFile::<NoCallbacks>::from_buffer(text.as_bytes()).map_err(failed)?;
        let identities = file
            .into_identities()
            .map_err(|error| KeyError::Unwrap(error.into()))?;
        Ok(Self(
            identities
                .into_iter()
                .map(|one| one as Box<dyn age::Identity>)
                .collect(),
        ))
    }

    /// The key in a wrapping, as text or not, which has to be this volume's.
    pub fn unwrap(&self, volume: VolumeId, wrapped: &[u8]) -> Result<VolumeKey, KeyError> {
        let failed = |error: DecryptError| KeyError::Unwrap(error.into());
        let wrapped = ArmoredReader::new(wrapped);
        let decryptor = age::Decryptor::new_buffered(wrapped).map_err(failed)?;
        let identities = self.0.iter().map(|one| &**one);
        let reader = decryptor.decrypt(identities).map_err(failed)?;
        let mut document = Zeroizing::new(Vec::new());
        reader
            .take(MAX_BYTES)
            .read_to_end(&mut document)
            .map_err(|error| failed(DecryptError::Io(error)))?;
        let document = KeyDocument::decode(&document)?;
        if document.volume_id == volume {
            Ok(document.key())
        } else {
            Err(KeyError::AnotherVolume(document.volume_id))
        }
    }
}

impl fmt::Debug for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recovery({} identities)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use age::secrecy::ExposeSecret;

    use super::*;

    struct Vault {
        dir: tempfile::TempDir,
        volume: VolumeId,
        identities: Vec<x25519::Identity>,
    }

    impl Vault {
        fn new() -> Self {
            Self {
                dir: tempfile::tempdir().unwrap(),
                volume: VolumeId::random(),
                identities: (0..3).map(|_| x25519::Identity::generate()).collect(),
            }
        }

        fn keys(&self) -> Keys {
            Keys::of(self.dir.path(), self.volume)
        }

        fn recipients(&self, which: &[usize]) -> Vec<Recipient> {
            let public = |at: &usize| self.identities[*at].to_public().to_string();
            which.iter().map(|at| public(at).parse().unwrap()).collect()
        }

        fn recovery(&self, which: usize) -> Recovery {
            let path = self.dir.path().join("identity");
            let secret = self.identities[which].to_string();
            fs::write(&path, format!("# ours\n{}\n", secret.expose_secret())).unwrap();
            Recovery::of_file(&path).unwrap()
        }
    }

    #[test]
    fn a_key_opens_with_either_identity_and_with_no_other() {
        let vault = Vault::new();
        let held = vault
            .keys()
            .for_recipients(&vault.recipients(&[0, 1]))
            .unwrap();
        for which in [0, 1] {
            let recovery = vault.recovery(which);
            let key = recovery.unwrap(vault.volume, &held.wrapped.age).unwrap();
            assert_eq!(key.chunk_id(b"a"), held.key.chunk_id(b"a"));
            let other = recovery.unwrap(VolumeId::random(), &held.wrapped.age);
            assert!(matches!(other, Err(KeyError::AnotherVolume(_))));
        }
        let stranger = vault.recovery(2).unwrap(vault.volume, &held.wrapped.age);
        assert!(matches!(stranger, Err(KeyError::Unwrap(_))));
    }

    #[test]
    fn a_key_is_wrapped_for_one_more_who_opens_it_and_no_recipient_does() {
        let vault = Vault::new();
        let keys = vault.keys();
        let held = keys.for_recipients(&vault.recipients(&[0, 1])).unwrap();
        let [other] = <[Recipient; 1]>::try_from(vault.recipients(&[2])).unwrap();
        let text = keys.wrap_for(&held, &other).unwrap();
        assert!(text.starts_with("-----BEGIN AGE"), "{text}");
        let key = vault.recovery(2).unwrap(vault.volume, text.as_bytes());
        assert_eq!(key.unwrap().chunk_id(b"a"), held.key.chunk_id(b"a"));
        let former = vault.recovery(0).unwrap(vault.volume, text.as_bytes());
        assert!(matches!(former, Err(KeyError::Unwrap(_))));
        assert_eq!(keys.all().unwrap().len(), 1, "nothing is kept of it");
    }

    #[test]
    fn a_key_stays_until_the_recipients_change_and_the_former_is_kept() {
        let vault = Vault::new();
        let keys = vault.keys();
        let first = keys.for_recipients(&vault.recipients(&[0, 1])).unwrap();
        let again = keys.for_recipients(&vault.recipients(&[1, 0])).unwrap();
        assert_eq!(again.wrapped, first.wrapped);
        let other = keys.for_recipients(&vault.recipients(&[1, 2])).unwrap();
        assert_ne!(other.wrapped.id, first.wrapped.id);
        let back = keys.for_recipients(&vault.recipients(&[0, 1])).unwrap();
        assert_eq!(back.wrapped, first.wrapped);
        let found = keys.find(first.key.id()).unwrap().unwrap();
        assert_eq!(found.chunk_id(b"a"), first.key.chunk_id(b"a"));
    }

    #[test]
    fn root_alone_reads_the_keys_and_a_damaged_one_is_not_passed_over() {
        let vault = Vault::new();
        let recipients = vault.recipients(&[0, 1]);
        let held = vault.keys().for_recipients(&recipients).unwrap();
        let folder = vault.dir.path().join("keys").join(vault.volume.to_string());
        let path = folder.join(format!("{}.key", held.wrapped.id));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = vault.keys().for_recipients(&recipients).unwrap_err();
        assert!(matches!(error, KeyError::Damaged { .. }), "{error}");
    }
}
