//! Loads that rise and fall, told every five seconds.

use super::*;
use crate::{spec::FunctionSpec, wire::FunctionDeployment};

const TICK: Duration = Duration::from_secs(5);

/// A function under a load.
struct Bench {
    now: Instant,
    scale: Scale,
    concurrency: Option<u32>,
    scaling: Scaling,
    counted: Sample,
    wanted: u32,
    floor: u32,
}

fn scale(labels: &str) -> Scale {
    let json = format!(r#"{{"service":"a","image":"b","labels":{labels}}}"#);
    let deployment: FunctionDeployment = serde_json::from_str(&json).unwrap();
    FunctionSpec::check(deployment).unwrap().scale
}

impl Bench {
    fn new(labels: &str) -> Self {
        let (now, scale) = (Instant::now(), scale(labels));
        let scaling = Scaling::new(now, Sample::default(), &scale);
        let wanted = scale.min;
        let counted = Sample::default();
        Self { now, scale, concurrency: None, scaling, counted, wanted, floor: 0 }
    }

    /// Lets so many ticks pass with so many calls and milliseconds of processor time each, and so many calls
    /// under way at each; gives the numbers of replicas after them.
    fn run(&mut self, ticks: usize, calls: u64, in_flight: u32, cpu_ms: u64) -> Vec<u32> {
        (0..ticks)
            .map(|_| {
                self.now += TICK;
                self.counted.started += calls;
                self.counted.succeeded += calls;
                self.counted.in_flight = in_flight;
                self.counted.cpu_ns += cpu_ms * 1_000_000;
                self.scaling.observe(self.now, self.counted);
                let decided = self.scaling.decide(
                    self.now,
                    &self.scale,
                    self.concurrency,
                    self.floor,
                    self.wanted,
                );
                self.wanted = decided.unwrap_or(self.wanted);
                self.wanted
            })
            .collect()
    }
}

#[test]
fn calls_per_second_are_counted_over_thirty_seconds() {
    let mut bench = Bench::new(r#"{"com.openfaas.scale.type":"rps"}"#);
    // 90 calls per second: two times 45.
    assert_eq!(bench.run(8, 450, 1, 0), [1, 1, 1, 2, 2, 2, 2, 2]);
    assert_eq!(bench.run(1, 451, 1, 0), [3], "one more is too many for two");
    let fallen = bench.run(7, 0, 0, 0);
    assert_eq!(fallen.last(), Some(&1));
    assert!(fallen.windows(2).all(|pair| pair[0] >= pair[1]), "{fallen:?}");
}

#[test]
fn calls_under_way_count_for_forty_five_seconds() {
    let mut bench =
        Bench::new(r#"{"com.openfaas.scale.type":"capacity","com.openfaas.scale.target":"10"}"#);
    assert_eq!(bench.run(1, 30, 30, 0), [4], "at once");
    assert_eq!(bench.run(9, 0, 1, 0), [4, 4, 4, 4, 4, 4, 4, 4, 1]);
}

#[test]
fn processor_time_is_counted_over_a_minute() {
    let mut bench = Bench::new(
        r#"{"com.openfaas.scale.type":"cpu","com.openfaas.scale.target":"500",
            "com.openfaas.scale.target-proportion":"1"}"#,
    );
    // 1,200 thousandths of a processor.
    assert_eq!(bench.run(12, 1, 1, 6000).last(), Some(&3));
    assert_eq!(bench.run(12, 1, 1, 100).last(), Some(&1));
}

#[test]
fn replicas_stay_between_least_and_most_and_never_fall_to_none() {
    let mut bench = Bench::new(
        r#"{"com.openfaas.scale.type":"rps","com.openfaas.scale.target":"1",
            "com.openfaas.scale.min":"2","com.openfaas.scale.max":"5"}"#,
    );
    assert_eq!(bench.run(6, 10_000, 9, 0).last(), Some(&5));
    assert_eq!(bench.run(12, 0, 0, 0).last(), Some(&2));
    bench.wanted = 0;
    assert_eq!(bench.run(6, 10_000, 9, 0), [0; 6], "a function at zero is woken by its calls");
}

#[test]
fn the_same_least_and_most_is_no_scaling() {
    let mut bench = Bench::new(
        r#"{"com.openfaas.scale.type":"rps","com.openfaas.scale.min":"2","com.openfaas.scale.max":"2"}"#,
    );
    bench.wanted = 1;
    assert_eq!(bench.run(10, 10_000, 9, 0), [1; 10]);
}

#[test]
fn within_the_window_the_highest_recommendation_holds() {
    let mut bench = Bench::new(
        r#"{"com.openfaas.scale.type":"capacity","com.openfaas.scale.target":"10",
            "com.openfaas.scale.down.window":"1m"}"#,
    );
    bench.run(1, 1, 30, 0);
    // 45 s that the peak counts, then a minute.
    let held = bench.run(20, 0, 0, 0);
    assert_eq!(held.iter().filter(|replicas| **replicas == 4).count(), 19, "{held:?}");
    assert_eq!(held.last(), Some(&1));
    assert!(!bench.scaling.is_at_rest(bench.now, &bench.scale));
    bench.run(4, 0, 0, 0);
    assert!(bench.scaling.is_at_rest(bench.now, &bench.scale));
}

