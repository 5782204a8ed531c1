//! A cache is read back as it was written, and no bytes make the reader fall over.

use proptest::prelude::*;

use super::reader::Reader;
use super::record::{Fingerprint, Record};

proptest! {
    #[test]
    fn any_bytes_are_records_or_an_error(bytes in proptest::collection::vec(prop_oneof![0_u8..9, any::<u8>()], 0..400)) {
        let mut rest = bytes.as_slice();
        while let Ok(Some(record)) = Record::read(&mut rest) {
            let mut again = Vec::new();
            record.write(&mut again).unwrap();
            prop_assert_eq!(Record::read(&mut again.as_slice()).unwrap(), Some(record));
        }
        let mut reader = Reader::new(bytes.as_slice());
        for name in [b"a", b"b", b"c"] {
            let _ = reader.enter(name);
            if matches!(reader.find(name), Ok(Some(_))) {
                while let Ok(Record::Chunks(_)) = reader.next_of_file() {}
            }
            let _ = reader.find_piece(&[0; 32]);
            let _ = reader.leave();
        }
    }
}

#[test]
fn what_the_walk_does_not_come_to_is_passed_over() {
    let file = |name: &str| Record::Begin(name.into(), Fingerprint([1; Fingerprint::BYTES]));
    let records = [
        Record::Enter("a".into()),
        file("1"),
        Record::End(None),
        Record::Leave,
        file("b"),
        Record::End(Some(b"node".to_vec())),
        Record::Enter("c".into()),
        Record::Leave,
        file("d"),
        Record::End(None),
    ];
    let mut bytes = Vec::new();
    for record in records {
        record.write(&mut bytes).unwrap();
    }
    let mut reader = Reader::new(bytes.as_slice());
    assert!(reader.find(b"b").unwrap().is_some());
    reader.enter(b"bb").unwrap();
    assert_eq!((reader.find(b"d").unwrap(), reader.absent()), (None, 1));
    reader.leave().unwrap();
    reader.enter(b"c").unwrap();
    assert_eq!((reader.find(b"d").unwrap(), reader.absent()), (None, 0));
    reader.leave().unwrap();
    assert!(reader.find(b"d").unwrap().is_some());
}
