//! Whether an asynchronous call is tried again, and when (contract sections 7.5 and 9).

use std::time::Duration;

use crate::{
    duration,
    limits::{
        DELIVERY_ATTEMPTS_DEFAULT, DELIVERY_ATTEMPTS_MAX, DELIVERY_WAIT_MAX,
        DELIVERY_WAIT_MAX_DEFAULT, DELIVERY_WAIT_MIN_DEFAULT,
    },
    wire::Map,
};

/// Annotation: how often a call is tried.
const ATTEMPTS: &str = "com.openfaas.retry.attempts";
/// Annotation: statuses that are tried again, separated by commas.
const CODES: &str = "com.openfaas.retry.codes";
/// Annotation: the first wait.
const MIN_WAIT: &str = "com.openfaas.retry.min_wait";
/// Annotation: the longest wait.
const MAX_WAIT: &str = "com.openfaas.retry.max_wait";

/// Statuses that are tried again unless the function says otherwise.
const CODES_AGAIN: [u16; 6] = [408, 429, 500, 502, 503, 504];

/// How waits are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backoff {
    /// Doubled each time.
    #[default]
    Exponential,
    /// Anything from nothing to that.
    Full,
    /// From half of that to all of it.
    Equal,
}

/// When a call is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often it is tried at most, the first time included.
    pub attempts: u32,
    /// Statuses that are tried again.
    pub codes: Vec<u16>,
    /// The first wait.
    pub min_wait: Duration,
    /// The longest wait.
    pub max_wait: Duration,
    /// How waits are spread.
    pub backoff: Backoff,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The answer's status; `None` if no whole answer came.
    pub status: Option<u16>,
    /// Whether the platform made the answer (`X-OpenFaaS-Internal`).
    pub is_internal: bool,
    /// How long the answer asks to be left alone (`Retry-After`).
    pub retry_after: Option<Duration>,
}

/// What becomes of a call after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The function has answered it.
    Settled,
    /// It is tried again after so long.
    Again(Duration),
    /// It has failed for good.
    Failed,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: DELIVERY_ATTEMPTS_DEFAULT,
            codes: CODES_AGAIN.to_vec(),
            min_wait: DELIVERY_WAIT_MIN_DEFAULT,
            max_wait: DELIVERY_WAIT_MAX_DEFAULT,
            backoff: Backoff::default(),
        }
    }
}

/// An annotation that says nothing about retries, since it cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {name} is {text:?}, which is not {expected}: what is usual holds in its place")]
pub struct RetryFault {
    name: &'static str,
    /// What it says, cut.
    text: String,
    expected: &'static str,
}

/// Characters that are told of an annotation which cannot be understood.
const TOLD_CHARS: usize = 40;

impl RetryPolicy {
    /// This policy with what a function's annotations change of it. What is no valid value changes nothing.
    #[must_use]
    pub fn with(&self, annotations: Option<&Map>) -> Self {
        let text = |name| annotations.and_then(|map| map.get(name)).map(String::as_str);
        let wait = |name, default| text(name).and_then(wait).unwrap_or(default);
        let min_wait = wait(MIN_WAIT, self.min_wait);
        Self {
            attempts: text(ATTEMPTS).and_then(attempts).unwrap_or(self.attempts).max(1),
            codes: text(CODES).and_then(codes).unwrap_or_else(|| self.codes.clone()),
            min_wait,
            max_wait: wait(MAX_WAIT, self.max_wait).max(min_wait),
            backoff: self.backoff,
        }
    }

    /// Annotations that change nothing because they cannot be understood.
    pub fn faults(annotations: Option<&Map>) -> impl Iterator<Item = RetryFault> {
        type Understands = fn(&str) -> bool;
        const DURATION: &str = "a duration such as 10s or 2m";
        let known: [(&str, &str, Understands); 4] = [
            (ATTEMPTS, "a number from 0 to 1000", |text| attempts(text).is_some()),
            (CODES, "a list of HTTP statuses such as 429,503", |text| codes(text).is_some()),
            (MIN_WAIT, DURATION, |text| wait(text).is_some()),
            (MAX_WAIT, DURATION, |text| wait(text).is_some()),
        ];
        known.into_iter().filter_map(move |(name, expected, understands)| {
            let text = annotations?.get(name).filter(|text| !understands(text))?;
            Some(RetryFault { name, text: text.chars().take(TOLD_CHARS).collect(), expected })
        })
    }

    /// Judges an attempt, the first being 1. `random` is from 0 to 1.
    #[must_use]
    pub fn judge(&self, outcome: &Outcome, attempt: u32, random: f64) -> Verdict {
        if !self.may_pass(outcome) {
            return Verdict::Settled;
        }
        if attempt >= self.attempts {
            return Verdict::Failed;
        }
        let asked = outcome.retry_after.filter(|_| matches!(outcome.status, Some(429 | 503)));
        Verdict::Again(match asked {
            Some(asked) => asked.max(self.min_wait).min(DELIVERY_WAIT_MAX),
            None => self.wait(attempt, random),
        })
    }

    /// Whether the same call may end differently another time.
    fn may_pass(&self, outcome: &Outcome) -> bool {
        let Some(status) = outcome.status else { return true };
        // A watchdog marks its 401 and 403 too, and the call has no other token the next time.
        let is_refused = matches!(status, 401 | 403);
        self.codes.contains(&status) || (outcome.is_internal && status >= 400 && !is_refused)
    }

    fn wait(&self, attempt: u32, random: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(30);
        let wait = self.min_wait.saturating_mul(1 << doublings).min(self.max_wait);
        let random = random.clamp(0.0, 1.0);
        match self.backoff {
            Backoff::Exponential => wait,
            Backoff::Full => wait.mul_f64(random),
            Backoff::Equal => wait.mul_f64(0.5 + random / 2.0),
        }
    }
}

