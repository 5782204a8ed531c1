//! Numbers and times in words, for pages.

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A value that may be unknown: "unknown" is never shown as 0.
pub fn known<T: Copy>(value: &Option<T>, words: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "unknown".to_owned(), words)
}

/// A share as per cent.
pub fn percent(ratio: f32) -> String {
    format!("{:.0} %", ratio * 100.0)
}

/// A temperature.
pub fn celsius(celsius: f32) -> String {
    format!("{celsius:.0} °C")
}

/// A size in bytes, in binary units.
pub fn bytes(bytes: i64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value.abs() < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {unit}")
    }
}

/// How long ago `at` was, as of `now`.
pub fn ago(at: &OffsetDateTime, now: &OffsetDateTime) -> String {
    let seconds = (*now - *at).whole_seconds();
    match seconds {
        i64::MIN..0 => "in the future".to_owned(),
        0..5 => "just now".to_owned(),
        5..120 => format!("{seconds} s ago"),
        120..7200 => format!("{} min ago", seconds / 60),
        7200..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// A length of time.
pub fn duration(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// When something is due, as seen from `now`, and the class of a badge that says so.
pub fn due(due_at: &Option<OffsetDateTime>, now: &OffsetDateTime) -> (&'static str, String) {
    let Some(due_at) = due_at else {
        return ("", "no date".to_owned());
    };
    let left = (*due_at - *now).whole_seconds();
    if left < 0 {
        ("unhealthy", format!("overdue for {}", duration(-left)))
    } else {
        ("", format!("in {}", duration(left)))
    }
}

/// The instant, for the tooltip of a relative time.
pub fn utc(at: &OffsetDateTime) -> String {
    at.replace_nanosecond(0)
        .unwrap_or(*at)
        .format(&Rfc3339)
        .unwrap_or_default()
}

/// The day, in UTC.
pub fn day(at: &OffsetDateTime) -> String {
    at.date().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(8 << 30), "8.0 GiB");
        assert_eq!(bytes(i64::MAX), "8192.0 PiB");
        let now = OffsetDateTime::UNIX_EPOCH + time::Duration::days(30);
        assert_eq!(ago(&(now - time::Duration::seconds(31)), &now), "31 s ago");
        assert_eq!(
            ago(&(now + time::Duration::minutes(1)), &now),
            "in the future"
        );
        assert_eq!(known(&None::<f32>, percent), "unknown");
    }
}
