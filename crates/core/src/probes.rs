//! How a function's replicas are asked whether they are ready and healthy (contract section 9).
//!
//! Only a function whose annotations name a path is asked. A replica counts as ready once it has answered at
//! its path of readiness, and no longer while it does not; one that does not answer at its path of health is
//! replaced.

use std::time::Duration;

use crate::{duration, limits, spec::unfit, wire::Map};

const HEALTH: &str = "com.openfaas.health.http";
const READY: &str = "com.openfaas.ready.http";

/// Questions to each replica of a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probes {
    /// Whether it is healthy.
    pub health: Option<Probe>,
    /// Whether it may be called.
    pub ready: Option<Probe>,
}

/// One question, asked over HTTP by GET again and again. 200 to 399 is yes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Where.
    pub path: String,
    /// Wait before the first.
    pub initial_delay: Duration,
    /// Between two.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Noes in a row until it is no.
    pub failure_threshold: u32,
    /// Yeses in a row until it is yes.
    pub success_threshold: u32,
}

impl Probes {
    /// Reads the annotations. What is wrong with them goes to `faults`.
    pub fn read(annotations: Option<&Map>, faults: &mut Vec<String>) -> Self {
        let health = Probe::read(annotations, HEALTH, faults);
        Self { health, ready: Probe::read(annotations, READY, faults) }
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.health.is_none() && self.ready.is_none()
    }
}

impl Probe {
    fn read(annotations: Option<&Map>, prefix: &str, faults: &mut Vec<String>) -> Option<Self> {
        let name = |field: &str| format!("{prefix}.{field}");
        let text = |field: &str| annotations?.get(&name(field)).map(String::as_str);
        let path = text("path")?;
        if !path.starts_with('/') || path.bytes().any(|byte| !byte.is_ascii_graphic()) {
            let must = "must be the path of a URL, such as /_/health";
            faults.push(unfit("annotations", &name("path"), path, must));
        }
        let mut time = |field: &str, default: u64| {
            // The older form, without `Seconds`, is a Go duration.
            let older = field.trim_end_matches("Seconds");
            let found = text(field).map(|text| (field, text));
            let Some((field, text)) = found.or_else(|| text(older).map(|text| (older, text)))
            else {
                return Duration::from_secs(default);
            };
            let time = duration::parse_seconds_or_go(text);
            time.filter(|time| *time <= limits::PROBE_TIME_MAX).unwrap_or_else(|| {
                let must = "must be a number of seconds, or a duration such as 30s, at most 1h";
                faults.push(unfit("annotations", &name(field), text, must));
                Duration::from_secs(default)
            })
        };
        let initial_delay = time("initialDelaySeconds", 2);
        let mut at_least = |field, default| time(field, default).max(Duration::from_millis(100));
        let period = at_least("periodSeconds", 2);
        let timeout = at_least("timeoutSeconds", 1);
        let mut count = |field: &str, default: u32| {
            let Some(text) = text(field) else { return default };
            text.parse().ok().filter(|count| *count > 0).unwrap_or_else(|| {
                faults.push(unfit("annotations", &name(field), text, "must be a number from 1"));
                default
            })
        };
        let failure_threshold = count("failureThreshold", 3);
        // Kubernetes knows no other number for health.
        let success_threshold = if prefix == READY { count("successThreshold", 1) } else { 1 };
        let path = path.to_owned();
        Some(Self { path, initial_delay, period, timeout, failure_threshold, success_threshold })
    }
}

/// What the answers to one question amount to.
#[derive(Clone, Debug)]
pub struct Verdicts {
    failure_threshold: u32,
    success_threshold: u32,
    in_a_row: u32,
    last: bool,
    stands: bool,
}

impl Verdicts {
    /// A question whose answer is taken to be `yes` or no until the answers say otherwise.
    #[must_use]
    pub fn new(probe: &Probe, yes: bool) -> Self {
        let Probe { failure_threshold, success_threshold, .. } = *probe;
        Self { failure_threshold, success_threshold, in_a_row: 0, last: yes, stands: yes }
    }

    /// One more answer. What stands from now on, if that is a change.
    pub fn hear(&mut self, yes: bool) -> Option<bool> {
        self.in_a_row = if self.last == yes { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = yes;
        let threshold = if yes { self.success_threshold } else { self.failure_threshold };
        if yes == self.stands || self.in_a_row < threshold {
            return None;
        }
        self.stands = yes;
        Some(yes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Probes, Vec<String>) {
        let annotations = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut faults = Vec::new();
        (Probes::read(Some(&annotations), &mut faults), faults)
    }

    #[test]
    fn nothing_is_asked_without_a_path() {
        assert!(Probes::read(None, &mut Vec::new()).is_empty());
        let (probes, faults) = read(&[("com.openfaas.health.http.periodSeconds", "5")]);
        assert!(probes.is_empty() && faults.is_empty());
    }

    #[test]
    fn defaults_and_both_spellings() {
        let (probes, faults) = read(&[
            ("com.openfaas.health.http.path", "/healthz"),
            ("com.openfaas.health.http.initialDelay", "30s"),
            ("com.openfaas.ready.http.path", "/_/ready"),
            ("com.openfaas.ready.http.initialDelaySeconds", "0"),
            ("com.openfaas.ready.http.periodSeconds", "5"),
            ("com.openfaas.ready.http.successThreshold", "2"),
        ]);
        assert!(faults.is_empty(), "{faults:?}");
        let health = probes.health.unwrap();
        assert_eq!(health.path, "/healthz");
        let seconds = Duration::from_secs;
        assert_eq!((health.initial_delay, health.period), (seconds(30), seconds(2)));
        assert_eq!((health.timeout, health.failure_threshold), (seconds(1), 3));
        let ready = probes.ready.unwrap();
        assert_eq!((ready.initial_delay, ready.period), (Duration::ZERO, seconds(5)));
        assert_eq!(ready.success_threshold, 2);
    }

    #[test]
    fn what_makes_no_sense_is_a_fault() {
        for (field, text) in [
            ("path", "healthz"),
            ("path", "/a b"),
            ("periodSeconds", "often"),
            ("timeoutSeconds", "2h"),
            ("failureThreshold", "0"),
            ("initialDelay", "-1s"),
        ] {
            let name = format!("com.openfaas.ready.http.{field}");
            let (_, faults) = read(&[("com.openfaas.ready.http.path", "/"), (&name, text)]);
            let faults = if field == "path" { read(&[(&name, text)]).1 } else { faults };
            assert_eq!(faults.len(), 1, "{field}: {text}");
            assert!(faults[0].contains(&name), "{faults:?}");
        }
    }

    #[test]
    fn answers_count_in_a_row() {
        let (probes, _) = read(&[
            ("com.openfaas.ready.http.path", "/"),
            ("com.openfaas.ready.http.successThreshold", "2"),
        ]);
        let mut verdicts = Verdicts::new(&probes.ready.unwrap(), false);
        let heard: Vec<_> =
            [true, false, true, true, true, false, false, true, false, false, false]
                .into_iter()
                .map(|yes| verdicts.hear(yes))
                .collect();
        let mut expected = vec![None; 11];
        expected[3] = Some(true);
        expected[10] = Some(false);
        assert_eq!(heard, expected);
    }
}
