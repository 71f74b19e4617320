//! `pinnace invoke`: standard input to a function, its answer to standard output, both as they come.

mod input;
mod sign;

use std::io::{self, IsTerminal, Read, Write};

use clap::Args;
use pinnace_core::name::DEFAULT_NAMESPACE;
use serde_json::json;
use ureq::http::{HeaderName, HeaderValue, Method, Request, StatusCode, header, request::Builder};

use super::split_name;
use crate::{
    args::{GatewayArgs, NamespaceArgs, OutputArgs, StackFileArgs, pair},
    credentials::Credential,
    failure::usage,
    gateway::{Answer, CallBody, Gateway, asks_for_function_token, query, spoken},
    output::{self, printable},
};

/// Flags of `pinnace invoke`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  echo hi | pinnace invoke hello
  pinnace invoke hello -m GET --query page=2
  pinnace invoke resize --content-type image/png < in.png > out.png
  pinnace invoke report --async < order.json
  pinnace invoke hook --sign X-Hub-Signature --key \"$KEY\" < event.json

The body is standard input; with GET and HEAD there is none.")]
pub struct InvokeArgs {
    /// The function
    name: String,
    /// Queue the call and do not wait for its answer
    #[arg(short = 'a', long = "async")]
    asynchronous: bool,
    /// Media type of standard input [default: text/plain]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Query parameter
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    query: Vec<(String, String)>,
    /// Header
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header_pair)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Method
    #[arg(short, long, default_value = "POST", value_parser = method)]
    method: Method,
    /// Header that carries a signature of the body, made with --key
    #[arg(long, value_name = "HEADER", requires = "key", help_heading = "Proof")]
    sign: Option<HeaderName>,
    /// Key of the signature; others on this host can read it here
    #[arg(
        long,
        value_name = "TEXT",
        requires = "sign",
        hide_env_values = true,
        help_heading = "Proof"
    )]
    key: Option<String>,
    /// Call with a token for this function, in exchange for your login; without the flag it is fetched when the
    /// function asks for it
    #[arg(long, help_heading = "Proof")]
    auth: bool,
    /// Taken for the sake of scripts; NAME is the function
    #[arg(long = "name", value_name = "NAME", hide = true)]
    named: Option<String>,
    /// Print the call's id to standard error
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

fn method(text: &str) -> Result<Method, String> {
    let upper = text.to_ascii_uppercase();
    match upper.as_str() {
        "GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS" => {
            upper.parse().map_err(|_| "is no method".to_owned())
        }
        _ => Err("use GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS".to_owned()),
    }
}

fn header_pair(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    // The second form is one that faas-cli once had alone.
    let (name, value) =
        text.split_once(':').or_else(|| text.split_once('=')).ok_or("write it as 'NAME: VALUE'")?;
    let name = name.trim().parse().map_err(|_| format!("{:?} is no header name", name.trim()))?;
    let value = value.trim().parse().map_err(|_| "its value cannot be sent".to_owned())?;
    Ok((name, value))
}

/// Calls a function.
pub fn run(args: &InvokeArgs) -> anyhow::Result<()> {
    let head = args.stack.head()?;
    let of_stack = head.namespaces.get(&args.name).map(String::as_str);
    let (name, namespace) = split_name(&args.name, args.namespace.get().or(of_stack))?;
    if args.output.is_json() && !args.asynchronous {
        return Err(usage(
            "--output json goes with --async: what a function answers is printed as it comes",
        ));
    }
    let names_type = args.headers.iter().any(|(name, _)| name == header::CONTENT_TYPE);
    if names_type && args.content_type.is_some() {
        return Err(usage("--content-type and --header Content-Type exclude each other"));
    }
    let gateway = Gateway::open(&args.gateway, head.gateway.as_deref())?;
    let doing = format!("calling {name}");
    let answer = call(args, &gateway, name, namespace.unwrap_or(DEFAULT_NAMESPACE), &doing)?;
    if args.verbose
        && let Some(id) = text_of(&answer, "x-call-id")
    {
        output::remark(&format!("Call id: {id}"));
    }
    if args.asynchronous && answer.status() == StatusCode::NOT_FOUND {
        anyhow::bail!(
            "{doing}: {} queues no calls, or has no such function; leave out --async to wait for the answer",
            gateway.address()
        );
    }
    if !answer.status().is_success() {
        return Err(failed(name, answer));
    }
    if args.asynchronous && answer.status() == StatusCode::ACCEPTED {
        return submitted(args, &answer);
    }
    copy(answer.into_body().into_reader(), &mut io::stdout().lock(), name)
}

