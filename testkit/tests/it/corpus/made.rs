//! The part of the corpus that is made by rule: recorded documents, the same cut short and with bits
//! turned, and bodies that were made to cost their reader dearly.

use std::fs;
use std::path::Path;

use infratrack_agent::backup::files::records::{Fingerprint, Record, Row};
use infratrack_shared::backup::{ChunkId, Salt};
use infratrack_shared::compress;
use infratrack_shared::limits;
use infratrack_shared::token::EnrollToken;

/// Where recorded documents are, from the root.
const RECORDED: &str = "shared/tests/wire/0.1.0";

/// Writes what is missing below `corpus`.
pub(crate) fn write_missing(root: &Path, corpus: &Path) {
    let recorded = |name: &str| {
        let path = root.join(RECORDED).join(format!("{name}.msgpack"));
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let write = |target: &str, inputs: Vec<(String, Vec<u8>)>| {
        let directory = corpus.join(target);
        fs::create_dir_all(&directory).expect("the directory can be made");
        for (name, bytes) in inputs {
            let path = directory.join(name);
            if !path.exists() {
                fs::write(path, bytes).expect("the file can be written");
            }
        }
    };
    let full = recorded("batch-full");
    let mut batch = damaged("full", &full, 8);
    batch.push(named("minimal", recorded("batch-minimal")));
    batch.extend(hostile());
    write("batch", batch);
    write("scan", [hostile(), damaged("full", &full, 2)].concat());
    for target in ["enroll_request", "renew_request", "return_request"] {
        let valid = recorded(&target.replace('_', "-"));
        let hostile = hostile().into_iter().take(3);
        write(
            target,
            damaged("valid", &valid, 3)
                .into_iter()
                .chain(hostile)
                .collect(),
        );
    }
    for target in ["plays", "problem"] {
        write(target, damaged("valid", &recorded(target), 3));
    }
    for name in ["pack", "snapshot", "tree"] {
        let path = root.join("shared/tests/backup/0.1.0").join(name);
        let valid = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // The first byte of a tree's input says in what pieces it comes.
        let valid = if name == "tree" {
            [&[5], valid.as_slice()].concat()
        } else {
            valid
        };
        write(&format!("backup_{name}"), damaged("valid", &valid, 4));
    }
    write("backup_cache", damaged("valid", &cache(), 4));
    write("frames", frames(&recorded("frames")));
    write("token", tokens());
    write("zstd", compressed(&full));
    for (target, valid) in inventories() {
        let mut inputs = damaged("valid", valid.as_bytes(), 2);
        inputs.push(named("hostile-deep", "[".repeat(4096).into_bytes()));
        write(target, inputs);
    }
}

/// What is remembered of two directories.
fn cache() -> Vec<u8> {
    let row = |number: u8| Row {
        id: ChunkId::new([number; 32]),
        place: (number > 1).then(|| (Salt::new([number; 16]), number.into())),
    };
    let begin = |name: &str| Record::Begin(name.into(), Fingerprint([7; Fingerprint::BYTES]));
    let records = [
        Record::Enter("a".into()),
        begin("1"),
        Record::Chunks(vec![row(1), row(2)]),
        Record::End(Some(b"entry".to_vec())),
        Record::Tree([8; 32], row(3)),
        Record::Enter("b".into()),
        begin("2"),
        Record::End(None),
        Record::Leave,
        Record::Leave,
        begin("c"),
        Record::Chunks(vec![row(4)]),
        Record::End(Some(b"entry".to_vec())),
    ];
    let mut bytes = Vec::new();
    for record in records {
        record.write(&mut bytes).expect("it is short");
    }
    bytes
}

/// A document of each kind of inventory.
fn inventories() -> [(&'static str, &'static str); 3] {
    [
        (
            "inventory_ansible",
            r#"{"_meta": {"hostvars": {"web-1": {"ansible_host": "10.0.0.1", "instance_id": "i-1",
"tags": {"Environment": "prod"}}, "b": {"do_tags": ["x"]}}}, "all": {"children": ["web"]}, "web": {"hosts": ["web-1"]}}"#,
        ),
        (
            "inventory_csv",
            "name,addresses,tags,destroyed\nweb-1,10.0.0.1 2001:db8::1,a;b=c,\n\"db 1\",,,true\n",
        ),
        (
            "inventory_terraform",
            r#"{"format_version": "1.0", "values": {"root_module": {"resources": [{"address": "aws_instance.a",
"mode": "managed", "type": "aws_instance", "values": {"id": "i-1", "private_ip": "10.0.0.1", "tags_all": {"Name": "a"}}}],
"child_modules": [{"resources": [{"address": "m.x", "mode": "managed", "type": "hcloud_server", "values": {"id": 1}}]}]}}}"#,
        ),
    ]
}

fn named(name: &str, bytes: Vec<u8>) -> (String, Vec<u8>) {
    (name.to_owned(), bytes)
}

/// `valid` itself, `count` times cut short, `count` times with bits turned, and with bytes after its end.
fn damaged(name: &str, valid: &[u8], count: usize) -> Vec<(String, Vec<u8>)> {
    let mut chance = Chance(valid.len() as u64);
    let mut out = vec![
        named(name, valid.to_vec()),
        (format!("{name}-trailing"), [valid, &[0xc0]].concat()),
    ];
    for number in 0..count {
        let cut = valid.get(..chance.below(valid.len())).unwrap_or_default();
        out.push((format!("{name}-cut-{number}"), cut.to_vec()));
        let mut turned = valid.to_vec();
        for _ in 0..=number {
            let at = chance.below(turned.len());
            turned[at] ^= 1 << chance.below(8);
        }
        out.push((format!("{name}-turned-{number}"), turned));
    }
    out
}

