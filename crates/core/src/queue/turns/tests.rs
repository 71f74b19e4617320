use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use proptest::prelude::*;

use super::*;

fn call(function: &str, id: &str) -> Queued {
    Queued { function: FunctionRef::new(function, "").unwrap(), id: id.into(), bytes: 10 }
}

fn queue(in_flight_max: usize) -> Queue {
    Queue::new(in_flight_max, 100, 1000)
}

fn many(_: &FunctionRef) -> usize {
    usize::MAX
}

/// Leases all there is.
fn leased(queue: &mut Queue, now: Instant) -> Vec<u64> {
    std::iter::from_fn(|| queue.lease(now, many)).collect()
}

#[test]
fn calls_of_a_function_go_in_order_and_functions_take_turns() {
    let (mut queue, now) = (queue(100), Instant::now());
    for (number, function) in ["a", "a", "a", "b", "b", "c"].iter().enumerate() {
        queue.add(number as u64, call(function, "x"), None);
    }
    assert_eq!(leased(&mut queue, now), [0, 3, 5, 1, 4, 2]);
    assert_eq!((queue.len(), queue.in_flight()), (6, 6));
    (0..6).for_each(|number| queue.end(number));
    assert_eq!((queue.len(), queue.in_flight(), queue.bytes()), (0, 0, 0));
    assert!(queue.lines.is_empty());
}

#[test]
fn a_number_stands_for_one_call() {
    let (mut queue, now) = (queue(10), Instant::now());
    assert!(queue.add(1, call("a", "x"), None));
    assert_eq!(leased(&mut queue, now), [1]);
    assert!(!queue.add(1, call("a", "x"), None), "it has not ended yet");
    assert_eq!((queue.len(), queue.in_flight()), (1, 1));
    queue.end(1);
    assert!(queue.add(1, call("a", "x"), None));
}

#[test]
fn all_calls_of_a_function_are_cancelled_and_no_others() {
    let (mut queue, now) = (queue(10), Instant::now());
    (0..4).for_each(|number| assert!(queue.add(number, call("a", "x"), None)));
    queue.add(4, call("a", "x"), Some(now + Duration::from_secs(1)));
    queue.add(5, call("b", "x"), None);
    assert_eq!(queue.lease(now, many), Some(0));
    let mut found = queue.cancel_all(&call("a", "x").function);
    found.sort_by_key(|call| call.number);
    let numbers: Vec<_> = found.iter().map(|call| call.number).collect();
    assert_eq!((numbers, found[0].stage), (vec![0, 1, 2, 3, 4], Stage::InFlight));
    // The one under way is ended by whoever delivers it.
    assert_eq!((queue.len(), queue.in_flight(), queue.next_due()), (2, 1, None));
    queue.end(0);
    assert_eq!(leased(&mut queue, now + Duration::from_secs(2)), [5]);
    queue.end(5);
    assert_eq!((queue.len(), queue.bytes(), queue.lines.is_empty()), (0, 0, true));
}

#[test]
fn a_slow_function_leaves_places_to_others() {
    let (mut queue, now) = (queue(10), Instant::now());
    (0..50).for_each(|number| assert!(queue.add(number, call("slow", "x"), None)));
    assert_eq!(leased(&mut queue, now).len(), 5, "half of all");
    (50..80).for_each(|number| assert!(queue.add(number, call("other", "x"), None)));
    let others = leased(&mut queue, now);
    assert_eq!(others.len(), 3, "half of what is left, rounded up");
    queue.add(90, call("third", "x"), None);
    assert_eq!(queue.lease(now, many), Some(90), "a newcomer waits for nobody");
    // As the others end, those that had their share go on.
    others.iter().for_each(|number| queue.end(*number));
    assert!(!leased(&mut queue, now).is_empty());
}

#[test]
fn however_many_functions_are_slow_the_next_has_its_first() {
    let (mut queue, now) = (queue(16), Instant::now());
    let names: Vec<String> = (0..9).map(|at| format!("slow-{at}")).collect();
    for number in 0..9 * 16 {
        queue.add(number, call(&names[number as usize % 9], "x"), None);
    }
    assert!(leased(&mut queue, now).len() > 9);
    for number in 500..516 {
        queue.add(number, call(&format!("next-{}", number / 2), "x"), None);
    }
    assert_eq!(leased(&mut queue, now), (500..516).step_by(2).collect::<Vec<_>>());
    assert!(queue.in_flight() > 16);
    queue.end(500);
    assert_eq!(leased(&mut queue, now), [501], "its second came after its first");
}

