//! One repository at one server: asking for its documents and blobs.
//!
//! A request goes to the server itself, which may lead it elsewhere: what proves who we are goes to no other
//! server than the one that asked for it, and nobody leads us from TLS to none.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Full;
use pinnace_core::{limits, retry::Tries};
use tokio::sync::Mutex;

use super::{
    auth::{Asker, Challenge},
    client::{Answer, Client},
    credentials::{self, Credential},
    error::{Again, PullError, PullFault},
    source::{PlainHosts, Source},
};

/// The forms of manifests and indexes that are understood.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// Where the bytes of a document or a blob are.
pub(super) enum Part<'a> {
    /// A manifest or an index, by tag or digest.
    Manifest(&'a str),
    /// A blob, from a byte on.
    Blob(&'a str, u64),
}

/// A repository at a server.
pub(super) struct Repository<'a> {
    client: &'a Client,
    plain: &'a PlainHosts,
    source: Source,
    scheme: &'static str,
    name: &'a str,
    credential: Option<Credential>,
    /// What answered the last challenge.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Repository<'a> {
    /// Finds out how the server is spoken to, and who we are there.
    pub(super) async fn open(
        client: &'a Client,
        plain: &'a PlainHosts,
        source: Source,
        name: &'a str,
        docker_config: Option<&Path>,
    ) -> Result<Self, PullError> {
        let scheme = match source.scheme {
            None if !plain.allow(&source.authority) => "https",
            None if client.speaks_tls(&source.authority).await? => "https",
            None => "http",
            Some(scheme) => scheme,
        };
        let credential = credentials::find(docker_config, &source.account).await?;
        let authorization = Mutex::default();
        let repository = Self { client, plain, source, scheme, name, credential, authorization };
        repository.plain.check(&repository.url("")?, "the registry")?;
        Ok(repository)
    }

    /// How errors call it.
    pub(super) fn server(&self) -> &str {
        &self.source.authority
    }

    /// Asks for a part, again and again as long as that may help.
    pub(super) async fn get_patiently(
        &self,
        part: &Part<'_>,
        bytes_max: u64,
        what: &str,
    ) -> Result<(Option<String>, Vec<u8>), PullError> {
        let mut tries = Tries::default();
        loop {
            let got = async {
                let answer = self.get(part, what).await?;
                let digest = answer.headers().get("docker-content-digest");
                let digest = digest.and_then(|digest| digest.to_str().ok()).map(str::to_owned);
                Ok((digest, answer.into_body().all(bytes_max, what).await?))
            };
            match got.await {
                Ok(got) => return Ok(got),
                Err(error) => wait_or_give_up(error, &mut tries).await?,
            }
        }
    }

    /// Asks for a part once. The answer is 200, or 206 for a blob that does not begin at its first byte.
    pub(super) async fn get(&self, part: &Part<'_>, what: &str) -> Result<Answer, PullError> {
        let path = match part {
            Part::Manifest(wanted) => format!("/manifests/{wanted}"),
            Part::Blob(digest, _) => format!("/blobs/{digest}"),
        };
        let url = self.url(&path)?;
        let known = self.authorization.lock().await.clone();
        let answer = self.follow(&url, part, known.as_ref()).await?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return self.checked(answer, what);
        }
        let authorization = self.authorize(&answer, known).await?;
        let answer = self.follow(&url, part, Some(&authorization)).await?;
        self.checked(answer, what)
    }

    fn url(&self, path: &str) -> Result<Uri, PullError> {
        let Source { authority, prefix, .. } = &self.source;
        let text = format!("{}://{authority}{prefix}/v2/{}{path}", self.scheme, self.name);
        text.parse().map_err(|_| PullError::registry(format!("{text} is no URL")))
    }

    /// Answers a challenge, unless somebody has while we asked.
    async fn authorize(
        &self,
        challenged: &Answer,
        known: Option<HeaderValue>,
    ) -> Result<HeaderValue, PullError> {
        let mut authorization = self.authorization.lock().await;
        if let Some(newer) = authorization.clone().filter(|newer| Some(newer) != known.as_ref()) {
            return Ok(newer);
        }
        let server = self.server();
        let challenge = Challenge::of(challenged).ok_or_else(|| {
            let text = format!("{server} answered 401 and did not say how to prove who we are");
            PullError::new(PullFault::Denied, text)
        })?;
        let asker = Asker {
            client: self.client,
            registry: &self.source.account,
            repository: self.name,
            credential: self.credential.as_ref(),
            plain: self.plain,
            is_plain: self.scheme == "http",
        };
        let answer = asker.answer(&challenge).await?;
        *authorization = Some(answer.clone());
        Ok(answer)
    }

    /// Sends a request, to wherever it is led.
    async fn follow(
        &self,
        url: &Uri,
        part: &Part<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, PullError> {
        let mut target = url.clone();
        for _ in 0..=limits::REGISTRY_REDIRECTS_MAX {
            let mut request = Request::get(&target);
            match part {
                Part::Manifest(_) => request = request.header(header::ACCEPT, ACCEPTED),
                Part::Blob(_, 0) => {}
                Part::Blob(_, from) => {
                    request = request.header(header::RANGE, format!("bytes={from}-"));
                }
            }
            if let Some(authorization) = authorization.filter(|_| is_same_server(url, &target)) {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let request = request.body(Full::<Bytes>::default());
            let request = request.map_err(|error| PullError::registry(error.to_string()))?;
            let answer = self.client.send(request).await?;
            match answer.status().as_u16() {
                301 | 302 | 303 | 307 | 308 => target = self.led(&target, &answer)?,
                _ => return Ok(answer),
            }
        }
        let max = limits::REGISTRY_REDIRECTS_MAX;
        Err(PullError::registry(format!("{} redirects more than {max} times", self.server())))
    }

    /// Where a redirect leads.
    fn led(&self, from: &Uri, answer: &Answer) -> Result<Uri, PullError> {
        let server = self.server();
        let location = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
        let target = location.and_then(|location| led_to(from, location));
        let target = target.ok_or_else(|| {
            PullError::registry(format!("{server} redirects to something that is no URL"))
        })?;
        let what = format!("the place that {server} redirects to");
        self.plain.check(&target, &what)?;
        if from.scheme_str() == Some("https") && target.scheme_str() != Some("https") {
            return Err(PullError::registry(format!(
                "{what} is not encrypted although {server} is"
            )));
        }
        Ok(target)
    }

    /// The answer, if it holds what was asked for.
    fn checked(&self, answer: Answer, what: &str) -> Result<Answer, PullError> {
        let (server, status) = (self.server(), answer.status());
        let said = format!("{server} answered {status} for {what}");
        Err(match status.as_u16() {
            200 | 206 | 416 => return Ok(answer),
            401 | 403 => {
                let text = match self.credential {
                    Some(_) => format!("{said}: the login for it does not allow that"),
                    None => {
                        format!("{said}: it may not exist, or `docker login {server}` is needed")
                    }
                };
                PullError::new(PullFault::Denied, text)
            }
            404 => PullError::new(PullFault::NotFound, format!("{said}: it is not there")),
            408 | 429 | 500..=599 => PullError::passing(said, retry_after(&answer)),
            _ => PullError::registry(said),
        })
    }
}

/// Waits before the next try, if there is to be one.
pub(super) async fn wait_or_give_up(error: PullError, tries: &mut Tries) -> Result<(), PullError> {
    let Again::Perhaps(asked) = error.again() else { return Err(error) };
    let Some(wait) = tries.on_failure(asked) else { return Err(error) };
    tracing::info!(%error, ?wait, "a registry is asked again");
    tokio::time::sleep(wait).await;
    Ok(())
}

fn is_same_server(one: &Uri, other: &Uri) -> bool {
    one.scheme() == other.scheme() && one.authority() == other.authority()
}

/// The address that a `Location` means, seen from an address.
fn led_to(from: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or(location);
    let scheme = from.scheme_str()?;
    let target = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{}{location}", from.authority()?)
    } else {
        location.to_owned()
    };
    let target: Uri = target.parse().ok()?;
    let names_nobody = |authority: &http::uri::Authority| !authority.as_str().contains('@');
    (target.scheme().is_some() && target.authority().is_some_and(names_nobody)).then_some(target)
}

/// How long a server asks to be left alone, in seconds or as a date.
fn retry_after(answer: &Answer) -> Option<Duration> {
    let text = answer.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(std::time::SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let from: Uri = "https://a.example:5000/v2/x?y".parse().unwrap();
        for (location, target) in [
            ("/v2/z", Some("https://a.example:5000/v2/z")),
            ("//b.example/z", Some("https://b.example/z")),
            ("http://b.example/z?q=1#part", Some("http://b.example/z?q=1")),
            ("relative", None),
            ("https://user:secret@b.example/", None),
            ("//user:secret@b.example/", None),
            ("", None),
        ] {
            let found = led_to(&from, location).map(|target| target.to_string());
            assert_eq!(found.as_deref(), target, "{location}");
        }
        let same = |other: &str| is_same_server(&from, &other.parse().unwrap());
        assert!(same("https://a.example:5000/other"));
        assert!(!same("https://a.example/other"));
        assert!(!same("http://a.example:5000/other"));
        assert!(!same("https://b.example:5000/other"));
    }
}
