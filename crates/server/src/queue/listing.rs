//! What the API shows of the queue and does to it.

use std::{sync::Arc, time::Duration};

use pinnace_core::{
    FunctionRef, limits,
    queue::{CallDocument, CallState, QueueListing, Queued, Stage},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    AsyncQueue,
    ledger::{Ledger, LedgerError, Stored},
};

/// How long it is waited for the end of a delivery before it is looked for again.
const ENDING_PAUSE: Duration = Duration::from_millis(5);

/// Calls that are forgotten by one write, which keeps those that are new waiting for its milliseconds.
const FORGOTTEN_AT_ONCE: usize = 1000;

impl AsyncQueue {
    /// Calls of the queue, oldest first: those that failed, or all others; of one function, if it is named.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn list(
        &self,
        function: Option<FunctionRef>,
        failed: bool,
    ) -> Result<QueueListing, LedgerError> {
        let most = limits::QUEUE_LISTED_MAX;
        let (calls, count_failed) = self
            .read(move |ledger| {
                let calls = match failed {
                    true => ledger.failed(function.as_ref(), most)?,
                    false => ledger.waiting(function.as_ref(), most)?,
                };
                Ok((calls, ledger.count_failed()?))
            })
            .await?;
        let state = self.shared.state();
        let in_flight = state.queue.in_flight();
        let waiting = state.queue.len() - in_flight;
        let shown =
            calls.into_iter().filter_map(|call| document(&call, state.queue.stage(call.number)));
        Ok(QueueListing { waiting, in_flight, failed: count_failed, calls: shown.collect() })
    }

    /// The calls of an id: there may be several, since callers may choose it.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn show(&self, id: &str) -> Result<Vec<CallDocument>, LedgerError> {
        let found = self.shared.state().queue.find(id);
        let id = id.to_owned();
        let calls = self
            .read(move |ledger| {
                let mut calls = ledger.failed_of(&id)?;
                for call in found {
                    calls.extend(ledger.load(call.number)?);
                }
                Ok(calls)
            })
            .await?;
        let state = self.shared.state();
        Ok(calls.iter().filter_map(|c| document(c, state.queue.stage(c.number))).collect())
    }

    /// Has the failed calls of an id wait again, with all their attempts. False if there is none.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn retry(&self, id: &str) -> Result<bool, LedgerError> {
        let mut any = false;
        for call in self.failed_of(id).await? {
            if self.ledger.retry(call.number).await? {
                any = true;
                let call_id = call.call.id.as_str().into();
                let bytes = call.call.bytes() + call.body_bytes;
                let queued = Queued { function: call.call.function, id: call_id, bytes };
                self.wait_again(call.number, queued).await;
            }
        }
        Ok(any)
    }

    /// The delivery that has noted that a call failed may be a moment from having ended.
    async fn wait_again(&self, number: u64, queued: Queued) {
        while !self.shared.state().queue.add(number, queued.clone(), None) {
            tokio::time::sleep(ENDING_PAUSE).await;
        }
        self.shared.wake.notify_one();
    }

    /// Forgets the failed calls of an id, and cancels the others. False if there is none.
    ///
    /// # Errors
    /// It is not durable.
    pub async fn discard(&self, id: &str) -> Result<bool, LedgerError> {
        let failed: Vec<_> = self.failed_of(id).await?.iter().map(|call| call.number).collect();
        let any = !failed.is_empty() && self.ledger.forget(failed).await?;
        Ok(self.cancel(id).await? || any)
    }

    /// Forgets all failed calls of a function, or cancels all others. Answers how many.
    ///
    /// # Errors
    /// It is not durable for all of them.
    pub async fn discard_all(
        &self,
        function: FunctionRef,
        failed: bool,
    ) -> Result<usize, LedgerError> {
        let numbers = match failed {
            true => self.read(move |ledger| ledger.failed_numbers(&function)).await?,
            false => self.cancel_all(&function),
        };
        for some in numbers.chunks(FORGOTTEN_AT_ONCE) {
            self.ledger.forget(some.to_vec()).await?;
        }
        Ok(numbers.len())
    }

    async fn failed_of(&self, id: &str) -> Result<Vec<Stored>, LedgerError> {
        let id = id.to_owned();
        self.read(move |ledger| ledger.failed_of(&id)).await
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Arc<Ledger>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let ledger = self.ledger.clone();
        let read = tokio::task::spawn_blocking(move || read(&ledger)).await;
        read.map_err(|_| LedgerError::Closed)?
    }
}

/// What is shown of a call. One that has ended, which the database is still to hear, is not.
fn document(stored: &Stored, stage: Option<Stage>) -> Option<CallDocument> {
    let state = match (stored.failed_ms, stage) {
        (Some(_), _) => CallState::Failed,
        (None, Some(Stage::InFlight)) => CallState::InFlight,
        (None, Some(_)) => CallState::Waiting,
        (None, None) => return None,
    };
    let is_later = matches!(stage, Some(Stage::Later(_)));
    Some(CallDocument {
        call_id: stored.call.id.clone(),
        function: stored.call.function.name().to_owned(),
        namespace: stored.call.function.namespace().to_owned(),
        state,
        method: stored.call.method.clone(),
        target: stored.call.target.clone(),
        body_bytes: stored.body_bytes,
        submitted_at: time_of(stored.submitted_ms),
        attempts: stored.attempts,
        next_attempt_at: (is_later && stored.due_ms > 0).then(|| time_of(stored.due_ms)),
        failed_at: stored.failed_ms.map(time_of),
        callback_url: stored.call.callback.as_ref().map(|to| without_password(&to.url)),
        history: stored.history.clone(),
    })
}

/// A URL without what it carries to log in.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// RFC 3339 of a Unix time in milliseconds.
fn time_of(unix_ms: u64) -> String {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000);
    time.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_of_callbacks_are_not_shown() {
        assert_eq!(without_password("http://u:p@h:1/a@b"), "http://h:1/a@b");
        assert_eq!(without_password("https://h"), "https://h");
    }

    #[test]
    fn times_are_shown_as_dates() {
        assert_eq!(time_of(0), "1970-01-01T00:00:00Z");
        assert_eq!(time_of(u64::MAX), "");
    }
}
