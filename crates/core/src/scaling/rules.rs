//! What a function's labels say about its scaling (contract sections 9 and 10).

use std::time::Duration;

use crate::{duration, limits, spec::unfit, wire::Map};

/// Label: how its load is measured.
pub const LABEL_TYPE: &str = "com.openfaas.scale.type";
/// Label: load of one replica.
pub const LABEL_TARGET: &str = "com.openfaas.scale.target";
/// Label: the part of that load which a replica is given.
pub const LABEL_PROPORTION: &str = "com.openfaas.scale.target-proportion";
/// Label: for how long a higher number of replicas is kept.
pub const LABEL_DOWN_WINDOW: &str = "com.openfaas.scale.down.window";
/// Label: how many replicas an alert adds, in percent of the most.
pub const LABEL_FACTOR: &str = "com.openfaas.scale.factor";

/// How the load of a function is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Measure {
    /// Not at all: no label speaks of load.
    #[default]
    Nothing,
    /// Only whether it is called often, as an alert of OpenFaaS's community edition does.
    Busy,
    /// Calls per second.
    Rps,
    /// Calls under way.
    Capacity,
    /// Thousandths of a processor.
    Cpu,
}

impl Measure {
    /// Its name on the wire, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::Busy => None,
            Self::Rps => Some("rps"),
            Self::Capacity => Some("capacity"),
            Self::Cpu => Some("cpu"),
        }
    }
}

/// How a function follows its load.
///
/// A function that names a type or a target is scaled by that; without a type it is `rps`. One that names no
/// more than a maximum is scaled as the community edition's alert would have it. One that says nothing keeps
/// its replicas: on one host another replica brings a function that takes any number of calls at once no more
/// than the memory that it costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Rules {
    /// What is measured.
    pub measure: Measure,
    /// Load of one replica, in the measure's unit. Above 0.
    pub target: f64,
    /// The part of it that a replica is given. Above 0, at most 1.
    pub proportion: f64,
    /// For how long the highest recommendation holds; zero for not at all.
    pub down_window: Duration,
    /// Replicas that an alert adds, in percent of the most; 0 for none.
    pub factor_percent: u32,
    /// The name of a type that is not known here.
    pub unknown_type: Option<String>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            measure: Measure::default(),
            target: limits::SCALE_TARGET_DEFAULT,
            proportion: limits::SCALE_PROPORTION_DEFAULT,
            down_window: Duration::ZERO,
            factor_percent: limits::SCALE_FACTOR_PERCENT_DEFAULT,
            unknown_type: None,
        }
    }
}

