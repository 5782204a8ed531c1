//! The names of a volume's objects, as docs/formats/backup.md has them.

use infratrack_shared::backup::{KeyId, PackHash};
use infratrack_shared::ids::{SnapshotId, VolumeId};

use crate::blob::{BlobError, Key};

/// A wrapped key's.
pub fn key(volume: VolumeId, key: KeyId) -> Result<Key, BlobError> {
    Key::new(format!("backups/{volume}/keys/{key}.age"))
}

/// A pack's.
pub fn pack(volume: VolumeId, hash: PackHash) -> Result<Key, BlobError> {
    let first = hash.as_bytes()[0];
    Key::new(format!("backups/{volume}/packs/{first:02x}/{hash}"))
}

/// A snapshot's.
pub fn snapshot(volume: VolumeId, snapshot: SnapshotId) -> Result<Key, BlobError> {
    Key::new(format!("backups/{volume}/snapshots/{snapshot}"))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn objects_are_named_as_the_format_says() {
        let volume = VolumeId(Uuid::from_u128(1));
        let of_volume = "backups/00000000-0000-0000-0000-000000000001";
        let name = key(volume, KeyId::new([0xab; 16])).unwrap();
        let hex = "ab".repeat(16);
        assert_eq!(name.as_str(), format!("{of_volume}/keys/{hex}.age"));
        let name = pack(volume, PackHash::new([0x0c; 32])).unwrap();
        let hex = "0c".repeat(32);
        assert_eq!(name.as_str(), format!("{of_volume}/packs/0c/{hex}"));
        let name = snapshot(volume, SnapshotId(Uuid::from_u128(2))).unwrap();
        let id = "00000000-0000-0000-0000-000000000002";
        assert_eq!(name.as_str(), format!("{of_volume}/snapshots/{id}"));
    }
}
