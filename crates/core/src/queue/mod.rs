//! The queue of asynchronous calls, as rules: which call is delivered next, and what becomes of one that was.
//!
//! A [`Queue`] is told what was added, delivered and cancelled, and says what is to be delivered now. It keeps
//! nothing on disk and knows no call's content. A [`RetryPolicy`] judges how an attempt ended. What the API says
//! of calls is a [`QueueListing`].

mod document;
mod policy;
mod turns;

pub use document::{Attempt, CallDocument, CallState, Dropped, QueueListing};
pub use policy::{Backoff, Outcome, RetryFault, RetryPolicy, Verdict};
pub use turns::{Counts, Found, Full, Queue, Queued, Stage};