impl Rules {
    /// Reads the labels. What is wrong with them goes to `faults`; `names_max` is whether a maximum is named.
    pub fn read(labels: Option<&Map>, names_max: bool, faults: &mut Vec<String>) -> Self {
        let label = |name: &str| labels.and_then(|labels| labels.get(name)).map(String::as_str);
        let mut number = |name: &'static str, default: f64, most: f64, must: &str| {
            let Some(text) = label(name) else { return default };
            let number = text.parse::<f64>().ok().filter(|n| *n > 0.0 && *n <= most);
            number.unwrap_or_else(|| {
                faults.push(unfit("labels", name, text, must));
                default
            })
        };
        let target = number(
            LABEL_TARGET,
            limits::SCALE_TARGET_DEFAULT,
            f64::MAX,
            "must be a number above 0: the load of one replica",
        );
        let proportion = number(
            LABEL_PROPORTION,
            limits::SCALE_PROPORTION_DEFAULT,
            1.0,
            "must be a number above 0 and at most 1",
        );
        let down_window = label(LABEL_DOWN_WINDOW).map_or(Duration::ZERO, |text| {
            let window = duration::parse_go(text);
            window.filter(|window| *window <= limits::SCALE_DOWN_WINDOW_MAX).unwrap_or_else(|| {
                let must = "must be a duration such as 30s, at most 5m";
                faults.push(unfit("labels", LABEL_DOWN_WINDOW, text, must));
                Duration::ZERO
            })
        });
        // Unlike ours, a factor that makes no sense is not refused: OpenFaaS takes the default.
        let factor = label(LABEL_FACTOR).and_then(|text| text.parse().ok());
        let factor_percent = factor.filter(|percent| *percent <= 100);
        let measure = match label(LABEL_TYPE) {
            Some("rps") => Measure::Rps,
            Some("capacity") => Measure::Capacity,
            Some("cpu") => Measure::Cpu,
            Some(_) => Measure::Nothing,
            None if label(LABEL_TARGET).is_some() => Measure::Rps,
            None if names_max => Measure::Busy,
            None => Measure::Nothing,
        };
        let unknown = label(LABEL_TYPE).filter(|_| measure == Measure::Nothing);
        Self {
            measure,
            target,
            proportion,
            down_window,
            factor_percent: factor_percent.unwrap_or(limits::SCALE_FACTOR_PERCENT_DEFAULT),
            unknown_type: unknown.map(ToOwned::to_owned),
        }
    }

    /// What of the labels has no effect, as a sentence.
    #[must_use]
    pub fn ineffective(&self) -> Option<String> {
        let name = crate::image::shown(self.unknown_type.as_deref()?);
        Some(format!(
            "its label {LABEL_TYPE} is {name:?}, which is not measured here: its load does not change its \
             replicas; rps, capacity and cpu are measured"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)], names_max: bool) -> (Rules, Vec<String>) {
        let labels = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let mut faults = Vec::new();
        let rules = Rules::read(Some(&labels), names_max, &mut faults);
        (rules, faults)
    }

    #[test]
    fn labels_choose_the_measure() {
        let measure = |pairs: &[(&str, &str)], names_max| read(pairs, names_max).0.measure;
        assert_eq!(measure(&[], false), Measure::Nothing);
        assert_eq!(measure(&[], true), Measure::Busy);
        assert_eq!(measure(&[(LABEL_TARGET, "10")], true), Measure::Rps);
        assert_eq!(measure(&[(LABEL_TYPE, "capacity")], false), Measure::Capacity);
        assert_eq!(measure(&[(LABEL_TYPE, "cpu")], false), Measure::Cpu);
        let (rules, faults) = read(&[(LABEL_TYPE, "mq_depth")], true);
        assert_eq!((rules.measure, faults.len()), (Measure::Nothing, 0));
        assert!(rules.ineffective().unwrap().contains("\"mq_depth\""));
        assert_eq!(Rules::default().ineffective(), None);
    }

    #[test]
    fn values_have_defaults_and_bounds() {
        let (rules, _) = read(&[], false);
        assert_eq!((rules.target, rules.proportion), (50.0, 0.9));
        assert_eq!((rules.down_window, rules.factor_percent), (Duration::ZERO, 20));
        let (rules, faults) = read(
            &[
                (LABEL_TARGET, "2.5"),
                (LABEL_PROPORTION, "1"),
                (LABEL_DOWN_WINDOW, "1m30s"),
                (LABEL_FACTOR, "0"),
            ],
            false,
        );
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!((rules.target, rules.proportion), (2.5, 1.0));
        assert_eq!((rules.down_window, rules.factor_percent), (Duration::from_secs(90), 0));
    }

    #[test]
    fn what_makes_no_sense_is_a_fault_but_for_the_factor() {
        for text in ["", "0", "-1", "NaN", "inf", "many"] {
            let (_, faults) = read(&[(LABEL_TARGET, text)], false);
            assert!(faults[0].contains("must be a number above 0"), "{text}: {faults:?}");
        }
        for text in ["0", "1.1", "90%"] {
            assert_eq!(read(&[(LABEL_PROPORTION, text)], false).1.len(), 1, "{text}");
        }
        for text in ["", "5m1s", "30", "-1s"] {
            let (_, faults) = read(&[(LABEL_DOWN_WINDOW, text)], false);
            assert!(faults[0].contains("at most 5m"), "{text}: {faults:?}");
        }
        for text in ["", "101", "-1", "x"] {
            let (rules, faults) = read(&[(LABEL_FACTOR, text)], false);
            assert_eq!((rules.factor_percent, faults.len()), (20, 0), "{text}");
        }
    }
}
