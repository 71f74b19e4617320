//! A gateway as its clients see it: a URL, who we are there, and requests to it.
//!
//! No redirect is followed on the way to `/system`: a PUT would silently become a GET, and credentials
//! would go where nobody meant them to.

mod address;
mod answer;
mod building;
mod debug;
mod early;
mod functions;
mod lines;
mod namespaces;
mod secrets;
mod tokens;

use std::{io::Read, time::Duration};

use pinnace_core::{limits, name::DEFAULT_NAMESPACE};
use serde::de::DeserializeOwned;
use ureq::{
    Agent, AsSendBody, SendBody,
    http::{Method, Request, Response, StatusCode, header, request},
    tls::TlsConfig,
    unversioned::{
        resolver::DefaultResolver,
        transport::{Connector, DefaultConnector},
    },
};

pub use address::{Address, DEFAULT};
pub use answer::spoken;
pub use lines::Lines;
pub use namespaces::marked;
pub use tokens::asks_for_function_token;

use crate::{
    args::GatewayArgs,
    credentials::{self, Credential},
    output,
};

/// Statuses that mean "taken": 202 where it goes on in the background, 200 where it is done, 201 where
/// something is new, and 204 where there is nothing to say.
const TAKEN: [StatusCode; 4] =
    [StatusCode::OK, StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];

/// Where values of secrets are sent.
const PATH_OF_SECRETS: &str = "/system/secrets";

/// An answer whose body is still to be read.
pub type Answer = Response<ureq::Body>;

/// A gateway, and who we are there.
pub struct Gateway {
    agent: Agent,
    address: Address,
    /// Whether a flag or a stack file names it.
    is_named: bool,
    credential: Option<Credential>,
    stopped: early::Stopped,
}

/// What limits a request's time.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// The whole answer within the limit of plain requests.
    Request,
    /// The whole answer within this time.
    Within(Duration),
    /// A stream: no limit once connected.
    Stream,
    /// A stream that may be silent for so long.
    Idle(Duration),
}

impl Gateway {
    /// The gateway that the flags, the stack file's gateway or the environment name, with the
    /// credentials for it.
    ///
    /// # Errors
    /// No URL, or stored credentials that cannot be read.
    pub fn open(args: &GatewayArgs, from_stack: Option<&str>) -> anyhow::Result<Self> {
        let variable = |name: &str| std::env::var(name).ok();
        let address = Address::choose(args.gateway.as_deref(), from_stack, variable)?;
        let credential = credentials::for_gateway(&address, args.token.as_deref())?;
        if args.tls_no_verify {
            output::warn(&format!("the certificate of {address} is not checked"));
        }
        let is_named = args.gateway.is_some() || from_stack.is_some();
        Ok(Self { is_named, ..Self::new(address, credential, args.tls_no_verify) })
    }

