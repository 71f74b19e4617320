//! Which schedules are due: told the time, it answers with the calls to make.
//!
//! Each entry knows up to which due time it was called for. What was due while no server ran is made up for: all of it
//! if it was not long ago, else the last of it.

use std::collections::{BTreeMap, BTreeSet};

use super::Schedule;
use crate::{FunctionRef, limits};

/// One schedule of one function.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whom it calls.
    pub function: FunctionRef,
    /// When.
    pub schedule: Schedule,
    /// Unix time of the function's first deploy.
    pub since_s: i64,
    /// Up to which due time it was called for, in Unix time; for a new one, when it was first seen.
    pub done_s: i64,
}

/// A call that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Key of the entry.
    pub key: String,
    /// Whom to call.
    pub function: FunctionRef,
    /// What it was due by, in Unix time.
    pub due_s: i64,
    /// Whether there were due times before that nobody made up for.
    pub after_a_gap: bool,
}

/// All entries, by their keys.
#[derive(Debug, Default)]
pub struct Agenda {
    entries: BTreeMap<String, Planned>,
    /// When each entry is due next, but those whose calls are being made.
    order: BTreeSet<(i64, String)>,
    /// Entries whose calls are being made.
    told: BTreeSet<String>,
}

#[derive(Debug)]
struct Planned {
    entry: Entry,
    next_s: Option<i64>,
}

/// Whether a call was made for a time that is too far ahead to be true: the clock was set back since.
#[must_use]
pub fn is_ahead(done_s: i64, now_s: i64) -> bool {
    done_s > now_s.saturating_add(limits::SCHEDULE_AHEAD_MAX.as_secs().cast_signed())
}

impl Agenda {
    /// Has these entries from now on. One that was there before keeps how far it has come.
    pub fn set(&mut self, entries: BTreeMap<String, Entry>, now_s: i64) {
        let mut before = std::mem::take(&mut self.entries);
        self.order.clear();
        for (key, mut entry) in entries {
            if let Some(known) = before.remove(&key) {
                entry.done_s = entry.done_s.max(known.entry.done_s);
            }
            if is_ahead(entry.done_s, now_s) {
                entry.done_s = now_s;
            }
            self.plan(key, entry);
        }
        self.told.retain(|key| self.entries.contains_key(key));
    }

    /// When something is due next, in Unix time.
    #[must_use]
    pub fn next_s(&self) -> Option<i64> {
        self.order.first().map(|(next_s, _)| *next_s)
    }

    /// The calls that are due by now. Each is told once; an entry tells no others until its have been made, which it is
    /// to be told.
    pub fn due(&mut self, now_s: i64) -> Vec<Due> {
        let mut calls = Vec::new();
        while let Some((next_s, key)) =
            self.order.first().cloned().filter(|(next, _)| *next <= now_s)
        {
            self.order.remove(&(next_s, key.clone()));
            let Some(Planned { mut entry, .. }) = self.entries.remove(&key) else { continue };
            calls.extend(missed(&key, &entry, next_s, now_s));
            entry.done_s = now_s;
            self.told.insert(key.clone());
            self.plan(key, entry);
        }
        calls
    }

    /// The calls of an entry that were told have been made.
    pub fn made(&mut self, key: &str) {
        if !self.told.remove(key) {
            return;
        }
        if let Some(next_s) = self.entries.get(key).and_then(|planned| planned.next_s) {
            self.order.insert((next_s, key.to_owned()));
        }
    }

    /// Whether there is an entry of this key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Every entry, with when it is due next.
    pub fn entries(&self) -> impl Iterator<Item = (&Entry, Option<i64>)> {
        self.entries.values().map(|planned| (&planned.entry, planned.next_s))
    }

    fn plan(&mut self, key: String, entry: Entry) {
        let next_s = entry.schedule.next(entry.done_s, entry.since_s);
        if !self.told.contains(&key) {
            self.order.extend(next_s.map(|next_s| (next_s, key.clone())));
        }
        self.entries.insert(key, Planned { entry, next_s });
    }
}

