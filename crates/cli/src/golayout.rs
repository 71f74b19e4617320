//! Times written by example, as Go's `time` package lays them out: `15:04:05` for hours, minutes, seconds.
//!
//! faas-cli's `--time-format` takes these, and Go's names for some of them. Source: the documentation of
//! Go's package `time`, constants and `Time.Format`.

use std::fmt::Write;

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Go's names for layouts.
const NAMED: [(&str, &str); 17] = [
    ("ansic", "Mon Jan _2 15:04:05 2006"),
    ("unixdate", "Mon Jan _2 15:04:05 MST 2006"),
    ("rubydate", "Mon Jan 02 15:04:05 -0700 2006"),
    ("rfc822", "02 Jan 06 15:04 MST"),
    ("rfc822z", "02 Jan 06 15:04 -0700"),
    ("rfc850", "Monday, 02-Jan-06 15:04:05 MST"),
    ("rfc1123", "Mon, 02 Jan 2006 15:04:05 MST"),
    ("rfc1123z", "Mon, 02 Jan 2006 15:04:05 -0700"),
    ("rfc3339", "2006-01-02T15:04:05Z07:00"),
    ("rfc3339nano", "2006-01-02T15:04:05.999999999Z07:00"),
    ("kitchen", "3:04PM"),
    ("stamp", "Jan _2 15:04:05"),
    ("stampmilli", "Jan _2 15:04:05.000"),
    ("stampmicro", "Jan _2 15:04:05.000000"),
    ("stampnano", "Jan _2 15:04:05.000000000"),
    ("datetime", "2006-01-02 15:04:05"),
    ("timeonly", "15:04:05"),
];

/// The parts of a layout, longer ones before those they begin with.
const PARTS: [&str; 25] = [
    "January", "Jan", "Monday", "Mon", "MST", "2006", "Z07:00", "-07:00", "-0700", "01", "02",
    "03", "04", "05", "06", "15", "PM", "pm", "_2", "1", "2", "3", "4", "5", "-07",
];

/// An RFC 3339 time in another form; as it was if it is none.
pub fn reformat(timestamp: &str, format: &str) -> String {
    let Ok(time) = OffsetDateTime::parse(timestamp, &Rfc3339) else { return timestamp.to_owned() };
    let lower = format.to_ascii_lowercase();
    let named = NAMED.iter().find(|(name, _)| *name == lower);
    laid_out(time, named.map_or(format, |(_, layout)| layout))
}

fn laid_out(time: OffsetDateTime, layout: &str) -> String {
    let mut out = String::new();
    let mut rest = layout;
    while let Some(first) = rest.chars().next() {
        if let Some(length) = fraction(&mut out, rest, time) {
            rest = &rest[length..];
        } else if let Some(part) = PARTS.iter().find(|part| rest.starts_with(**part)) {
            out.push_str(&value(part, time));
            rest = &rest[part.len()..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    out
}

fn value(part: &str, time: OffsetDateTime) -> String {
    let month = time.month().to_string();
    let weekday = time.weekday().to_string();
    let hour12 = (time.hour() + 11) % 12 + 1;
    let (day, minute, second) = (time.day(), time.minute(), time.second());
    match part {
        "January" => month,
        "Jan" => month[..3].to_owned(),
        "Monday" => weekday,
        "Mon" => weekday[..3].to_owned(),
        "2006" => format!("{:04}", time.year()),
        "06" => format!("{:02}", time.year().rem_euclid(100)),
        "01" => format!("{:02}", u8::from(time.month())),
        "1" => u8::from(time.month()).to_string(),
        "02" => format!("{day:02}"),
        "_2" => format!("{day:2}"),
        "2" => day.to_string(),
        "15" => format!("{:02}", time.hour()),
        "03" => format!("{hour12:02}"),
        "3" => hour12.to_string(),
        "04" => format!("{minute:02}"),
        "4" => minute.to_string(),
        "05" => format!("{second:02}"),
        "5" => second.to_string(),
        "PM" => if time.hour() < 12 { "AM" } else { "PM" }.to_owned(),
        "pm" => if time.hour() < 12 { "am" } else { "pm" }.to_owned(),
        _ => zone(part, time),
    }
}

fn zone(part: &str, time: OffsetDateTime) -> String {
    let offset = time.offset();
    if offset.is_utc() && part.starts_with('Z') {
        return "Z".to_owned();
    }
    if offset.is_utc() && part == "MST" {
        return "UTC".to_owned();
    }
    let sign = if offset.is_negative() { '-' } else { '+' };
    let (hours, minutes) = (offset.whole_hours().abs(), offset.minutes_past_hour().abs());
    match part {
        "-07" => format!("{sign}{hours:02}"),
        "Z07:00" | "-07:00" => format!("{sign}{hours:02}:{minutes:02}"),
        _ => format!("{sign}{hours:02}{minutes:02}"),
    }
}

/// A fraction of a second: `.000` with that many digits, `.999` without the zeros at its end. Tells how
/// long it is in the layout.
fn fraction(out: &mut String, rest: &str, time: OffsetDateTime) -> Option<usize> {
    let digits = rest.strip_prefix(['.', ','])?;
    let digit = digits.chars().next().filter(|c| matches!(c, '0' | '9'))?;
    let count = digits.chars().take_while(|c| *c == digit).count();
    if count > 9 || digits[count..].starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let all = format!("{:09}", time.nanosecond());
    let shown = &all[..count];
    let shown = if digit == '9' { shown.trim_end_matches('0') } else { shown };
    if !shown.is_empty() {
        let _ = write!(out, "{}{shown}", &rest[..1]);
    }
    Some(1 + count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_layouts() {
        let at = |format: &str| reformat("2026-11-03T19:05:06.120340000Z", format);
        for (format, expected) in [
            ("rfc3339", "2026-11-03T19:05:06Z"),
            ("RFC3339Nano", "2026-11-03T19:05:06.12034Z"),
            ("rfc850", "Tuesday, 03-Nov-26 19:05:06 UTC"),
            ("rfc1123z", "Tue, 03 Nov 2026 19:05:06 +0000"),
            ("kitchen", "7:05PM"),
            ("ansic", "Tue Nov  3 19:05:06 2026"),
            ("stampmilli", "Nov  3 19:05:06.120"),
            ("15:04:05", "19:05:06"),
            ("1/2/06 03:4:5 pm", "11/3/26 07:5:6 pm"),
            ("at 15h", "at 19h"),
        ] {
            assert_eq!(at(format), expected, "{format}");
        }
    }

    #[test]
    fn offsets_and_junk() {
        assert_eq!(reformat("2026-01-02T03:04:05-05:30", "rfc3339"), "2026-01-02T03:04:05-05:30");
        assert_eq!(reformat("2026-01-02T03:04:05+02:00", "rfc822z"), "02 Jan 26 03:04 +0200");
        assert_eq!(reformat("never", "rfc3339"), "never");
        assert_eq!(reformat("2026-01-02T03:04:05Z", "ä.x"), "ä.x");
    }
}