#[test]
fn a_number_set_by_hand_holds_until_the_load_asks_for_another() {
    let mut bench =
        Bench::new(r#"{"com.openfaas.scale.type":"capacity","com.openfaas.scale.target":"10"}"#);
    bench.wanted = 5;
    assert_eq!(bench.run(3, 1, 1, 0), [5, 5, 5], "few calls were there before too");
    assert_eq!(bench.run(1, 1, 30, 0), [5], "more, but five can do it");
    assert_eq!(bench.run(1, 1, 60, 0), [7]);
    bench.wanted = 2;
    assert_eq!(bench.run(1, 1, 60, 0), [7], "the load asks for seven");
    bench.wanted = 9;
    assert_eq!(bench.run(9, 1, 1, 0).last(), Some(&1), "and then for one");
}

#[test]
fn a_busy_function_that_names_a_maximum_climbs_in_steps_and_falls_at_once() {
    let mut bench = Bench::new(r#"{"com.openfaas.scale.max":"10"}"#);
    // 10 calls per second, the load of OpenFaaS's certifier.
    let climbed = bench.run(14, 50, 1, 0);
    assert_eq!(climbed, [1, 1, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 5]);
    assert_eq!(bench.run(2, 0, 1, 0), [1, 1]);
    assert_eq!(bench.run(12, 25, 1, 0), [1; 12], "five calls per second are not often");
}

#[test]
fn without_labels_the_load_changes_nothing() {
    let mut bench = Bench::new("{}");
    bench.wanted = 3;
    assert_eq!(bench.run(20, 100_000, 50, 9000), [3; 20]);
    let mut bench =
        Bench::new(r#"{"com.openfaas.scale.type":"my_rule","com.openfaas.scale.max":"9"}"#);
    assert_eq!(bench.run(20, 100_000, 50, 9000), [1; 20]);
}

#[test]
fn replicas_that_full_ones_asked_for_stay_while_they_are_needed() {
    let mut bench = Bench::new("{}");
    bench.concurrency = Some(2);
    bench.scaling.crowded(bench.now, 4);
    bench.wanted = 4;
    // The crowd was too short to be seen in any sample.
    assert_eq!(bench.run(8, 8, 0, 0), [4; 8]);
    assert_eq!(bench.run(1, 0, 0, 0), [1]);
    assert_eq!(bench.run(1, 5, 5, 0), [3]);
    assert_eq!(bench.run(20, 5, 5, 0), [3; 20]);
}

#[test]
fn an_alert_is_a_floor() {
    let mut bench =
        Bench::new(r#"{"com.openfaas.scale.type":"rps","com.openfaas.scale.max":"10"}"#);
    bench.floor = on_alert(&bench.scale, 1, true);
    bench.wanted = bench.floor;
    assert_eq!(bench.run(6, 1, 1, 0), [3; 6]);
    bench.floor = 0;
    assert_eq!(bench.run(1, 1, 1, 0), [1]);
}

#[test]
fn alerts_add_a_step_and_their_end_asks_for_the_least() {
    let with = |labels: &str, wanted, firing| on_alert(&scale(labels), wanted, firing);
    assert_eq!(with("{}", 1, true), 5);
    assert_eq!(with("{}", 19, true), 20);
    assert_eq!(with("{}", 19, false), 1);
    assert_eq!(with(r#"{"com.openfaas.scale.max":"2"}"#, 1, true), 2);
    assert_eq!(
        with(r#"{"com.openfaas.scale.max":"7","com.openfaas.scale.factor":"50"}"#, 1, true),
        5
    );
    let none = r#"{"com.openfaas.scale.factor":"0","com.openfaas.scale.min":"2"}"#;
    assert_eq!(with(none, 3, true), 2);
    let fixed = r#"{"com.openfaas.scale.min":"3","com.openfaas.scale.max":"3"}"#;
    assert_eq!((with(fixed, 3, true), with(fixed, 3, false)), (3, 3));
}
