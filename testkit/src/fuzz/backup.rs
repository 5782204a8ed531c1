//! What must hold for any bytes that lie in a bucket, or that an agent sends to be put there; and in what it remembers of files.

use infratrack_shared::backup::{
    Content, Head, KeyId, Manifest, PackBuilder, Table, TreeReader, VolumeKey,
};
use infratrack_shared::codec;

use super::super::cache::{Reader, Record};

/// The key of the recorded objects.
fn key() -> VolumeKey {
    VolumeKey::new(std::array::from_fn(|at| {
        u8::try_from(at).expect("32 are few")
    }))
}

/// Records are written as they were read. A walk that has what they name, and more, and less, comes to its end.
pub fn backup_cache(bytes: &[u8]) {
    let (mut rest, mut all, mut reader) = (bytes, Vec::new(), Reader::new(bytes));
    while let Ok(Some(record)) = Record::read(&mut rest) {
        let mut again = Vec::new();
        record.write(&mut again).expect("it was no longer");
        let read = Record::read(&mut again.as_slice());
        assert_eq!(read.expect("it was written").as_ref(), Some(&record));
        all.push(record);
    }
    let mut depth = 0;
    for (number, record) in all.iter().enumerate() {
        // Every third is not there any more.
        let is_gone = number % 3 == 2;
        let walked = match record {
            Record::Enter(name) if !is_gone => {
                depth += 1;
                reader.enter(name)
            }
            Record::Begin(name, _) if !is_gone => reader.find(name).map(drop),
            Record::Chunks(_) | Record::End(_) => reader.next_of_file().map(drop),
            Record::Tree(hash, _) => reader.find_piece(hash).map(drop),
            Record::Leave if depth > 0 => {
                depth -= 1;
                reader.leave()
            }
            Record::Enter(_) | Record::Begin(..) | Record::Leave => Ok(()),
        };
        // Who walks uses nothing of it from there on.
        if walked.is_err() {
            return;
        }
        assert!(reader.absent() <= depth);
    }
    reader.skip_file().ok();
    while let Ok(Some(_)) = reader.take() {}
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