/// The calls of one entry from `next_s` to `now_s`.
fn missed(key: &str, entry: &Entry, next_s: i64, now_s: i64) -> Vec<Due> {
    let Entry { function, schedule, since_s, .. } = entry;
    let call = |due_s, after_a_gap| {
        let (key, function) = (key.to_owned(), function.clone());
        Due { key, function, due_s, after_a_gap }
    };
    let from_s = now_s.saturating_sub(limits::SCHEDULE_LATE_MAX.as_secs().cast_signed());
    if next_s >= from_s {
        let times = std::iter::successors(Some(next_s), |time| schedule.next(*time, *since_s));
        return times.take_while(|time| *time <= now_s).map(|time| call(time, false)).collect();
    }
    let last = schedule.last(now_s, *since_s).unwrap_or(next_s);
    if last < from_s {
        return vec![call(last, last > next_s)];
    }
    let first = schedule.next(from_s - 1, *since_s).unwrap_or(last);
    let times = std::iter::successors(Some(first), |time| schedule.next(*time, *since_s));
    let times = times.take_while(|time| *time <= now_s).enumerate();
    times.map(|(at, time)| call(time, at == 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3600;

    fn entry(name: &str, schedule: &str, done_s: i64) -> (String, Entry) {
        let function = FunctionRef::new(name, "").unwrap();
        let schedule = Schedule::parse(schedule).unwrap();
        let key = format!("{name} {schedule}");
        (key, Entry { function, schedule, since_s: 0, done_s })
    }

    fn agenda(entries: &[(&str, &str)], now_s: i64) -> Agenda {
        let mut agenda = Agenda::default();
        agenda.set(entries.iter().map(|(name, text)| entry(name, text, now_s)).collect(), now_s);
        agenda
    }

    /// The calls that are due, which are made at once.
    fn due(agenda: &mut Agenda, now_s: i64) -> Vec<Due> {
        let calls = agenda.due(now_s);
        calls.iter().for_each(|call| agenda.made(&call.key));
        calls
    }

    fn times(calls: &[Due]) -> Vec<(String, i64)> {
        calls.iter().map(|call| (call.function.name().to_owned(), call.due_s)).collect()
    }

    #[test]
    fn each_due_time_is_told_once() {
        let mut agenda = agenda(&[("a", "* * * * *"), ("b", "@every 90s")], 0);
        assert_eq!(agenda.next_s(), Some(60));
        assert!(due(&mut agenda, 59).is_empty());
        assert_eq!(times(&due(&mut agenda, 60)), [("a".to_owned(), 60)]);
        assert!(due(&mut agenda, 60).is_empty());
        let calls = due(&mut agenda, 181);
        let expected = [("b", 90), ("a", 120), ("a", 180), ("b", 180)];
        let mut seen = times(&calls);
        seen.sort_by_key(|(name, due)| (*due, name.clone()));
        assert_eq!(seen, expected.map(|(name, due)| (name.to_owned(), due)));
        assert_eq!(agenda.next_s(), Some(240));
    }

    #[test]
    fn what_was_missed_is_made_up_for_but_not_all_of_it() {
        let mut minutely = agenda(&[("a", "* * * * *")], 0);
        let calls = due(&mut minutely, HOUR);
        assert_eq!((calls.first().unwrap().due_s, calls.len()), (HOUR - 300, 6));
        assert!(calls[0].after_a_gap && !calls[1].after_a_gap);
        let mut daily = agenda(&[("a", "0 0 * * *")], 1);
        let calls = due(&mut daily, 4 * 24 * HOUR + HOUR);
        assert_eq!(times(&calls), [("a".to_owned(), 4 * 24 * HOUR)]);
        assert!(calls[0].after_a_gap);
        let mut once = agenda(&[("a", "0 0 * * *")], 1);
        let calls = due(&mut once, 24 * HOUR + HOUR);
        assert_eq!((times(&calls).len(), calls[0].after_a_gap), (1, false));
    }

    #[test]
    fn new_entries_do_not_undo_what_was_told() {
        let mut agenda = agenda(&[("a", "* * * * *")], 0);
        assert_eq!(due(&mut agenda, 60).len(), 1);
        let entries = [entry("a", "* * * * *", 0), entry("b", "* * * * *", 70)].into();
        agenda.set(entries, 70);
        assert_eq!(times(&due(&mut agenda, 120)).len(), 2);
        agenda.set(BTreeMap::new(), 120);
        assert_eq!((agenda.next_s(), agenda.entries().count()), (None, 0));
    }

    #[test]
    fn an_entry_whose_calls_are_not_made_yet_tells_no_others_and_keeps_nobody() {
        let mut agenda = agenda(&[("a", "* * * * *"), ("b", "@every 90s")], 0);
        assert_eq!(times(&agenda.due(60)), [("a".to_owned(), 60)]);
        assert_eq!(times(&agenda.due(130)), [("b".to_owned(), 90)]);
        assert_eq!((agenda.next_s(), agenda.due(300)), (None, Vec::new()));
        let (b, _) = entry("b", "@every 90s", 0);
        let (a, entry_of_a) = entry("a", "* * * * *", 0);
        agenda.made(&a);
        assert_eq!(agenda.next_s(), Some(120));
        assert_eq!(times(&agenda.due(180)), [("a".to_owned(), 120), ("a".to_owned(), 180)]);
        // What is deployed has changed: that is still so.
        agenda.set([(a.clone(), entry_of_a)].into(), 180);
        assert!(agenda.has(&a) && !agenda.has(&b));
        assert_eq!(agenda.next_s(), None);
        agenda.made(&b);
        agenda.made(&a);
        assert_eq!(agenda.next_s(), Some(240));
    }

    #[test]
    fn what_a_wrong_clock_noted_does_not_count() {
        let mut agenda = Agenda::default();
        agenda.set([entry("a", "* * * * *", 1000 * HOUR)].into(), 30);
        assert_eq!(agenda.next_s(), Some(60));
        agenda.set([entry("b", "* * * * *", 90)].into(), 30);
        assert_eq!(agenda.next_s(), Some(120));
    }
}
