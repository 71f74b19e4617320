//! One delivery of one call: to its function by the door, then its answer to the callback.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use pinnace_core::{
    limits,
    queue::{Attempt, Outcome, RetryPolicy, Verdict},
    wire::Map,
};
use pinnace_proxy::h1::{WholeAnswer, read_answer, write_number};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{
    io::AsyncWriteExt,
    sync::{oneshot, watch},
    time::Instant,
};

use super::{
    AsyncQueue, Call, Callbacks, Ending,
    callback::Told,
    ledger::{LedgerError, Progress, Stored, lengthened, now_ms},
};
use crate::{catalog::Catalog, clock::now, proxy::door::Door};

/// When a call is looked at again that could not be read.
const UNREADABLE_WAIT: Duration = Duration::from_secs(10);

/// Bytes of an answer's body that a history shows.
const SHOWN_BYTES: usize = 400;

/// Marks an answer that the platform made (contract section 3).
const INTERNAL: &str = "x-openfaas-internal";

/// Delivers calls.
pub struct Delivery {
    /// Whose calls.
    pub queue: Arc<AsyncQueue>,
    /// The functions.
    pub catalog: Arc<Catalog>,
    /// The way into them.
    pub door: Door,
    /// Where answers go.
    pub callbacks: Callbacks,
    /// When a call is tried again, unless its function says otherwise.
    pub policy: RetryPolicy,
    /// Turns true when the server is asked to end.
    pub ending: watch::Receiver<bool>,
}

/// How a call ends.
enum End {
    Settled,
    Failed(Progress),
}

/// What one attempt came to.
struct Tried {
    answer: io::Result<WholeAnswer>,
    took: Duration,
}

impl Delivery {
    /// Delivers a call that was leased, unless it is cancelled.
    pub(super) async fn deliver(self: Arc<Self>, number: u64, cancelled: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            // The other end is dropped where the delivery itself finishes the call; then it goes on.
            Ok(()) = cancelled => self.queue.finish(number, Ending::Forget),
            () = self.attempt(number) => {}
        }
    }

    async fn attempt(&self, number: u64) {
        let stored = match self.load(number).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return self.queue.finish(number, Ending::Forget),
            Err(error) => {
                tracing::error!(%error, "a queued call cannot be delivered; it is tried again");
                return self.queue.finish(number, Ending::Again(now() + UNREADABLE_WAIT));
            }
        };
        let Some(annotations) = self.annotations(&stored.call) else {
            return self.give_up(stored, None, "the function is not deployed".to_owned()).await;
        };
        let policy = self.policy.with(annotations.as_ref());
        let begun = Instant::now();
        let call = &stored.call;
        let answer = self.call(call).await;
        let tried = Tried { answer, took: begun.elapsed() };
        if tried.answer.is_err() && *self.ending.borrow() {
            // It was cut short by this server's end: the next one delivers it.
            return self.queue.finish(number, Ending::Again(now() + UNREADABLE_WAIT));
        }
        self.judge(stored, tried, &policy).await;
    }

    async fn load(&self, number: u64) -> Result<Option<Stored>, LedgerError> {
        let ledger = self.queue.ledger.clone();
        let loaded = tokio::task::spawn_blocking(move || ledger.load(number)).await;
        loaded.map_err(|_| LedgerError::Closed)?
    }

    /// The annotations of a call's function, if it is deployed.
    fn annotations(&self, call: &Call) -> Option<Option<Map>> {
        let entry = self.catalog.get(&call.function)?;
        Some(entry.deployed().spec.deployment.annotations.clone())
    }

    /// Calls the function.
    async fn call(&self, call: &Call) -> io::Result<WholeAnswer> {
        let target = format!("/function/{}{}", call.function, call.target);
        let kept_max = match call.callback {
            Some(_) => limits::DELIVERY_ANSWER_BYTES_MAX,
            None => SHOWN_BYTES,
        };
        ask(&self.door, call, &target, kept_max).await
    }

    async fn judge(&self, stored: Stored, tried: Tried, policy: &RetryPolicy) {
        let number = stored.number;
        let attempt = stored.attempts + 1;
        let outcome = outcome(&tried.answer);
        let random = RandomState::new().hash_one(number) as f64 / u64::MAX as f64;
        match policy.judge(&outcome, attempt, random) {
            Verdict::Settled if self.has_gone(&stored.call, &outcome) => {
                let why = "the function is not deployed any more".to_owned();
                self.give_up(stored, outcome.status, why).await;
            }
            Verdict::Settled => {
                let told = told(&stored.call, tried, stored.attempts, policy);
                self.end(number, End::Settled, told).await;
            }
            Verdict::Again(wait) => {
                let due = now() + wait;
                let mut progress = progressed(stored, outcome.status, sentence(&tried.answer));
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                progress.due_ms = now_ms().saturating_add(wait_ms);
                self.note(number, progress).await;
                self.queue.finish(number, Ending::Again(due));
            }
            Verdict::Failed => {
                tracing::warn!(
                    function = %stored.call.function,
                    call_id = stored.call.id,
                    attempts = attempt,
                    "an asynchronous call has failed for good; `pinnace queue ls --failed` shows it"
                );
                let why = sentence(&tried.answer);
                let told = told(&stored.call, tried, stored.attempts, policy);
                let end = End::Failed(progressed(stored, outcome.status, why));
                self.end(number, end, told).await;
            }
        }
    }

    /// Keeps an attempt, before there is another: that one counts from it.
    async fn note(&self, number: u64, progress: Progress) {
        if let Err(error) = self.queue.ledger.note(number, progress).await {
            tracing::error!(%error, "an attempt of an asynchronous call is not kept");
        }
    }

    /// Whether a 404 is the platform's, since the function was removed a moment ago.
    fn has_gone(&self, call: &Call, outcome: &Outcome) -> bool {
        outcome.status == Some(404) && self.catalog.get(&call.function).is_none()
    }

    /// Ends a call that no further attempt could settle.
    async fn give_up(&self, stored: Stored, status: Option<u16>, why: String) {
        let number = stored.number;
        let tried = Tried { answer: Err(io::Error::other(why.clone())), took: Duration::ZERO };
        let told = told(&stored.call, tried, stored.attempts, &self.policy);
        self.end(number, End::Failed(progressed(stored, status, why)), told).await;
    }

    /// Ends a call, and sends its answer on. So many answers are on their way at once, and no more ends are: it is under
    /// way, and not among those that failed, until its answer has a place.
    async fn end(&self, number: u64, end: End, told: Option<Told>) {
        let place = match &told {
            Some(told) => self.callbacks.place(told).await,
            None => None,
        };
        let ending = match end {
            End::Settled => Ending::Forget,
            End::Failed(progress) => {
                self.note(number, Progress { is_failed: true, ..progress }).await;
                Ending::Failed
            }
        };
        self.queue.finish(number, ending);
        if let (Some(told), Some(_place)) = (&told, &place) {
            self.callbacks.send(&self.door, told).await;
        }
    }
}

