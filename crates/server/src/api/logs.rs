//! `/system/logs` (contract section 4.8): newline-delimited JSON, flushed line by line.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{RawQuery, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_stream::wrappers::ReceiverStream;

use super::{Api, error::ApiError, functions::reference, query::pairs};
use crate::{deployments::ChangeError, logs::LogQuery};

/// What the query asks for.
#[derive(Debug, Default)]
struct Asked {
    name: String,
    namespace: String,
    query: LogQuery,
}

/// GET `/system/logs`.
pub async fn logs(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> Result<Response, ApiError> {
    let asked = Asked::read(query.as_deref().unwrap_or_default())?;
    let id = reference(&asked.name, &asked.namespace)?;
    if api.deployments.catalog.get(&id).is_none() {
        return Err(ChangeError::Unknown(id).into());
    }
    let lines = api.deployments.provider.logs(&id, asked.query).await?;
    let mut ending = api.ending.clone();
    let ended = async move { drop(ending.wait_for(|ending| *ending).await) };
    let lines = ReceiverStream::new(lines).take_until(Box::pin(ended)).map(|message| {
        let mut line = serde_json::to_vec(&message)?;
        line.push(b'\n');
        Ok::<_, serde_json::Error>(Bytes::from(line))
    });
    let kind = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(lines)).into_response())
}

impl Asked {
    /// Reads a query. A repeated key counts as last given; `follow` is read leniently, `tail` and `since`
    /// are not.
    fn read(query: &str) -> Result<Self, ApiError> {
        let bad = || {
            let text = "could not parse the log request";
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text)
        };
        let mut asked = Self::default();
        for (key, value) in pairs(query) {
            let given = !value.is_empty();
            match key.as_str() {
                "name" => asked.name = value,
                "namespace" => asked.namespace = value,
                "instance" => asked.query.instance = Some(value).filter(|value| !value.is_empty()),
                "follow" => {
                    asked.query.follow =
                        matches!(value.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE");
                }
                "tail" if given => {
                    let lines = value.parse::<i64>().map_err(|_| bad())?;
                    asked.query.tail = usize::try_from(lines).ok().filter(|lines| *lines > 0);
                }
                "since" if given => {
                    let since = OffsetDateTime::parse(&value, &Rfc3339).map_err(|_| bad())?;
                    asked.query.since = Some(since);
                }
                _ => {}
            }
        }
        if asked.name.is_empty() { Err(bad()) } else { Ok(asked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let asked = Asked::read("name=a&tail=5&follow=1&since=2026-01-01T00%3A00%3A00Z").unwrap();
        assert_eq!(
            (asked.name.as_str(), asked.query.tail, asked.query.follow),
            ("a", Some(5), true)
        );
        assert!(asked.query.since.is_some());
        let asked = Asked::read("name=a&tail=-1&follow=junk&follow=false&instance=").unwrap();
        assert_eq!(
            (asked.query.tail, asked.query.follow, asked.query.instance),
            (None, false, None)
        );
        for bad in ["", "tail=1", "name=a&tail=x", "name=a&since=yesterday"] {
            assert!(Asked::read(bad).is_err(), "{bad}");
        }
    }
}