/// Small on the wire, dear to a reader that trusts them.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let big = |marker: u8| [&[marker][..], &[0xff; 4], &[0xc0; 8]].concat();
    let key = |name: &str| {
        let length = u8::try_from(name.len()).expect("short");
        [&[0xa0 | length], name.as_bytes()].concat()
    };
    // {"parts": [[[[…: deep where a batch has its parts.
    let deep_part = [&[0x81][..], &key("parts"), &[0x91; 100]].concat();
    let exact = [vec![0x91; limits::DEPTH], vec![0xc0]].concat();
    let twice = [&[0x82][..], &key("protocol"), &[1], &key("protocol"), &[2]].concat();
    let many = [&[0xdc, 0x20, 0x00][..], &[0x90; 8192]].concat();
    vec![
        named("hostile-deep", vec![0x91; 4096]),
        named("hostile-array-4-gib", big(0xdd)),
        named("hostile-text-4-gib", big(0xdb)),
        named("hostile-map-4-gib", big(0xdf)),
        named("hostile-binary-4-gib", big(0xc6)),
        named("hostile-ext-4-gib", big(0xc9)),
        named("hostile-deep-maps", [0x81, 0x01].repeat(2048)),
        named("hostile-deep-part", deep_part),
        named("hostile-deep-just-allowed", exact),
        named("hostile-key-twice", twice),
        named("hostile-empty-arrays", many),
        named("hostile-reserved", vec![0x92, 0xc1, 0xc1]),
        named("hostile-bad-utf8", vec![0x81, 0xa2, 0xff, 0xfe, 0xc0]),
        named("hostile-empty", Vec::new()),
    ]
}

/// The first byte is the size of chunks.
fn frames(valid: &[u8]) -> Vec<(String, Vec<u8>)> {
    let chunked = |chunk: u8, bytes: &[u8]| [&[chunk], bytes].concat();
    let over = u32::try_from(limits::FRAME_BYTES + 1)
        .expect("fits")
        .to_be_bytes();
    let mut out = vec![
        named("byte-by-byte", chunked(1, valid)),
        named("in-sevens", chunked(7, valid)),
        named("hostile-4-gib", chunked(3, &[0xff; 12])),
        named("hostile-just-over", chunked(2, &over)),
        named("hostile-no-bytes", chunked(1, &[0; 64])),
        named("hostile-half-a-header", chunked(1, &[0, 0])),
        named("unknown", chunked(5, &[0, 0, 0, 4, 0x81, 0xa1, b'x', 0xc0])),
        named("trailing", chunked(5, &[0, 0, 0, 2, 0x80, 0xc0])),
    ];
    let damaged = damaged("valid", valid, 3).into_iter();
    out.extend(damaged.map(|(name, bytes)| (name, chunked(64, &bytes))));
    out
}

fn tokens() -> Vec<(String, Vec<u8>)> {
    let valid = EnrollToken::new([1; 9], [2; 32], [251; 32]).reveal();
    let text = |name: &str, text: String| named(name, text.into_bytes());
    vec![
        text("valid", valid.clone()),
        text("valid-in-space", format!(" \t{valid}\n")),
        text("padded", format!("{valid}=")),
        text("standard-alphabet", valid.replace(['-', '_'], "+")),
        text("cut", valid[..valid.len() - 3].to_owned()),
        text("four-parts", format!("{valid}.AA")),
        text("dots", ".".repeat(4096)),
        text("empty", String::new()),
        text("not-ascii", valid.replace('A', "\u{e4}")),
        // The last sign of a part has bits that must be 0.
        text("loose-bits", format!("{}N", &valid[..valid.len() - 1])),
        named("no-text", vec![0xff; 100]),
    ]
}

fn compressed(valid: &[u8]) -> Vec<(String, Vec<u8>)> {
    let frame = compress::compress(&valid.repeat(4)).expect("pays");
    // 64 MiB of zeros; two frames that only together are over the limit; a frame for no bytes.
    let bomb = compress::compress(&vec![0; 64 << 20]).expect("pays");
    let half = compress::compress(&vec![0; limits::BATCH_BYTES / 2 + 1]).expect("pays");
    let empty = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00, 0x01, 0x00, 0x00];
    let skippable = [
        &[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 1, 2, 3, 4][..],
        &frame,
    ]
    .concat();
    // Window_Descriptor 0xff: exponent 31, a window of 3.75 TiB.
    let wide = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00];
    let mut out = damaged("valid", &frame, 5);
    out.extend([
        named("bomb", bomb),
        named("bomb-in-two-frames", half.repeat(2)),
        named("many-empty-frames", empty.repeat(256)),
        named("skippable", skippable),
        named(
            "skippable-4-gib",
            vec![0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff],
        ),
        named("wide-window", wide),
        named("empty", Vec::new()),
    ]);
    out
}

/// splitmix64: the same everywhere, for ever.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % limit.max(1) as u64).unwrap_or(0)
    }
}
