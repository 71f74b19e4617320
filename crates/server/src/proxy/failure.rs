//! Errors that the platform itself answers on the way of an invocation: the one place where they become
//! statuses and sentences (contract section 6.2).
//!
//! Each names the function and, where a limit was reached, the limit and the setting that moves it.
//! `X-OpenFaaS-Internal` marks those that a queue worker may try again; a definite 404 has none.

use std::time::Duration;

use http::StatusCode;
use pinnace_core::limits;
use pinnace_proxy::h1::{BodyFault, HeadFault, write_header};

use crate::queue::{LedgerError, Refused};

/// Marks an answer that the platform made (contract section 3).
const INTERNAL: &[u8] = b"X-OpenFaaS-Internal";

/// When it is worth trying again to submit to a queue that takes no more.
const QUEUE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// Why a call got no answer from its function.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The path names no function.
    #[error("Provide function name in the request path")]
    NameMissing,
    /// A function asks the gateway for something else than a function.
    #[error(
        "the gateway serves functions /function/NAME, /async-function/NAME and /oauth/token alone; the API is not \
         reached from within"
    )]
    NotAtGateway,
    /// No such function is deployed.
    #[error("error finding function {0}: it is not deployed; `pinnace list` shows what is")]
    Unknown(String),
    /// CONNECT or TRACE.
    #[error("functions cannot be called with method {0}")]
    Method(String),
    /// The path or query cannot be sent on.
    #[error("the path or query cannot be sent to function {0}: it holds bytes that a URL may not")]
    Target(String),
    /// As many calls are under way as one function may have.
    #[error(
        "function {0} has {max} calls under way, the most it may have (IN_FLIGHT_PER_FUNCTION_MAX); try again later",
        max = limits::IN_FLIGHT_PER_FUNCTION_MAX
    )]
    Full(String),
    /// As many calls wait as may.
    #[error(
        "function {0} has {max} calls waiting for a replica, the most it may have \
         (WAITING_CALLS_PER_FUNCTION_MAX); raise its replicas or its concurrency",
        max = limits::WAITING_CALLS_PER_FUNCTION_MAX
    )]
    QueueFull(String),
    /// Its replicas fail.
    #[error("function {name} is failing: {why}; the next replica is tried in {} s", retry_after.as_secs())]
    Failing {
        /// The function.
        name: String,
        /// What its replicas do.
        why: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// No replica became free in time.
    #[error(
        "no replica of function {name} was free within {} s: this is the gateway's deadline \
         (`--timeout`, or `exec_timeout` in the function's environment)", after.as_secs_f32()
    )]
    NotReadyInTime {
        /// The function.
        name: String,
        /// The deadline.
        after: Duration,
    },
    /// A replica was there but sent no answer in time.
    #[error(
        "function {name} sent no answer within {} s: this is the gateway's deadline \
         (`--timeout`, or `exec_timeout` in the function's environment)", after.as_secs_f32()
    )]
    NoAnswerInTime {
        /// The function.
        name: String,
        /// The deadline.
        after: Duration,
    },
    /// A replica did not accept a connection.
    #[error("Can't reach service for: {name}. ({why})")]
    Unreachable {
        /// The function.
        name: String,
        /// What the connection said.
        why: String,
    },
    /// A replica broke off before its answer began.
    #[error("function {name} broke off before it answered: {why}")]
    BrokeOff {
        /// The function.
        name: String,
        /// What the connection said.
        why: String,
    },
    /// The caller's body is malformed or broke off.
    #[error("the request's body for function {name} cannot be passed on: {fault}")]
    RequestBody {
        /// The function.
        name: String,
        /// What is wrong with it.
        fault: BodyFault,
    },
    /// The caller's body came too slowly.
    #[error(
        "no byte of the request's body for function {0} came for {max} s (BODY_IDLE_MAX)",
        max = limits::BODY_IDLE_MAX.as_secs()
    )]
    RequestBodySlow(String),
    /// An asynchronous call by another method than POST.
    #[error(
        "functions cannot be called asynchronously with method {0}: POST submits a call, DELETE \
         /async-function/CALL-ID cancels it"
    )]
    AsyncMethod(String),
    /// An asynchronous call's body is too large.
    #[error(
        "the body of an asynchronous call of function {name} may have {bytes_max} bytes (`--async-body`): call \
         it synchronously, or send where the data is"
    )]
    AsyncBody {
        /// The function.
        name: String,
        /// The most it may have.
        bytes_max: usize,
    },
    /// An asynchronous call's body came too slowly.
    #[error(
        "the body of an asynchronous call of function {0} did not come within {max} s (ASYNC_BODY_TIME_MAX)",
        max = limits::ASYNC_BODY_TIME_MAX.as_secs()
    )]
    AsyncBodySlow(String),
    /// The callback cannot be called.
    #[error("X-Callback-Url cannot be called: {0}")]
    Callback(&'static str),
    /// The queue takes no more.
    #[error("Error queuing request: {0}")]
    QueueRefuses(#[from] Refused),
    /// The call could not be made durable.
    #[error("Error queuing request: {0}")]
    Enqueue(LedgerError),
    /// No call of this id waits or is under way.
    #[error("there is no asynchronous call {0:?} that waits or is under way")]
    UnknownCall(String),
    /// What came is no request.
    #[error("the request cannot be read: {0}")]
    Request(HeadFault),
}

impl Failure {
    /// The status that the caller gets.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NameMissing | Self::Target(_) | Self::RequestBody { .. } | Self::Callback(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::AsyncBody { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Request(fault) => of_head(*fault),
            Self::Unknown(_) | Self::NotAtGateway | Self::UnknownCall(_) => StatusCode::NOT_FOUND,
            Self::Method(_) | Self::AsyncMethod(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Full(_) | Self::QueueFull(_) | Self::QueueRefuses(_) => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Failing { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::NotReadyInTime { .. } | Self::NoAnswerInTime { .. } => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::Unreachable { .. } | Self::Enqueue(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::BrokeOff { .. } => StatusCode::BAD_GATEWAY,
            Self::RequestBodySlow(_) | Self::AsyncBodySlow(_) => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// Writes the headers of the answer whose body is this failure's sentence.
    pub fn write_headers(&self, out: &mut Vec<u8>) {
        write_header(out, b"Content-Type", b"text/plain; charset=utf-8");
        write_header(out, b"X-Content-Type-Options", b"nosniff");
        let status = self.status();
        let may_pass = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        if may_pass || matches!(self, Self::NameMissing) {
            write_header(out, INTERNAL, b"proxy");
        }
        let retry_after = match self {
            Self::Failing { retry_after, .. } => Some(*retry_after),
            Self::QueueRefuses(_) => Some(QUEUE_RETRY_AFTER),
            _ => None,
        };
        if let Some(retry_after) = retry_after {
            let seconds = retry_after.as_secs().max(1).to_string();
            write_header(out, b"Retry-After", seconds.as_bytes());
        }
        if let Self::AsyncMethod(_) = self {
            write_header(out, b"Allow", b"POST, DELETE");
        }
    }
}

fn of_head(fault: HeadFault) -> StatusCode {
    match fault {
        HeadFault::TooLarge(_) | HeadFault::TooManyHeaders => {
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        }
        HeadFault::Slow => StatusCode::REQUEST_TIMEOUT,
        _ => StatusCode::BAD_REQUEST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(failure: &Failure) -> String {
        let mut out = Vec::new();
        failure.write_headers(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_may_pass_is_marked_and_a_definite_404_is_not() {
        let name = || "env.openfaas-fn".to_owned();
        let marked = |failure: Failure| headers(&failure).contains("X-OpenFaaS-Internal: proxy");
        assert!(marked(Failure::Full(name())));
        assert!(marked(Failure::Unreachable { name: name(), why: "refused".into() }));
        assert!(marked(Failure::NoAnswerInTime { name: name(), after: Duration::from_secs(60) }));
        assert!(!marked(Failure::Unknown(name())));
        assert!(!marked(Failure::RequestBodySlow(name())));
    }

    #[test]
    fn limits_name_themselves_and_their_setting() {
        let after = Duration::from_secs(60);
        let said = Failure::NoAnswerInTime { name: "env".into(), after }.to_string();
        assert!(said.contains("60 s") && said.contains("--timeout"), "{said}");
        assert!(Failure::QueueFull("env".into()).to_string().contains("4096"));
    }

    #[test]
    fn a_failing_function_says_when_to_come_back() {
        let retry_after = Duration::from_millis(250);
        let failing = Failure::Failing { name: "a".into(), why: "it crashed".into(), retry_after };
        assert!(headers(&failing).contains("Retry-After: 1\r\n"));
    }
}
