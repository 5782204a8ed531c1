//! The bytes that were posted as UTF-8: Windows PowerShell's `>` writes UTF-16 with a byte order mark.

use std::borrow::Cow;

use super::Refusal;

/// Without a byte order mark.
pub(super) fn utf8(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Refusal> {
    match bytes {
        [0xef, 0xbb, 0xbf, rest @ ..] => Ok(Cow::Borrowed(rest)),
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [b'{', 0, ..] => utf16(bytes, u16::from_le_bytes),
        [0, b'{', ..] => utf16(bytes, u16::from_be_bytes),
        _ => Ok(Cow::Borrowed(bytes)),
    }
}

fn utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<Cow<'_, [u8]>, Refusal> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Refusal::Encoding {
            offset: bytes.len(),
            what: "it ends in the middle of a UTF-16 unit",
        });
    }
    let mut text = String::with_capacity(pairs.len());
    for (index, character) in char::decode_utf16(pairs.iter().copied().map(unit)).enumerate() {
        text.push(character.map_err(|_| Refusal::Encoding {
            offset: index * 2,
            what: "half of a UTF-16 surrogate pair",
        })?);
    }
    Ok(Cow::Owned(text.into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utf_16_with_or_without_a_mark_and_either_order_is_the_same_text() {
        let text = "{\"é\":\"😀\"}";
        let units: Vec<u16> = text.encode_utf16().collect();
        let little: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units.iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [
            text.as_bytes().to_vec(),
            [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat(),
            [&[0xff, 0xfe], &little[..]].concat(),
            [&[0xfe, 0xff], &big[..]].concat(),
            little.clone(),
            big,
        ] {
            assert_eq!(&*utf8(&bytes).unwrap(), text.as_bytes());
        }
        assert!(utf8(&[0xff, 0xfe, b'{']).is_err());
        assert!(utf8(&[0xff, 0xfe, 0x00, 0xd8]).is_err());
    }
}