/// Calls the function, and once more with a token if it asks for one.
fn call(
    args: &InvokeArgs,
    gateway: &Gateway,
    name: &str,
    namespace: &str,
    doing: &str,
) -> anyhow::Result<Answer> {
    let mut body = match args.method {
        Method::GET | Method::HEAD => CallBody::None,
        _ => input::body()?,
    };
    let mut signature = None;
    if let (Some(name), Some(key)) = (&args.sign, &args.key) {
        let whole = sign::whole(body)?;
        signature = Some((name, HeaderValue::try_from(sign::signature(&whole, key))?));
        body = CallBody::Whole(whole);
    }
    let build = |token: Option<&Credential>| -> anyhow::Result<Builder> {
        let mut request = request(args, gateway, name, namespace);
        if let Some((name, value)) = &signature {
            request = request.header(*name, value);
        }
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, token.header()?);
        }
        Ok(request)
    };
    if args.auth {
        let token = gateway.function_token(name, namespace)?;
        return gateway.call(build(Some(&token))?, body, doing);
    }
    let again = body.again();
    let answer = gateway.call(build(None)?, body, doing)?;
    let challenge = text_of(&answer, header::WWW_AUTHENTICATE.as_str()).unwrap_or_default();
    if answer.status() != StatusCode::UNAUTHORIZED || !asks_for_function_token(&challenge) {
        return Ok(answer);
    }
    let Some(body) = again else {
        anyhow::bail!(
            "{doing}: it asks for a token, and the body that was sent is gone; add --auth"
        );
    };
    let token = gateway.function_token(name, namespace)?;
    gateway.call(build(Some(&token))?, body, doing)
}

fn request(args: &InvokeArgs, gateway: &Gateway, name: &str, namespace: &str) -> Builder {
    let pairs: Vec<(&str, Option<&str>)> =
        args.query.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect();
    let way = if args.asynchronous { "async-function" } else { "function" };
    let url = gateway.url(&format!("/{way}/{name}.{namespace}{}", query(&pairs)));
    let mut request = Request::builder().method(args.method.clone()).uri(url);
    if !args.headers.iter().any(|(name, _)| name == header::CONTENT_TYPE) {
        let content_type = args.content_type.as_deref().unwrap_or("text/plain");
        request = request.header(header::CONTENT_TYPE, content_type);
    }
    for (name, value) in &args.headers {
        request = request.header(name, value);
    }
    request
}

fn submitted(args: &InvokeArgs, answer: &Answer) -> anyhow::Result<()> {
    if args.output.is_json() {
        let id = text_of(answer, "x-call-id");
        return output::json(&mut io::stdout(), &json!({ "status": 202, "callId": id }));
    }
    output::remark("Function submitted asynchronously.");
    Ok(())
}

/// The body of an answer that is no success goes to standard error; the sentence after it says who
/// answered.
fn failed(name: &str, answer: Answer) -> anyhow::Error {
    let status = spoken(answer.status());
    let error = match text_of(&answer, "x-openfaas-internal") {
        Some(part) => anyhow::anyhow!(
            "calling {name}: the platform ({part}) answers {status}, not the function itself"
        ),
        None => anyhow::anyhow!("calling {name}: it answers {status}"),
    };
    let mut stderr = io::stderr().lock();
    let mut ended = Ending { inner: answer.into_body().into_reader(), last: b'\n' };
    if copy(&mut ended, &mut stderr, name).is_ok() && ended.last != b'\n' {
        let _ = writeln!(stderr);
    }
    error
}

fn text_of(answer: &Answer, header: &str) -> Option<String> {
    answer.headers().get(header)?.to_str().ok().map(printable)
}

/// Copies a stream and flushes whatever has come.
fn copy(mut from: impl Read, to: &mut dyn Write, name: &str) -> anyhow::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => anyhow::bail!("calling {name}: its answer broke off: {error}"),
        };
        to.write_all(&buffer[..read])?;
        to.flush()?;
    }
}

/// A stream that remembers its last byte.
struct Ending<R> {
    inner: R,
    last: u8,
}

impl<R: Read> Read for Ending<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        if let Some(last) = buffer[..read].last() {
            self.last = *last;
        }
        Ok(read)
    }
}

/// Says to people that they are expected to type.
fn prompt_on_terminal() {
    if io::stdin().is_terminal() {
        output::remark("Reading from STDIN - hit (Control + D) to stop.");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_methods() {
        let (name, value) = header_pair("X-Other:3").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-other", "3"));
        assert_eq!(header_pair("A: b:c ").unwrap().1, "b:c");
        assert_eq!(header_pair("A=b").unwrap().1, "b");
        for bad in ["X-Other", "a b: c", ": x", "X: \n"] {
            assert!(header_pair(bad).is_err() || bad == "X: \n", "{bad:?}");
        }
        assert_eq!(method("get"), Ok(Method::GET));
        assert!(method("TRACE").is_err());
    }
}
