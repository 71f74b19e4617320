//! `/system/logs` (contract section 4.8): newline-delimited JSON, flushed line by line.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::StreamExt;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio_stream::wrappers::ReceiverStream;

use super::{Api, error::ApiError, functions::reference, query::Query};
use crate::{deployments::ChangeError, logs::LogQuery};

/// What the query asks for, as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    name: String,
    namespace: String,
    instance: String,
    follow: String,
    tail: String,
    since: String,
}

/// GET `/system/logs`.
pub async fn logs(
    State(api): State<Arc<Api>>,
    Query(asked): Query<Asked>,
) -> Result<Response, ApiError> {
    let query = asked.understood()?;
    let id = reference(&asked.name, &asked.namespace)?;
    if api.deployments.catalog.get(&id).is_none() {
        return Err(ChangeError::Unknown(id).into());
    }
    let lines = api.deployments.provider.logs(&id, query).await?;
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
    /// What is meant. `follow` is read leniently, `tail` and `since` are not.
    fn understood(&self) -> Result<LogQuery, ApiError> {
        let bad = || {
            let text = "could not parse the log request";
            ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, text)
        };
        if self.name.is_empty() {
            return Err(bad());
        }
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let lines = given(&self.tail).map(|text| text.parse::<i64>()).transpose();
        let since = given(&self.since).map(|text| OffsetDateTime::parse(&text, &Rfc3339));
        Ok(LogQuery {
            instance: given(&self.instance),
            follow: matches!(self.follow.as_str(), "1" | "t" | "T" | "true" | "True" | "TRUE"),
            tail: lines
                .map_err(|_| bad())?
                .and_then(|lines| usize::try_from(lines).ok())
                .filter(|lines| *lines > 0),
            since: since.transpose().map_err(|_| bad())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{super::query, *};

    fn asked(query: &str) -> Result<LogQuery, ApiError> {
        query::read::<Asked>(query)?.understood()
    }

    #[test]
    fn queries() {
        let query = asked("name=a&tail=5&follow=1&since=2026-01-01T00%3A00%3A00Z").unwrap();
        assert_eq!((query.tail, query.follow, query.instance), (Some(5), true, None));
        assert!(query.since.is_some());
        let query = asked("name=a&tail=x&tail=-1&follow=junk&follow=false&instance=").unwrap();
        assert_eq!((query.tail, query.follow, query.instance), (None, false, None));
        assert_eq!(asked("name=a&tail=0").unwrap().tail, None);
        for bad in ["", "tail=1", "name=a&tail=x", "name=a&since=yesterday"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