    /// A gateway at an address.
    pub fn new(address: Address, credential: Option<Credential>, tls_no_verify: bool) -> Self {
        let tls = TlsConfig::builder().disable_verification(tls_no_verify).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(limits::CLIENT_CONNECT_TIME_MAX))
            .tls_config(tls)
            .user_agent(concat!("pinnace/", env!("CARGO_PKG_VERSION")));
        // A proxy is for other hosts; what is meant for this one must not leave it.
        let config = if address.is_loopback() { config.proxy(None) } else { config };
        let stopped = early::Stopped::default();
        let connector = DefaultConnector::new().chain(early::EarlyAnswer(stopped.clone()));
        let agent = Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Self { agent, address, is_named: false, credential, stopped }
    }

    /// Its address.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// A command line of ours that asks the same gateway: `words`, and what else it needs.
    pub fn command(&self, words: &str, namespace: Option<&str>) -> String {
        let mut command = format!("pinnace {words}");
        if let Some(namespace) = namespace.filter(|namespace| *namespace != DEFAULT_NAMESPACE) {
            command.push_str(&format!(" -n {namespace}"));
        }
        if self.is_named {
            command.push_str(&format!(" --gateway {}", self.address));
        }
        command
    }

    /// Sends a request without a body to `/system` and returns the answer, whatever its status.
    ///
    /// # Errors
    /// No answer came; the error says so in terms of `doing`.
    pub fn ask(
        &self,
        method: Method,
        target: &str,
        patience: Patience,
        doing: &str,
    ) -> anyhow::Result<Answer> {
        let request = self.system(method, target)?.body(SendBody::none())?;
        self.run(request, patience, 0, doing)
    }

    /// Sends a request without a body and without saying who we are, and returns the answer, whatever its
    /// status.
    ///
    /// # Errors
    /// No answer came; the error says so in terms of `doing`.
    pub fn ask_openly(
        &self,
        method: Method,
        target: &str,
        patience: Patience,
        doing: &str,
    ) -> anyhow::Result<Answer> {
        let request = Request::builder().method(method).uri(self.url(target));
        self.run(request.body(SendBody::none())?, patience, 0, doing)
    }

    /// Sends JSON to `/system` and returns the answer, whatever its status.
    ///
    /// # Errors
    /// No answer came; the error says so in terms of `doing`.
    pub fn tell(
        &self,
        method: Method,
        target: &str,
        body: &impl serde::Serialize,
        patience: Patience,
        doing: &str,
    ) -> anyhow::Result<Answer> {
        let body = serde_json::to_vec(body)?;
        let mut request = self.system(method, target)?;
        request = request.header(header::CONTENT_TYPE, "application/json");
        if debug::is_on() && !target.starts_with(PATH_OF_SECRETS) {
            request = request.extension(debug::Shown(body.clone()));
        }
        self.run(request.body(&body[..])?, patience, 0, doing)
    }

    /// Sends a stream to `/system` and returns the answer, which may come before the stream's end.
    ///
    /// # Errors
    /// No answer came, or the stream could not be read.
    pub fn upload(
        &self,
        target: &str,
        kind: &str,
        body: impl Read + 'static,
        doing: &str,
    ) -> anyhow::Result<Answer> {
        self.stopped.reset();
        let body = SendBody::from_owned_reader(early::Body::new(body, self.stopped.clone()));
        let mut request = self.system(Method::POST, target)?;
        request = request.header(header::CONTENT_TYPE, kind);
        // A server that refuses the upload by its head alone says so before it is sent.
        request = request.header(header::EXPECT, "100-continue");
        let patience = Patience::Idle(limits::CLIENT_LOAD_IDLE_MAX);
        self.run(request.body(body)?, patience, 0, doing)
    }

    /// A request to `/system`, which says who we are.
    fn system(&self, method: Method, target: &str) -> anyhow::Result<request::Builder> {
        let mut request = Request::builder().method(method).uri(self.url(target));
        // A server that can tell how far it is does so only to those who would read it.
        request =
            request.header(header::ACCEPT, "application/json, application/x-ndjson, text/plain");
        if let Some(credential) = &self.credential {
            request = request.header(header::AUTHORIZATION, credential.header()?);
        }
        Ok(request)
    }

    /// Calls a function. Functions need no login, so no credential goes to them.
    ///
    /// # Errors
    /// No answer came, or the body could not be read.
    pub fn call(
        &self,
        request: request::Builder,
        body: CallBody,
        doing: &str,
    ) -> anyhow::Result<Answer> {
        self.stopped.reset();
        let body = match &body {
            CallBody::None => return self.run(request.body(())?, Patience::Stream, 10, doing),
            CallBody::Whole(bytes) => {
                return self.run(request.body(&bytes[..])?, Patience::Stream, 10, doing);
            }
            CallBody::Stream(_) => body.into_stream(),
        };
        let body = SendBody::from_owned_reader(early::Body::new(body, self.stopped.clone()));
        self.run(request.body(body)?, Patience::Stream, 10, doing)
    }

    fn run(
        &self,
        request: Request<impl AsSendBody>,
        patience: Patience,
        redirects: u32,
        doing: &str,
    ) -> anyhow::Result<Answer> {
        debug::show(&request);
        let config = self.agent.configure_request(request).max_redirects(redirects);
        let config = config.max_redirects_will_error(false);
        let request = match patience {
            Patience::Request => config.timeout_global(Some(limits::CLIENT_REQUEST_TIME_MAX)),
            Patience::Within(time) => config.timeout_global(Some(time)),
            Patience::Stream => config,
            Patience::Idle(time) => config.timeout_per_read(Some(time)),
        };
        let answer = self.agent.run(request.build());
        answer.map_err(|error| answer::no_answer(&self.address, doing, &error))
    }

    /// The URL of a path and query below the gateway's own.
    pub fn url(&self, target: &str) -> String {
        format!("{}{target}", self.address)
    }

    /// The JSON of a 200 answer.
    ///
    /// # Errors
    /// Another status, or a body that is not understood.
    pub fn read<T: DeserializeOwned>(&self, answer: Answer, doing: &str) -> anyhow::Result<T> {
        self.read_of(answer, &[StatusCode::OK], doing)
    }

    /// The JSON of an answer with one of these statuses.
    ///
    /// # Errors
    /// Another status, or a body that is not understood.
    pub fn read_of<T: DeserializeOwned>(
        &self,
        answer: Answer,
        statuses: &[StatusCode],
        doing: &str,
    ) -> anyhow::Result<T> {
        let mut answer = self.expect(answer, statuses, doing)?;
        let body = answer.body_mut().as_reader().take(limits::ANSWER_BYTES_MAX);
        serde_json::from_reader(std::io::BufReader::new(body)).map_err(|error| {
            anyhow::anyhow!("{doing}: the answer of {} is not understood: {error}", self.address)
        })
    }

    /// The answer, if its status is one of these.
    ///
    /// # Errors
    /// Another status, in words.
    pub fn expect(
        &self,
        answer: Answer,
        statuses: &[StatusCode],
        doing: &str,
    ) -> anyhow::Result<Answer> {
        if statuses.contains(&answer.status()) {
            return Ok(answer);
        }
        Err(answer::refused(&self.address, doing, answer))
    }
}

/// The body of a call.
pub enum CallBody {
    /// None, as for GET.
    None,
    /// All of it; its length is sent.
    Whole(Vec<u8>),
    /// Sent as it comes.
    Stream(Box<dyn Read + Send>),
}

impl CallBody {
    /// The same body once more; `None` for one that is sent as it comes.
    pub fn again(&self) -> Option<Self> {
        match self {
            Self::None => Some(Self::None),
            Self::Whole(bytes) => Some(Self::Whole(bytes.clone())),
            Self::Stream(_) => None,
        }
    }

    fn into_stream(self) -> Box<dyn Read + Send> {
        match self {
            Self::None => Box::new(std::io::empty()),
            Self::Whole(bytes) => Box::new(std::io::Cursor::new(bytes)),
            Self::Stream(stream) => stream,
        }
    }
}

/// A query of pairs, those without a value left out: `?name=a&namespace=b`, or nothing.
pub fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(&encoded(name));
            text.push('=');
            text.push_str(&encoded(value));
        }
    }
    text
}

/// Percent-encoding of everything but RFC 3986's unreserved characters.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_leave_out_what_is_not_given_and_encode_the_rest() {
        assert_eq!(query(&[("a", None)]), "");
        assert_eq!(
            query(&[("a", Some("1")), ("b", None), ("c", Some("x y&/ä"))]),
            "?a=1&c=x%20y%26%2F%C3%A4"
        );
    }
}
