//! Getting a seat on a replica: at once, or in the function's queue until one is free.

use std::{sync::Arc, time::Instant};

use crate::{catalog::Entry, proxy::failure::Failure, replica::Replica};

/// Asks whoever keeps replicas to start one.
pub trait Activate: Send + Sync {
    /// A call found no place: this function has no replica, or all are full.
    fn activate(&self, entry: &Arc<Entry>);
}

/// A call counted in; dropping it counts it out.
#[derive(Debug)]
pub struct Entered {
    entry: Arc<Entry>,
}

impl Entered {
    /// Counts a call in.
    ///
    /// # Errors
    /// As many calls are under way as may be.
    pub fn new(entry: Arc<Entry>) -> Result<Self, Failure> {
        if entry.enter() { Ok(Self { entry }) } else { Err(Failure::Full(entry.id.to_string())) }
    }

    /// The function called.
    #[must_use]
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.entry.leave();
    }
}

/// A call's place on a replica; dropping it frees the place for the next in the queue.
#[derive(Debug)]
pub struct Seat {
    entry: Arc<Entry>,
    replica: Arc<Replica>,
}

impl Seat {
    /// The replica.
    #[must_use]
    pub fn replica(&self) -> &Replica {
        &self.replica
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.replica.release();
        self.entry.room();
    }
}

/// A seat on the replica with the fewest calls, if one is free and nobody waits for it.
#[must_use]
pub fn seat_at_once(entry: &Arc<Entry>) -> Option<Seat> {
    if entry.has_waiting() { None } else { try_seat(entry) }
}

/// Waits for a seat in the function's queue; has replicas started where there is none, and further ones
/// where all are full.
///
/// # Errors
/// The queue is full, the function's replicas fail, or it was removed.
pub async fn seat(entry: &Arc<Entry>, activate: &dyn Activate) -> Result<Seat, Failure> {
    let place = entry.join_queue().ok_or_else(|| Failure::QueueFull(entry.id.to_string()))?;
    loop {
        let wake_up = place.wake_up();
        if let Some(seat) = try_seat(entry) {
            return Ok(seat);
        }
        if entry.is_removed() {
            return Err(Failure::Unknown(entry.id.to_string()));
        }
        if entry.ready().is_empty() {
            refuse_if_failing(entry)?;
        }
        if entry.call_for_replica() {
            activate.activate(entry);
        }
        wake_up.await;
    }
}

fn try_seat(entry: &Arc<Entry>) -> Option<Seat> {
    let ready = entry.ready();
    // A full replica is passed over; between the look and the reservation another call may take the last
    // place, so the others are tried too.
    let first = ready.iter().min_by_key(|replica| replica.in_flight())?;
    let replica =
        if first.reserve() { first } else { ready.iter().find(|replica| replica.reserve())? };
    Some(Seat { entry: entry.clone(), replica: replica.clone() })
}

fn refuse_if_failing(entry: &Entry) -> Result<(), Failure> {
    let standing = entry.standing();
    let Some((why, next)) = &standing.failing else { return Ok(()) };
    let retry_after = next.saturating_duration_since(Instant::now());
    Err(Failure::Failing { name: entry.id.to_string(), why: why.clone(), retry_after })
}
