//! Durations as Go writes them, which OpenFaaS settings use: `1m30s`, `500ms`, `1.5h`.

use std::time::Duration;

/// The longest duration that Go knows: 292 years. Added to any time of this age it is still a time.
const MOST: Duration = Duration::from_nanos(i64::MAX.unsigned_abs());

/// Reads a Go duration (`time.ParseDuration`), without a sign. `None` if it is none, or too long to be one.
#[must_use]
pub fn parse_go(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        seconds += number.parse::<f64>().ok()? * unit_seconds(unit)?;
        rest = tail;
    }
    let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= MOST);
    duration.filter(|_| !text.is_empty())
}

/// Reads what the watchdogs and the gateway accept: a bare integer is seconds, anything else a Go
/// duration (contract section 8.1).
#[must_use]
pub fn parse_seconds_or_go(text: &str) -> Option<Duration> {
    let seconds = text.parse::<u64>().map(|seconds| Duration::from_secs(seconds).min(MOST));
    seconds.ok().or_else(|| parse_go(text))
}

fn unit_seconds(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        let check = |text: &str, ms: Option<u64>| {
            assert_eq!(parse_go(text), ms.map(Duration::from_millis), "{text}");
        };
        check("1m30s", Some(90_000));
        check("500ms", Some(500));
        check("1.5h", Some(5_400_000));
        check("0", Some(0));
        check("", None);
        check("5", None);
        check("s", None);
        check("1d", None);
        check("2562047h", Some(2_562_047 * 3_600_000));
        check("2562048h", None);
        check("9223372036854775807s", None);
        assert_eq!(parse_seconds_or_go("18446744073709551615"), Some(MOST));
        check("-1s", None);
        check("99999999999999999999999h", None);
    }

    #[test]
    fn bare_integers_are_seconds() {
        assert_eq!(parse_seconds_or_go("30"), Some(Duration::from_secs(30)));
        assert_eq!(parse_seconds_or_go("30s"), Some(Duration::from_secs(30)));
        assert_eq!(parse_seconds_or_go("soon"), None);
    }
}
