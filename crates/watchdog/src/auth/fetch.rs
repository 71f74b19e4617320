//! The issuer's documents, over plain HTTP.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{dial, settings, spelling};

/// How long an issuer may take for a document.
const PATIENCE: Duration = Duration::from_secs(10);
/// A larger document is none of an issuer.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Bytes of a failed answer that are shown.
const SHOWN_BYTES_MAX: usize = 200;

/// Gets a document; `what` says in errors which.
///
/// # Errors
/// A sentence: the server cannot be reached, does not answer 200, or answers with what is not the document.
pub async fn document<T: DeserializeOwned>(url: &str, what: &str) -> Result<T, String> {
    let failed = |why: String| format!("Get \"{url}\": {why}");
    let got = timeout(PATIENCE, get(url)).await;
    let got = got.map_err(|_| failed(format!("no answer within {} s", PATIENCE.as_secs())))?;
    let (status, body) = got.map_err(failed)?;
    if status != StatusCode::OK {
        let body = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]);
        let code = status.as_u16();
        return Err(format!("failed to get {what} from {url}, status code: {code}, body: {body}"));
    }
    serde_json::from_slice(&body).map_err(|error| failed(format!("it cannot be read: {error}")))
}

async fn get(url: &str) -> Result<(StatusCode, Bytes), String> {
    let server = settings::parse_upstream(url)?;
    let stream = dial::connect(&server.place).await.map_err(|error| dial_failure(url, &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with its sender.
    tokio::spawn(connection);
    let uri: Uri = url.parse().map_err(|_| "it is no URL".to_owned())?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(header::HOST, server.authority)
        .header(header::USER_AGENT, "openfaas-watchdog")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX).collect().await;
    let body = body.map_err(|error| format!("its body cannot be read: {error}"))?;
    Ok((status, body.to_bytes()))
}

fn dial_failure(url: &str, error: &io::Error) -> String {
    let authority = url.split('/').nth(2).unwrap_or_default();
    format!("dial tcp {authority}: connect: {}", spelling::failure(error))
}