fn attempts(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|attempts| *attempts <= DELIVERY_ATTEMPTS_MAX)
}

fn wait(text: &str) -> Option<Duration> {
    let wait = duration::parse_seconds_or_go(text.trim()).filter(|wait| !wait.is_zero());
    wait.map(|wait| wait.min(DELIVERY_WAIT_MAX))
}

fn codes(text: &str) -> Option<Vec<u16>> {
    let code = |text: &str| text.trim().parse().ok().filter(|code| (100..600).contains(code));
    text.split(',').map(code).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(pairs: &[(&str, &str)]) -> Map {
        let named = |(n, v): &(&str, &str)| (format!("com.openfaas.retry.{n}"), (*v).to_owned());
        pairs.iter().map(named).collect()
    }

    fn policy(pairs: &[(&str, &str)]) -> RetryPolicy {
        RetryPolicy::default().with(Some(&annotations(pairs)))
    }

    fn faults(pairs: &[(&str, &str)]) -> Vec<String> {
        RetryPolicy::faults(Some(&annotations(pairs))).map(|fault| fault.to_string()).collect()
    }

    fn status(status: u16) -> Outcome {
        Outcome { status: Some(status), ..Outcome::default() }
    }

    fn seconds(seconds: u64) -> Verdict {
        Verdict::Again(Duration::from_secs(seconds))
    }

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let policy = RetryPolicy::default();
        let judged = |attempt| policy.judge(&status(500), attempt, 0.5);
        let waits: Vec<_> = (1..7).map(judged).collect();
        assert_eq!(waits, [10, 20, 40, 80, 120, 120].map(seconds));
        assert_eq!(judged(9), seconds(120));
        assert_eq!(judged(10), Verdict::Failed);
        assert_eq!(judged(u32::MAX), Verdict::Failed);
    }

    #[test]
    fn waits_are_spread_as_wished() {
        let spread = |backoff, random| {
            let policy = RetryPolicy { backoff, ..RetryPolicy::default() };
            policy.judge(&status(503), 2, random)
        };
        assert_eq!(spread(Backoff::Full, 0.0), seconds(0));
        assert_eq!(spread(Backoff::Full, 0.5), seconds(10));
        assert_eq!(spread(Backoff::Equal, 0.0), seconds(10));
        assert_eq!(spread(Backoff::Equal, 1.0), seconds(20));
        assert_eq!(spread(Backoff::Exponential, 0.0), seconds(20));
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let policy = RetryPolicy::default();
        let judged = |outcome| policy.judge(&outcome, 1, 0.0);
        for settled in [200, 202, 301, 400, 404, 501] {
            assert_eq!(judged(status(settled)), Verdict::Settled, "{settled}");
        }
        for again in CODES_AGAIN {
            assert_eq!(judged(status(again)), seconds(10), "{again}");
        }
        assert_eq!(judged(Outcome::default()), seconds(10), "no answer at all");
        let internal =
            |status| Outcome { status: Some(status), is_internal: true, retry_after: None };
        assert_eq!(judged(internal(404)), seconds(10));
        assert_eq!(judged(internal(200)), Verdict::Settled);
        for refused in [401, 403] {
            assert_eq!(judged(internal(refused)), Verdict::Settled, "{refused}");
        }
    }

    #[test]
    fn what_the_function_asks_for_is_granted_above_the_first_wait() {
        let policy = RetryPolicy::default();
        let asks = |code, asked| {
            let retry_after = Some(Duration::from_secs(asked));
            policy.judge(&Outcome { retry_after, ..status(code) }, 1, 0.0)
        };
        assert_eq!(asks(429, 30), seconds(30));
        assert_eq!(asks(503, 500), seconds(500), "also above the longest of ours");
        assert_eq!(asks(503, 1), seconds(10));
        assert_eq!(asks(500, 30), seconds(10), "on 429 and 503 alone");
        assert_eq!(asks(503, u64::MAX), Verdict::Again(DELIVERY_WAIT_MAX));
    }

    #[test]
    fn annotations_change_the_policy_and_invalid_ones_do_not() {
        let all = policy(&[
            ("attempts", "3"),
            ("codes", "418, 500"),
            ("min_wait", "2s"),
            ("max_wait", "1m"),
        ]);
        assert_eq!((all.attempts, &all.codes[..]), (3, &[418, 500][..]));
        assert_eq!((all.min_wait.as_secs(), all.max_wait.as_secs()), (2, 60));
        for invalid in [
            ("attempts", "-1"),
            ("attempts", "1001"),
            ("attempts", "many"),
            ("codes", "500,x"),
            ("codes", "99"),
            ("codes", ""),
            ("min_wait", "0"),
            ("min_wait", "soon"),
            ("max_wait", "-3s"),
        ] {
            assert_eq!(policy(&[invalid]), RetryPolicy::default(), "{invalid:?}");
            let said = faults(&[invalid]);
            assert!(said.len() == 1 && said[0].contains(invalid.0), "{invalid:?}: {said:?}");
        }
        assert_eq!(policy(&[("attempts", "0")]).attempts, 1, "no retry");
        let valid =
            [("attempts", "0"), ("codes", "418, 500"), ("min_wait", "2s"), ("max_wait", "90")];
        assert!(faults(&valid).is_empty());
        let long = policy(&[("min_wait", "10m")]);
        assert_eq!((long.min_wait, long.max_wait), (Duration::from_secs(600), long.min_wait));
        assert_eq!(RetryPolicy::default().with(None), RetryPolicy::default());
    }
}
