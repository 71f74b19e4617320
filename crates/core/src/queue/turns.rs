//! Which call is delivered next.
//!
//! Functions take turns, and calls of one function go in the order in which they came due. A function may have
//! as many deliveries under way as it has places, and fewer than there are left for others; and its first, while it has
//! none, even where all are taken: so however many slow calls some have, the next function finds a free one. In the same
//! way it may have no more calls, nor bytes of them, than there is room left for others.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use crate::name::FunctionRef;

/// All calls that wait or are being delivered, by the number that each has for life.
#[derive(Debug)]
pub struct Queue {
    in_flight_max: usize,
    calls_max: usize,
    bytes_max: u64,
    calls: HashMap<u64, Call>,
    lines: HashMap<Arc<FunctionRef>, Line>,
    /// Functions that may have a call delivered, in their order.
    turns: VecDeque<Arc<FunctionRef>>,
    /// Functions that have taken their share of what may be under way.
    have_share: Vec<Arc<FunctionRef>>,
    later: BTreeSet<(Instant, u64)>,
    /// Calls of each id, which are one nearly always.
    ids: HashMap<Arc<str>, Vec<u64>>,
    in_flight: usize,
    bytes: u64,
    reserved: usize,
}

/// A call as the queue knows it.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The function.
    pub function: FunctionRef,
    /// The call's id, which need not be its alone.
    pub id: Arc<str>,
    /// Bytes of its head and body.
    pub bytes: u64,
}

#[derive(Debug)]
struct Call {
    function: Arc<FunctionRef>,
    id: Arc<str>,
    bytes: u64,
    stage: Stage,
}

/// Where a call stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for its turn.
    Due,
    /// It is tried again then.
    Later(Instant),
    /// It is being delivered.
    InFlight,
}

/// Calls of one function.
#[derive(Debug, Default)]
struct Line {
    /// Those that are due.
    due: VecDeque<u64>,
    in_flight: usize,
    calls: usize,
    bytes: u64,
    /// Whether it stands among the turns, or waits there for its share.
    in_turn: bool,
}

/// Why a call is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// There are as many as may be.
    Calls,
    /// They have as many bytes as may be.
    Bytes,
    /// The function has as many, or as many bytes of them, as are left for others.
    Function,
}

/// A call that was looked up by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub number: u64,
    /// Where it stood.
    pub stage: Stage,
}

/// How many calls a function has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// The function.
    pub function: Arc<FunctionRef>,
    /// Calls that wait.
    pub waiting: usize,
    /// Calls that are being delivered.
    pub in_flight: usize,
}

impl Queue {
    /// An empty queue with these bounds.
    #[must_use]
    pub fn new(in_flight_max: usize, calls_max: usize, bytes_max: u64) -> Self {
        Self {
            in_flight_max,
            calls_max,
            bytes_max,
            calls: HashMap::new(),
            lines: HashMap::new(),
            turns: VecDeque::new(),
            have_share: Vec::new(),
            later: BTreeSet::new(),
            ids: HashMap::new(),
            in_flight: 0,
            bytes: 0,
            reserved: 0,
        }
    }

    /// Keeps room for a call that is about to be added.
    ///
    /// # Errors
    /// There is none.
    pub fn reserve(&mut self, function: &FunctionRef, bytes: u64) -> Result<(), Full> {
        let calls_left = self.calls_max.saturating_sub(self.calls.len() + self.reserved);
        let bytes_left = self.bytes_max.saturating_sub(self.bytes);
        if calls_left == 0 {
            return Err(Full::Calls);
        }
        if bytes > bytes_left {
            return Err(Full::Bytes);
        }
        let line = self.lines.get(function);
        if line.is_some_and(|line| line.calls >= calls_left || line.bytes >= bytes_left) {
            return Err(Full::Function);
        }
        self.reserved += 1;
        self.bytes += bytes;
        Ok(())
    }

    /// Gives room back that was kept, before the call is added or because it will not be.
    pub fn unreserve(&mut self, bytes: u64) {
        self.reserved -= 1;
        self.bytes -= bytes;
    }

    /// Adds a call that is due at a time, or at once. Bounds were asked for before. False if one of this number is there.
    pub fn add(&mut self, number: u64, queued: Queued, due: Option<Instant>) -> bool {
        if self.calls.contains_key(&number) {
            return false;
        }
        let Queued { function, id, bytes } = queued;
        let known = self.lines.get_key_value(&function).map(|(known, _)| known.clone());
        let function = known.unwrap_or_else(|| Arc::new(function));
        let line = self.lines.entry(function.clone()).or_default();
        line.calls += 1;
        line.bytes += bytes;
        self.ids.entry(id.clone()).or_insert_with(|| Vec::with_capacity(1)).push(number);
        self.bytes += bytes;
        self.calls.insert(number, Call { function, id, bytes, stage: Stage::Due });
        match due {
            Some(due) => self.put_off(number, due),
            None => self.make_due(number),
        }
        true
    }

    /// The next call to be delivered now; it counts as under way. `places` says how many a function can have
    /// under way.
    pub fn lease(&mut self, now: Instant, places: impl Fn(&FunctionRef) -> usize) -> Option<u64> {
        self.wake(now);
        while self.in_flight < 2 * self.in_flight_max {
            let function = self.turns.pop_front()?;
            let Some(line) = self.lines.get_mut(&function) else { continue };
            let left = self.in_flight_max.saturating_sub(self.in_flight);
            if line.in_flight > 0 && line.in_flight >= left && !line.due.is_empty() {
                self.have_share.push(function);
                continue;
            }
            line.in_turn = false;
            if line.in_flight >= places(&function).max(1) {
                // One of its own that ends brings it back.
                continue;
            }
            let Some(number) = line.due.pop_front() else {
                self.drop_if_empty(&function);
                continue;
            };
            line.in_flight += 1;
            self.in_flight += 1;
            if let Some(call) = self.calls.get_mut(&number) {
                call.stage = Stage::InFlight;
            }
            self.line_up(&function);
            return Some(number);
        }
        None
    }