/// Sends a request to a worker and reads its answer, at the same time: either may be long.
///
/// # Errors
/// No whole answer came.
pub(super) async fn ask(
    door: &Door,
    call: &Call,
    target: &str,
    kept_max: usize,
) -> io::Result<WholeAnswer> {
    let (mut receiving, mut sending) = door.open().await?.into_split();
    let mut head = format!("{} {target} HTTP/1.1\r\n", call.method).into_bytes();
    head.extend_from_slice(&call.headers);
    write_number(&mut head, b"content-length", call.body.len() as u64);
    head.extend_from_slice(b"connection: close\r\n\r\n");
    let send = async {
        sending.write_all(&head).await?;
        sending.write_all(&call.body).await
    };
    let receive = read_answer(&mut receiving, kept_max);
    // A function may answer before it has read all: what it says counts.
    let (answer, _) = tokio::join!(receive, send);
    answer
}

fn outcome(answer: &io::Result<WholeAnswer>) -> Outcome {
    let Ok(answer) = answer else { return Outcome::default() };
    let retry_after =
        answer.header("retry-after").and_then(|value| std::str::from_utf8(value).ok());
    Outcome {
        status: Some(answer.status),
        is_internal: answer.header(INTERNAL).is_some(),
        retry_after: retry_after.and_then(|text| parse_retry_after(text, SystemTime::now())),
    }
}

/// How long `Retry-After` asks to wait: seconds, or a date (RFC 9110 section 10.2.3).
fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// What an attempt came to, in words.
fn sentence(answer: &io::Result<WholeAnswer>) -> String {
    match answer {
        Ok(answer) => {
            let shown = &answer.body[..answer.body.len().min(SHOWN_BYTES)];
            let shown = String::from_utf8_lossy(shown);
            format!("the answer was {}: {}", answer.status, shown.trim())
        }
        Err(error) => format!("no whole answer came: {error}"),
    }
}

fn progressed(stored: Stored, status: Option<u16>, error: String) -> Progress {
    let at = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    Progress {
        attempts: stored.attempts + 1,
        due_ms: 0,
        is_failed: false,
        history: lengthened(stored.history, Attempt { at, status, error }),
    }
}

/// What the callback is told, if there is one.
fn told(call: &Call, tried: Tried, retries: u32, policy: &RetryPolicy) -> Option<Told> {
    let callback = call.callback.clone()?;
    // A function that could not be reached (contract section 7.3).
    let unreached = || WholeAnswer { status: 503, ..WholeAnswer::default() };
    Some(Told {
        callback,
        function: call.function.clone(),
        call_id: call.id.clone(),
        answer: tried.answer.unwrap_or_else(|_| unreached()),
        took: tried.took,
        retries,
        retries_max: policy.attempts - 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let parsed = |text| parse_retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(parsed(" 120 "), Some(120));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(parsed("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "it has passed");
        assert_eq!(parsed("soon"), None);
        assert_eq!(parsed("-1"), None);
    }

    #[test]
    fn attempts_are_told_in_words() {
        let answer = |status, body: &[u8]| {
            Ok(WholeAnswer { status, body: body.to_vec(), ..WholeAnswer::default() })
        };
        assert_eq!(sentence(&answer(500, b"no\n")), "the answer was 500: no");
        assert!(sentence(&answer(500, &[b'a'; 9999])).len() < SHOWN_BYTES + 50);
        let broken = Err(io::ErrorKind::UnexpectedEof.into());
        assert!(sentence(&broken).contains("no whole answer"));
        assert_eq!(outcome(&broken), Outcome::default());
    }
}