#[test]
fn a_function_leaves_as_much_room_as_it_takes() {
    let mut queue = Queue::new(1, 8, 1000);
    let of = |name: &str| FunctionRef::new(name, "").unwrap();
    for number in 0..4 {
        assert_eq!(queue.reserve(&of("a"), 0), Ok(()));
        queue.unreserve(0);
        queue.add(number, call("a", "x"), None);
    }
    assert_eq!(queue.reserve(&of("a"), 0), Err(Full::Function));
    assert_eq!(queue.reserve(&of("b"), 0), Ok(()));
}

#[test]
fn a_function_has_no_more_under_way_than_it_has_places() {
    let (mut queue, now) = (queue(100), Instant::now());
    (0..5).for_each(|number| assert!(queue.add(number, call("a", "x"), None)));
    assert_eq!(queue.lease(now, |_| 2), Some(0));
    assert_eq!(queue.lease(now, |_| 2), Some(1));
    assert_eq!(queue.lease(now, |_| 2), None);
    queue.end(1);
    assert_eq!(queue.lease(now, |_| 2), Some(2));
    queue.end(0);
    queue.end(2);
    assert_eq!(queue.lease(now, |_| 0), Some(3), "one is always tried");
    assert_eq!(queue.lease(now, |_| 0), None);
}

#[test]
fn what_is_put_back_waits_for_its_time() {
    let (mut queue, now) = (queue(100), Instant::now());
    queue.add(1, call("a", "x"), None);
    assert_eq!(leased(&mut queue, now), [1]);
    let due = now + Duration::from_secs(10);
    queue.put_back(1, due);
    assert_eq!((queue.next_due(), queue.in_flight()), (Some(due), 0));
    assert_eq!(queue.lease(due - Duration::from_millis(1), many), None);
    assert_eq!(queue.lease(due, many), Some(1));
    assert_eq!(queue.next_due(), None);
    queue.add(2, call("a", "x"), Some(due));
    assert_eq!(queue.stage(2), Some(Stage::Later(due)));
}

#[test]
fn calls_are_cancelled_by_their_id_wherever_they_stand() {
    let (mut queue, now) = (queue(100), Instant::now());
    queue.add(1, call("a", "x"), None);
    queue.add(2, call("a", "x"), Some(now + Duration::from_secs(1)));
    queue.add(3, call("b", "y"), None);
    queue.add(4, call("a", "x"), None);
    assert_eq!(queue.lease(now, many), Some(1));
    assert_eq!(queue.cancel("z"), []);
    let stages: Vec<_> = queue.cancel("x").iter().map(|found| found.stage).collect();
    assert_eq!(stages, [Stage::InFlight, Stage::Later(now + Duration::from_secs(1)), Stage::Due]);
    assert_eq!(queue.find("x").len(), 1, "whoever delivers it ends it");
    queue.end(1);
    assert_eq!(leased(&mut queue, now), [3]);
    assert_eq!((queue.next_due(), queue.len()), (None, 1));
}

#[test]
fn room_is_kept_and_given_back() {
    let mut queue = Queue::new(1, 2, 25);
    let a = FunctionRef::new("a", "").unwrap();
    assert_eq!(queue.reserve(&a, 10), Ok(()));
    assert_eq!(queue.reserve(&a, 16), Err(Full::Bytes));
    assert_eq!(queue.reserve(&a, 15), Ok(()));
    assert_eq!(queue.reserve(&a, 0), Err(Full::Calls));
    queue.unreserve(15);
    queue.unreserve(10);
    queue.add(1, call("a", "x"), None);
    assert_eq!(queue.reserve(&a, 16), Err(Full::Bytes));
    assert_eq!(queue.reserve(&a, 1), Err(Full::Function), "one is there, and one is left");
    queue.cancel("x");
    assert_eq!(queue.reserve(&a, 25), Ok(()));
}

