//! Bodies that nobody wanted, as those of refused requests.
//!
//! What is left of one makes its connection end. A client that is not told so takes the connection for a good one, and
//! many do not send a POST, a PATCH or a PUT again whose connection has ended.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use axum::{
    Router,
    body::{Body, Bytes, HttpBody},
    http::{HeaderValue, Request, Response, header},
};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use pinnace_core::limits;
use tokio::time::timeout;
use tower::ServiceExt as _;

/// Has a router answer a request. What it has not read of the body is read on, if that is little; else the answer says
/// that the connection ends.
pub(super) async fn answer(router: Router, request: Request<Body>) -> Response<Body> {
    // To go on reading would ask for a body that waits to be asked for.
    let is_held_back = request.headers().contains_key(header::EXPECT);
    let (head, body) = request.into_parts();
    let body = Lent(Arc::new(Mutex::new(body)));
    let left = body.clone();
    let Ok(mut response) = router.oneshot(Request::from_parts(head, Body::new(body))).await;
    // A body that comes while it is answered is still in use.
    if let Some(left) = left.alone()
        && !is_spent(left, is_held_back).await
    {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn is_spent(mut body: Body, is_held_back: bool) -> bool {
    if body.is_end_stream() {
        return true;
    }
    if is_held_back {
        return false;
    }
    let read_on = async {
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > limits::LINGER_BYTES_MAX {
                return false;
            }
        }
        true
    };
    timeout(limits::LINGER_TIME_MAX, read_on).await.unwrap_or(false)
}

/// A body that comes back when whoever reads it has had enough.
#[derive(Clone)]
struct Lent(Arc<Mutex<Body>>);

impl Lent {
    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body, if nobody else has it.
    fn alone(self) -> Option<Body> {
        let body = Arc::into_inner(self.0)?;
        Some(body.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
