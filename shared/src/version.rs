//! Versions of packages: their order as the package managers define it, and keys of bytes that sort the same way, so that
//! a database finds "older than" by an index.

pub mod deb;
pub mod rpm;

/// A run of digits: without leading zeros, the longer is the greater, and of equally long ones the one that sorts later.
fn push_number(key: &mut Vec<u8>, digits: &[u8]) {
    const MORE: u8 = u8::MAX;
    let digits = trim_zeros(digits);
    match u8::try_from(digits.len()) {
        Ok(short) if short < MORE => key.push(short),
        _ => {
            key.push(MORE);
            key.extend((digits.len() as u64).to_be_bytes());
        }
    }
    key.extend(digits);
}

fn trim_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

/// Splits what is before the first byte that does not fit from the rest.
fn split_while(text: &[u8], fits: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|byte| !fits(*byte));
    text.split_at(end.unwrap_or(text.len()))
}
