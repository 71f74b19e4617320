//! When a function is due: the annotation `schedule` of one whose `topic` is `cron-function` (contract section 15).
//!
//! A function may have several schedules, separated by `;`. Each is a cron pattern of five fields, or of six with
//! seconds before them; a word such as `@daily`; or `@every 90s`, which counts from the function's first deploy. A
//! pattern may begin with the time zone that it is in, `CRON_TZ=Europe/Berlin 0 6 * * *`, else it is in UTC. Where
//! clocks are put forward a fixed time that is left out comes right after; where they are put back it comes once.

mod agenda;
mod document;

use std::fmt;

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, Zoned, tz::TimeZone};

pub use self::{
    agenda::{Agenda, Due, Entry, is_ahead},
    document::ScheduleDocument,
};
use crate::{duration, image::shown, limits, wire::Map};

/// Annotation: topics that a function listens to, separated by commas.
pub const ANNOTATION_TOPIC: &str = "topic";
/// The topic of time.
pub const TOPIC: &str = "cron-function";
/// Annotation: when the function is called.
pub const ANNOTATION_SCHEDULE: &str = "schedule";

/// One schedule of a function.
#[derive(Clone, Debug)]
pub struct Schedule {
    text: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
enum Rule {
    Pattern { pattern: Box<Cron>, zone: TimeZone },
    Every { seconds: i64 },
}

/// Why a text is no schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("schedule {text:?} is not understood: {why}")]
pub struct ScheduleFault {
    /// The text, as far as it is shown.
    pub text: String,
    /// What is wrong with it.
    pub why: String,
}

/// What a function's annotations say of schedules: each of them, or why it is none. Nothing where its topics do not
/// have time among them.
pub fn of(annotations: Option<&Map>) -> Vec<Result<Schedule, ScheduleFault>> {
    let get = |name: &str| annotations.and_then(|all| all.get(name)).map(String::as_str);
    let topics = get(ANNOTATION_TOPIC).unwrap_or_default();
    if !topics.split(',').any(|topic| topic.trim() == TOPIC) {
        return Vec::new();
    }
    let texts = get(ANNOTATION_SCHEDULE).unwrap_or_default();
    let texts = texts.split(';').map(str::trim).filter(|text| !text.is_empty());
    let most = limits::SCHEDULES_PER_FUNCTION_MAX;
    let mut schedules: Vec<_> = texts.clone().take(most).map(Schedule::parse).collect();
    if let Some(text) = texts.clone().nth(most) {
        let count = texts.count() - most;
        let why = format!(
            "it and {} after it are beyond the {most} that a function may have (SCHEDULES_PER_FUNCTION_MAX)",
            count - 1
        );
        schedules.push(Err(ScheduleFault { text: shown(text), why }));
    }
    if schedules.is_empty() {
        let why = format!("topic {TOPIC} needs annotation {ANNOTATION_SCHEDULE}");
        schedules.push(Err(ScheduleFault { text: String::new(), why }));
    }
    schedules
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, ScheduleFault> {
        let rule = rule(text).map_err(|why| ScheduleFault { text: shown(text), why })?;
        Ok(Self { text: text.to_owned(), rule })
    }

    /// Its text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The last time up to `until_s` at which it was due; `None` if there was none since `since_s`.
    #[must_use]
    pub fn last(&self, until_s: i64, since_s: i64) -> Option<i64> {
        let last = match &self.rule {
            Rule::Every { seconds } => until_s - until_s.checked_sub(since_s)? % seconds,
            Rule::Pattern { pattern, zone } => {
                let until = Zoned::new(Timestamp::from_second(until_s).ok()?, zone.clone());
                pattern.find_previous_occurrence(&until, true).ok()?.timestamp().as_second()
            }
        };
        (last > since_s).then_some(last)
    }

    /// The first time after `after_s` at which it is due; `None` if it never is again. All times are in Unix seconds;
    /// `since_s` is that of the function's first deploy.
    #[must_use]
    pub fn next(&self, after_s: i64, since_s: i64) -> Option<i64> {
        match &self.rule {
            Rule::Every { seconds } => {
                let passed = after_s.saturating_sub(since_s).max(0) / seconds;
                since_s.checked_add(passed.checked_add(1)?.checked_mul(*seconds)?)
            }
            Rule::Pattern { pattern, zone } => {
                let after = Zoned::new(Timestamp::from_second(after_s).ok()?, zone.clone());
                let next = pattern.find_next_occurrence(&after, false).ok()?;
                Some(next.timestamp().as_second())
            }
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    if text.len() > limits::SCHEDULE_BYTES_MAX {
        return Err(format!("it is longer than {} bytes", limits::SCHEDULE_BYTES_MAX));
    }
    let (zone, pattern) = zoned(text)?;
    if let Some(interval) = pattern.strip_prefix("@every ") {
        let whole = duration::parse_go(interval.trim()).map(|every| every.as_secs());
        let seconds = whole.and_then(|every| i64::try_from(every).ok()).filter(|every| *every > 0);
        let seconds = seconds.ok_or("@every needs a duration of a second or more, such as 90s")?;
        return Ok(Rule::Every { seconds });
    }
    // To the parser such a field is one without values, and each look for the next time takes seconds to find none.
    let is_empty = |part: &str| part.trim_start_matches('+').is_empty();
    if let Some(field) = pattern.split_whitespace().find(|f| f.split(',').any(is_empty)) {
        return Err(format!(
            "there is nothing between two commas, or beside one or a plus, in {field:?}"
        ));
    }
    // Go's cron package has a name more for a day's beginning, and takes `?` for `*` in each field.
    let pattern = match pattern {
        "@midnight" => "@daily".to_owned(),
        other => other.replace('?', "*"),
    };
    let parser = CronParser::builder()
        .seconds(Seconds::Optional)
        .year(Year::Disallowed)
        // `5/15` is every 15 from 5 on, as in Go's cron package.
        .sloppy_ranges(true)
        .build();
    let parsed = parser.parse(&pattern).map_err(|error| error.to_string())?;
    Ok(Rule::Pattern { pattern: Box::new(parsed), zone })
}

/// The zone that a pattern is in, and the pattern.
fn zoned(text: &str) -> Result<(TimeZone, &str), String> {
    let named = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ="));
    let Some(named) = named else { return Ok((TimeZone::UTC, text)) };
    let (name, pattern) = named.split_once(' ').ok_or("a pattern must follow the time zone")?;
    if name == "Local" {
        return Ok((TimeZone::system(), pattern.trim_start()));
    }
    let zone = TimeZone::get(name).map_err(|_| format!("there is no time zone {name:?}"))?;
    Ok((zone, pattern.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    fn shown_at(seconds: i64) -> String {
        Timestamp::from_second(seconds).unwrap().to_string()
    }

    /// The next times of a schedule, from the function's first deploy on.
    fn next(schedule: &str, from: &str, count: usize) -> Vec<String> {
        let (schedule, since) = (Schedule::parse(schedule).unwrap(), at(from));
        let mut times = vec![since];
        while times.len() <= count {
            times.push(schedule.next(times[times.len() - 1], since).unwrap());
        }
        times[1..].iter().map(|time| shown_at(*time)).collect()
    }

    #[test]
    fn a_field_that_names_nothing_is_refused() {
        for text in [
            "30 , * * *",
            "1,, * * * *",
            ", * * * * *",
            "TZ=Europe/Berlin 0 1, * * *",
            "*/5 20 2w,1 7 +",
            "0 0 * * +,",
        ] {
            let fault = Schedule::parse(text).unwrap_err();
            assert!(fault.to_string().contains("there is nothing between"), "{fault}");
        }
    }

    #[test]
    fn a_date_that_never_comes_is_known_soon() {
        for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "*/5 20 31w 2 *", "* * 30 2 +1"] {
            let next = Schedule::parse(text).map(|schedule| schedule.next(0, 0));
            assert!(next.is_err() || next == Ok(None), "{next:?}");
        }
    }

    #[test]
    fn patterns_of_five_and_six_fields() {
        let from = "2026-11-28T10:02:30Z";
        assert_eq!(next("*/5 * * * *", from, 2), ["2026-11-28T10:05:00Z", "2026-11-28T10:10:00Z"]);
        assert_eq!(
            next("*/20 * * * * *", from, 2),
            ["2026-11-28T10:02:40Z", "2026-11-28T10:03:00Z"]
        );
        assert_eq!(next("5/15 * * * *", from, 2), ["2026-11-28T10:05:00Z", "2026-11-28T10:20:00Z"]);
        assert_eq!(next("0 6 * * MON-FRI", from, 1), ["2026-11-30T06:00:00Z"]);
        assert_eq!(next("0 0 13 * 5", from, 2), ["2026-12-04T00:00:00Z", "2026-12-11T00:00:00Z"]);
        assert_eq!(next("@hourly", from, 1), ["2026-11-28T11:00:00Z"]);
        assert_eq!(next("@midnight", from, 1), ["2026-11-29T00:00:00Z"]);
        assert_eq!(next("0 30 10 ? * ?", from, 1), ["2026-11-28T10:30:00Z"]);
        assert!(Schedule::parse("TZ=Local 0 6 * * *").is_ok());
        assert_eq!(next("@daily", from, 1), ["2026-11-29T00:00:00Z"]);
    }

    #[test]
    fn intervals_count_from_the_first_deploy() {
        let from = "2026-11-28T10:02:30Z";
        assert_eq!(next("@every 90s", from, 2), ["2026-11-28T10:04:00Z", "2026-11-28T10:05:30Z"]);
        let schedule = Schedule::parse("@every 1h30m").unwrap();
        let due = schedule.next(at("2026-11-29T00:00:00Z"), at(from)).unwrap();
        assert_eq!(shown_at(due), "2026-11-29T01:02:30Z");
    }

    #[test]
    fn a_time_that_clocks_leave_out_or_repeat_comes_once() {
        let berlin = "CRON_TZ=Europe/Berlin 30 2 * * *";
        let times = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(next(berlin, "2026-03-28T00:00:00Z", 3), times);
        let times = ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(next(berlin, "2026-10-25T00:00:00Z", 2), times);
        assert_eq!(next("TZ=Asia/Tokyo 0 6 * * *", times[0], 1), ["2026-10-25T21:00:00Z"]);
    }

    #[test]
    fn the_last_time_is_found_too() {
        let (since, now) = (at("2026-11-28T10:02:30Z"), at("2026-11-28T10:07:00Z"));
        let last = |text: &str| Schedule::parse(text).unwrap().last(now, since).map(shown_at);
        assert_eq!(last("*/5 * * * *").unwrap(), "2026-11-28T10:05:00Z");
        assert_eq!(last("7 * * * *").unwrap(), "2026-11-28T10:07:00Z");
        assert_eq!(last("@every 90s").unwrap(), "2026-11-28T10:07:00Z");
        assert_eq!(last("@every 100s").unwrap(), "2026-11-28T10:05:50Z");
        assert_eq!((last("@daily"), last("@every 1h")), (None, None));
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        for bad in [
            "",
            "* * * *",
            "61 * * * *",
            "@every",
            "@every 0s",
            "@every -5m",
            "@every 10ms",
            "@never",
            "CRON_TZ=Mars/Base * * * * *",
            "CRON_TZ=UTC",
            "0 0 1 1 * 2026 7 8",
            "* * * * * * 2030",
            &"*".repeat(500),
        ] {
            let fault = Schedule::parse(bad).unwrap_err().to_string();
            assert!(fault.starts_with("schedule \""), "{bad}: {fault}");
        }
    }

    #[test]
    fn what_is_never_due_ends() {
        assert_eq!(Schedule::parse("0 0 30 2 *").ok().and_then(|never| never.next(0, 0)), None);
    }

    #[test]
    fn a_function_has_schedules_if_time_is_among_its_topics() {
        let of = |pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            of(Some(&map.collect()))
                .into_iter()
                .map(|schedule| schedule.map_or_else(|fault| fault.why, |schedule| schedule.text))
                .collect::<Vec<_>>()
        };
        assert!(of(&[("schedule", "* * * * *")]).is_empty());
        assert!(of(&[("topic", "kafka"), ("schedule", "* * * * *")]).is_empty());
        let two = [("topic", "a, cron-function"), ("schedule", "@daily; */5 * * * * ;")];
        assert_eq!(of(&two), ["@daily", "*/5 * * * *"]);
        assert_eq!(
            of(&[("topic", "cron-function")]),
            ["topic cron-function needs annotation schedule"]
        );
        let many = "@daily;".repeat(limits::SCHEDULES_PER_FUNCTION_MAX + 3);
        let many = of(&[("topic", "cron-function"), ("schedule", &many)]);
        assert_eq!(many.len(), limits::SCHEDULES_PER_FUNCTION_MAX + 1);
        assert!(many.last().unwrap().starts_with("it and 2 after it are beyond the 16"));
    }
}
