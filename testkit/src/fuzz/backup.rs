//! What must hold for any bytes that lie in a bucket, or that an agent sends to be put there.

use infratrack_shared::backup::{
    Content, Head, KeyId, Manifest, PackBuilder, Table, TreeReader, VolumeKey,
};
use infratrack_shared::codec;

/// The key of the recorded objects.
fn key() -> VolumeKey {
    VolumeKey::new(std::array::from_fn(|at| {
        u8::try_from(at).expect("32 are few")
    }))
}

/// A pack that is taken is the one that its own table makes again; its ends alone say the same.
pub fn backup_pack(bytes: &[u8]) {
    let Ok(table) = Table::of_pack(bytes) else {
        return;
    };
    let last = bytes.last_chunk().expect("a pack has a footer");
    let needed = Table::tail_bytes(last).expect("the table was read");
    let (head, tail) = (&bytes[..Table::HEAD_BYTES], &bytes[bytes.len() - needed..]);
    let by_ends = Table::of_ends(head, tail, bytes.len() as u64);
    assert_eq!(by_ends.as_ref(), Ok(&table));
    let (volume_id, key_id) = (table.volume_id, table.key_id);
    let mut builder = PackBuilder::new(volume_id, KeyId::new(*key_id.as_bytes()), table.kind);
    for entry in &table.entries {
        let sealed = &bytes[entry.bytes()];
        builder.take_over(entry, sealed).expect("it was in a pack");
        if let Ok(plain) = entry.open(&key(), volume_id, sealed) {
            assert_eq!(key().chunk_id(&plain), entry.id);
        }
    }
    let (_, again) = builder.finish();
    let again = Table::of_pack(&again).expect("what is built can be read");
    assert_eq!(again, table);
}

/// A snapshot's head is read as it was written; only what is whole opens.
pub fn backup_snapshot(bytes: &[u8]) {
    let Ok(head) = Head::of_snapshot(bytes) else {
        return;
    };
    let encoded = codec::encode(&head).expect("a head can be encoded");
    let limits = codec::Limits::default();
    if let Ok(again) = codec::decode::<Head>(&encoded, &limits) {
        assert_eq!(again, head);
    }
    let origins = head.refs.origins();
    let chunks: u64 = origins
        .flat_map(|(_, ranges)| ranges)
        .map(|(first, last)| u64::from(*last) - u64::from(*first) + 1)
        .sum();
    assert_eq!(chunks, head.refs.len());
    if let Ok((opened, manifest)) = Manifest::open(bytes, &key()) {
        assert_eq!(opened, head);
        of_content(&manifest.root);
    }
}

/// The same entries come out, and the same error, in whatever pieces a tree comes. The first byte says of how many bytes.
pub fn backup_tree(bytes: &[u8]) {
    let Some((piece, bytes)) = bytes.split_first() else {
        return;
    };
    let whole = read(bytes.chunks(bytes.len().max(1)));
    let pieces = read(bytes.chunks(usize::from(*piece).max(1)));
    assert_eq!(whole, pieces, "pieces of {piece}");
    assert!(whole.0.is_sorted(), "{whole:?}");
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Option<String>) {
    let (mut reader, mut names) = (TreeReader::default(), Vec::new());
    for piece in pieces {
        reader.feed(piece);
        loop {
            match reader.next_node() {
                Ok(Some(node)) => {
                    node.content.iter().for_each(of_content);
                    names.push(node.name.into_vec());
                }
                Ok(None) => break,
                Err(error) => return (names, Some(error.to_string())),
            }
        }
    }
    let end = reader.finish().err().map(|error| error.to_string());
    (names, end)
}

/// Content names its chunks in one way.
fn of_content(content: &Content) {
    let is_named = matches!(content.chunks(), Some(Ok(_)));
    assert!(!(is_named && content.lists().is_ok()));
}