    /// When a call comes due that waits for its time, if there is one.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(due, _)| *due)
    }

    /// A delivery has ended, and its call with it.
    pub fn end(&mut self, number: u64) {
        self.leave_flight(number);
        self.forget(number);
    }

    /// A delivery has ended; its call is tried again then.
    pub fn put_back(&mut self, number: u64, due: Instant) {
        self.leave_flight(number);
        self.put_off(number, due);
    }

    /// Takes those calls of an id out that are not under way. All that were there are told; those under way are
    /// to be ended by whoever delivers them.
    pub fn cancel(&mut self, id: &str) -> Vec<Found> {
        let found = self.find(id);
        for call in &found {
            match call.stage {
                Stage::InFlight => continue,
                Stage::Later(due) => drop(self.later.remove(&(due, call.number))),
                Stage::Due => self.take_from_line(call.number),
            }
            self.forget(call.number);
        }
        found
    }

    /// As [`Self::cancel`], of all calls of a function.
    pub fn cancel_all(&mut self, function: &FunctionRef) -> Vec<Found> {
        let own = self.calls.iter().filter(|(_, call)| *call.function == *function);
        let found: Vec<_> =
            own.map(|(number, call)| Found { number: *number, stage: call.stage }).collect();
        if let Some(line) = self.lines.get_mut(function) {
            line.due.clear();
        }
        for call in &found {
            match call.stage {
                Stage::InFlight => continue,
                Stage::Later(due) => drop(self.later.remove(&(due, call.number))),
                Stage::Due => {}
            }
            self.forget(call.number);
        }
        found
    }

    /// The calls of an id.
    #[must_use]
    pub fn find(&self, id: &str) -> Vec<Found> {
        let found =
            |number: &u64| Some(Found { number: *number, stage: self.calls.get(number)?.stage });
        self.ids.get(id).into_iter().flatten().filter_map(found).collect()
    }

    /// Where a call stands, if it is here.
    #[must_use]
    pub fn stage(&self, number: u64) -> Option<Stage> {
        self.calls.get(&number).map(|call| call.stage)
    }

    /// The function of a call.
    #[must_use]
    pub fn function(&self, number: u64) -> Option<Arc<FunctionRef>> {
        self.calls.get(&number).map(|call| call.function.clone())
    }

    /// How many calls each function has, in no order.
    pub fn counts(&self) -> impl Iterator<Item = Counts> {
        let lines = self.lines.iter().filter(|(_, line)| line.calls > 0);
        lines.map(|(function, line)| Counts {
            function: function.clone(),
            waiting: line.calls - line.in_flight,
            in_flight: line.in_flight,
        })
    }

    /// Calls that wait or are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is no call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Calls under way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes of all calls, and of those that room is kept for.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn wake(&mut self, now: Instant) {
        while let Some((due, number)) = self.later.first().copied() {
            if due > now {
                break;
            }
            self.later.pop_first();
            self.make_due(number);
        }
    }

    fn put_off(&mut self, number: u64, due: Instant) {
        if let Some(call) = self.calls.get_mut(&number) {
            call.stage = Stage::Later(due);
            self.later.insert((due, number));
        }
    }

    fn make_due(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.stage = Stage::Due;
        let function = call.function.clone();
        if let Some(line) = self.lines.get_mut(&function) {
            line.due.push_back(number);
        }
        self.line_up(&function);
    }

    /// Gives a function a turn if it has something due.
    fn line_up(&mut self, function: &Arc<FunctionRef>) {
        let Some(line) = self.lines.get_mut(function) else { return };
        if !line.in_turn && !line.due.is_empty() {
            line.in_turn = true;
            self.turns.push_back(function.clone());
        }
    }

    fn leave_flight(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        if call.stage != Stage::InFlight {
            return;
        }
        call.stage = Stage::Due;
        let function = call.function.clone();
        self.in_flight -= 1;
        if let Some(line) = self.lines.get_mut(&function) {
            line.in_flight -= 1;
        }
        self.line_up(&function);
        self.turns.extend(self.have_share.drain(..));
    }

    fn take_from_line(&mut self, number: u64) {
        let function = self.function(number);
        if let Some(line) = function.and_then(|function| self.lines.get_mut(&function)) {
            line.due.retain(|due| *due != number);
        }
    }

    fn forget(&mut self, number: u64) {
        let Some(call) = self.calls.remove(&number) else { return };
        self.bytes -= call.bytes;
        if let Some(same) = self.ids.get_mut(&call.id) {
            same.retain(|other| *other != number);
            if same.is_empty() {
                self.ids.remove(&call.id);
            }
        }
        if let Some(line) = self.lines.get_mut(&call.function) {
            line.calls -= 1;
            line.bytes -= call.bytes;
        }
        self.drop_if_empty(&call.function);
    }

    /// Forgets a function that has no call. One that still has a turn is forgotten then.
    fn drop_if_empty(&mut self, function: &Arc<FunctionRef>) {
        if self.lines.get(function).is_some_and(|line| line.calls == 0 && !line.in_turn) {
            self.lines.remove(function);
        }
    }
}

#[cfg(test)]
mod tests;