#[derive(Clone, Debug)]
enum Event {
    Add(u8, bool),
    Lease,
    End(usize),
    PutBack(usize, u8),
    Cancel(usize),
    Pass(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..4u8, any::<bool>()).prop_map(|(function, later)| Event::Add(function, later)),
        Just(Event::Lease),
        Just(Event::Lease),
        any::<usize>().prop_map(Event::End),
        (any::<usize>(), 0..20u8).prop_map(|(which, seconds)| Event::PutBack(which, seconds)),
        any::<usize>().prop_map(Event::Cancel),
        (0..20u8).prop_map(Event::Pass),
    ]
}

const IN_FLIGHT_MAX: usize = 6;

proptest! {
    /// Whatever happens: no call is lost, none is under way twice, bounds hold, and in the end all are
    /// delivered.
    #[test]
    fn nothing_is_lost_and_nothing_runs_twice(events in prop::collection::vec(event(), 0..200)) {
        let mut queue = Queue::new(IN_FLIGHT_MAX, 1000, 100_000);
        let (mut now, mut next) = (Instant::now(), 0);
        let mut alive = HashMap::new();
        let mut under_way = Vec::new();
        let places = |function: &FunctionRef| if function.name() == "f0" { 1 } else { 4 };
        for event in events {
            match event {
                Event::Add(function, later) => {
                    let due = later.then(|| now + Duration::from_secs(7));
                    let name = format!("f{function}");
                    queue.add(next, call(&name, &next.to_string()), due);
                    alive.insert(next, name);
                    next += 1;
                }
                Event::Lease => {
                    let is_full = under_way.len() >= IN_FLIGHT_MAX;
                    if let Some(number) = queue.lease(now, places) {
                        prop_assert!(alive.contains_key(&number));
                        let name = &alive[&number];
                        let is_first = !under_way.iter().any(|n| alive[n] == *name);
                        prop_assert!(is_first || !is_full, "only a first goes beyond the bound");
                        prop_assert!(!under_way.contains(&number));
                        under_way.push(number);
                    } else {
                        // Nothing is kept from delivery but by a bound.
                        let busy: HashSet<_> = under_way.iter().map(|n| alive[n].clone()).collect();
                        let idle = alive.iter().any(|(number, name)| {
                            queue.stage(*number) == Some(Stage::Due) && !busy.contains(name)
                        });
                        prop_assert!(!idle || under_way.len() >= 2 * IN_FLIGHT_MAX);
                    }
                }
                Event::End(which) if !under_way.is_empty() => {
                    let number = under_way.swap_remove(which % under_way.len());
                    queue.end(number);
                    alive.remove(&number);
                }
                Event::PutBack(which, seconds) if !under_way.is_empty() => {
                    let number = under_way.swap_remove(which % under_way.len());
                    queue.put_back(number, now + Duration::from_secs(seconds.into()));
                }
                Event::Cancel(which) if next > 0 => {
                    let number = which as u64 % next;
                    let found = queue.cancel(&number.to_string());
                    prop_assert_eq!(!found.is_empty(), alive.contains_key(&number));
                    if !under_way.contains(&number) {
                        alive.remove(&number);
                    }
                }
                Event::Pass(seconds) => now += Duration::from_secs(seconds.into()),
                Event::End(_) | Event::PutBack(..) | Event::Cancel(_) => {}
            }
            prop_assert_eq!(queue.len(), alive.len());
            prop_assert_eq!(queue.in_flight(), under_way.len());
            prop_assert_eq!(queue.bytes(), 10 * alive.len() as u64);
            prop_assert!(queue.in_flight() <= 2 * IN_FLIGHT_MAX);
            let counted: usize = queue.counts().map(|c| c.waiting + c.in_flight).sum();
            prop_assert_eq!(counted, alive.len());
        }
        let later = now + Duration::from_secs(60);
        let mut rounds = 0;
        while !queue.is_empty() {
            for number in std::mem::take(&mut under_way) {
                queue.end(number);
                alive.remove(&number);
            }
            under_way = std::iter::from_fn(|| queue.lease(later, places)).collect();
            rounds += 1;
            prop_assert!(rounds < 1000, "{} calls stand still", queue.len());
        }
        // A function whose calls were all cancelled is forgotten when its turn comes.
        prop_assert_eq!(queue.lease(later, places), None);
        prop_assert!(alive.is_empty() && queue.lines.is_empty() && queue.later.is_empty());
    }
}
