//! Times as logs have them: `2026-11-22 09:57:04` of the host's zone, or with an offset from UTC.

use infratrack_shared::time::UnixMillis;

/// Years that a log can be of; anything else is no time.
const YEARS: std::ops::RangeInclusive<i32> = 1990..=2199;

const ANY_LEAP_YEAR: i32 = 2000;
/// As C's `%b` has them without a language.
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// A date and a time of day, of a zone that is not said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Civil {
    pub year: i32,
    pub month: u8,
    pub day: u8,
    pub hour: u8,
    pub minute: u8,
    pub second: u8,
}

/// When a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    Local(Civil),
    /// Of a year that is not said either: a leap year stands in its place.
    Yearless(Civil),
    At(UnixMillis),
}

impl Civil {
    /// The same as if it were UTC.
    pub fn as_utc(&self) -> UnixMillis {
        let seconds =
            i64::from(self.hour) * 3600 + i64::from(self.minute) * 60 + i64::from(self.second);
        UnixMillis((days(self.year, self.month, self.day) * 86_400 + seconds) * 1000)
    }

    /// Reads `YYYY-MM-DD`, one or more separators, `HH:MM:SS`; answers what follows, too.
    fn read(text: &str) -> Option<(Self, &str)> {
        let (date, rest) = text.split_at_checked(10)?;
        let rest = rest.trim_start_matches([' ', 'T']);
        let (time, rest) = rest.split_at_checked(8)?;
        let [year, month, day] = numbers(date, '-')?;
        let [hour, minute, second] = numbers(time, ':')?;
        let narrow = |number: u16| u8::try_from(number).ok();
        let civil = Self {
            year: i32::from(year),
            month: narrow(month)?,
            day: narrow(day)?,
            hour: narrow(hour)?,
            minute: narrow(minute)?,
            // A leap second is the last of its minute.
            second: narrow(second)?.min(if second == 60 { 59 } else { u8::MAX }),
        };
        let is_one = YEARS.contains(&civil.year)
            && (1..=12).contains(&civil.month)
            && (1..=days_in_month(civil.year, civil.month)).contains(&civil.day)
            && civil.hour < 24
            && civil.minute < 60
            && civil.second < 60;
        is_one.then_some((civil, rest))
    }
}

impl Stamp {
    /// The time, where one without a zone is taken for UTC.
    pub fn as_utc(&self) -> UnixMillis {
        match self {
            Self::At(at) => *at,
            Self::Local(civil) | Self::Yearless(civil) => civil.as_utc(),
        }
    }

    /// Of the year, where it is of none yet.
    #[must_use]
    pub fn with_year(self, year: i32) -> Self {
        match self {
            Self::Yearless(civil) => Self::Local(Civil { year, ..civil }),
            Self::Local(_) | Self::At(_) => self,
        }
    }

    /// Reads `Nov 22 09:57:04` and answers what follows it.
    pub fn yearless(text: &str) -> Option<(Self, &str)> {
        let (month, rest) = text.split_at_checked(3)?;
        let month = MONTHS.iter().position(|name| *name == month)? + 1;
        let (day, rest) = rest.strip_prefix(' ')?.split_at_checked(2)?;
        let (time, rest) = rest.strip_prefix(' ')?.split_at_checked(8)?;
        let day: u8 = day.trim_start().parse().ok()?;
        let full = format!("{ANY_LEAP_YEAR}-{month:02}-{day:02} {time}");
        let (civil, _) = Civil::read(&full)?;
        Some((Self::Yearless(civil), rest))
    }

    /// Reads a time without a zone, and answers what follows it.
    pub fn local(text: &str) -> Option<(Self, &str)> {
        let (civil, rest) = Civil::read(text)?;
        Some((Self::Local(civil), rest))
    }

    /// Reads a time with its offset: `Z`, `+0000`, `+00:00`. Without any it is of the host's zone.
    pub fn with_offset(text: &str) -> Option<(Self, &str)> {
        let (civil, rest) = Civil::read(text)?;
        let (minutes, rest) = match rest.bytes().next() {
            Some(b'Z') => (0, rest.get(1..)?),
            Some(sign @ (b'+' | b'-')) => {
                let digits = |range: std::ops::Range<usize>| {
                    rest.get(range)?.parse::<u8>().ok().map(i64::from)
                };
                let colon = usize::from(rest.get(3..4) == Some(":"));
                let minutes = digits(1..3)? * 60 + digits(3 + colon..5 + colon)?;
                let minutes = if sign == b'-' { -minutes } else { minutes };
                (minutes, rest.get(5 + colon..)?)
            }
            _ => return Some((Self::Local(civil), rest)),
        };
        let at = civil.as_utc().plus_millis(-minutes * 60_000);
        Some((Self::At(at), rest))
    }
}

fn numbers(text: &str, separator: char) -> Option<[u16; 3]> {
    let mut parts = text.split(separator).map(|part| {
        let is_number = part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|_| is_number)
    });
    let three = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(three)
}

fn is_leap(year: i32) -> bool {
    (year % 4 == 0 && year % 100 != 0) || year % 400 == 0
}

fn days_in_month(year: i32, month: u8) -> u8 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01.
fn days(year: i32, month: u8, day: u8) -> i64 {
    let before = i64::from(year) - 1;
    let leaps = before / 4 - before / 100 + before / 400;
    // To 1970: 1969 years, 477 leap days.
    let years = (before - 1969) * 365 + leaps - 477;
    let months: i64 = (1..month).map(|m| i64::from(days_in_month(year, m))).sum();
    years + months + i64::from(day) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<i64> {
        let (stamp, _) = Stamp::with_offset(text)?;
        Some(stamp.as_utc().0 / 1000)
    }

    #[test]
    fn times_are_read_with_and_without_an_offset() {
        let cases = [
            ("2026-11-22T13:26:20+0000 INFO", Some(1_795_353_980)),
            ("2026-11-22T13:26:20Z INFO", Some(1_795_353_980)),
            ("2026-11-22T08:26:20-0500 INFO", Some(1_795_353_980)),
            ("2026-11-22T18:56:20+05:30 INFO", Some(1_795_353_980)),
            ("2026-11-22  13:26:20", Some(1_795_353_980)),
            ("1999-12-31 23:59:60", Some(946_684_799)),
            ("2024-02-29 00:00:00", Some(1_709_164_800)),
            ("2023-02-29 00:00:00", None),
            ("0000-00-00 00:00:00", None),
            ("9999-12-31 23:59:59", None),
            ("2026-11-22 24:00:00", None),
            ("2026-1-22 13:26:20x", None),
            ("+026-11-22 13:26:20", None),
            ("2026-11-22", None),
            ("2026-11-22T13:26:20+00", None),
            ("2026-11-22T13:26:20+0é0", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(at(text), expected, "{text}");
        }
        let (_, rest) = Stamp::local("2026-11-22 09:57:04 startup").unwrap();
        assert_eq!(rest, " startup");
    }
}
