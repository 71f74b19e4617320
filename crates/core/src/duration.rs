//! Durations as Go writes them, which OpenFaaS settings use: `1m30s`, `500ms`, `1.5h`.

use std::time::Duration;

/// Reads a Go duration (`time.ParseDuration`), without a sign. `None` if it is none.
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
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

/// Reads what the watchdogs and the gateway accept: a bare integer is seconds, anything else a Go
/// duration (contract section 8.1).
#[must_use]
pub fn parse_seconds_or_go(text: &str) -> Option<Duration> {
    text.parse::<u64>().map(Duration::from_secs).ok().or_else(|| parse_go(text))
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
