//! The body of an answer, whoever made it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use pinnace_proxy::Relay;

use crate::proxy::call::CallEnd;

/// What a worker sends back.
#[derive(Debug)]
pub enum AnswerBody {
    /// A function's own body.
    Function(Relay<CallEnd>),
    /// A sentence of the platform.
    Text(Full<Bytes>),
    /// The control plane's.
    Control(axum::body::Body),
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            Self::Function(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Text(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Control(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Function(body) => body.is_end_stream(),
            Self::Text(body) => body.is_end_stream(),
            Self::Control(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Function(body) => body.size_hint(),
            Self::Text(body) => body.size_hint(),
            Self::Control(body) => body.size_hint(),
        }
    }
}
