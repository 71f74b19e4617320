//! Callbacks: the answer to an asynchronous call goes to the URL that its caller gave (contract section 7.3).
//!
//! Best effort: a few tries, and none after a crash. The URL comes from anybody who may call functions, so what
//! it reaches is bounded, however a name resolves. Addresses of one link (where clouds keep credentials), of many
//! hosts and of none are refused; of this server functions alone are reached. Beyond that a callback goes no further
//! than whoever asked for it ([`Reach`]): to this host's own services for callers on this host, to what a function's
//! network is for a function, to other hosts for callers on them, whose services are in private ranges. No redirect
//! is followed, and no credential of ours is sent.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::Full;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, dns::Name},
    },
    rt::TokioExecutor,
};
use pinnace_core::{
    FunctionRef, limits,
    network::{self, Block, Reach},
};
use pinnace_proxy::h1::{WholeAnswer, write_header};
use tokio::{
    sync::{OnceCell, OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tower::util::BoxCloneSyncService;

use super::{Call, Callback, delivery::ask};
use crate::{
    proxy::{door::Door, route::Route, stamp::QUEUE_AGENT},
    tls::chain,
};

/// The names by which functions call the gateway, and its port there.
const GATEWAY_NAMES: [&str; 3] =
    ["gateway", "gateway.openfaas", "gateway.openfaas.svc.cluster.local"];
const GATEWAY_PORT: u16 = 8080;

/// Where a cloud keeps credentials beside addresses of the link: Amazon's metadata over IPv6.
const METADATA_V6: [u16; 8] = [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254];

type Resolver = BoxCloneSyncService<Name, std::vec::IntoIter<SocketAddr>, io::Error>;
type Client = legacy::Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Sends callbacks.
pub struct Callbacks {
    places: Arc<Semaphore>,
    /// Places of each receiver, so that one that hangs leaves some to others.
    receivers: Mutex<HashMap<String, Weak<Semaphore>>>,
    /// Ports of this server.
    own_ports: Vec<u16>,
    /// Ranges that functions with network nat do not reach.
    closed: Arc<[RangeInclusive<Ipv4Addr>]>,
    clients: OnceCell<Clients>,
}

/// A place for a callback, among those of its receiver and among all; given back when it is dropped.
pub(super) struct CallbackPlace {
    _of_receiver: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

/// Connections are not kept.
struct Clients {
    anywhere: Bounded,
    elsewhere: Bounded,
    nat: Bounded,
}

/// A client that keeps to its bounds where names are resolved; who spells an address out is to be asked about it.
struct Bounded {
    client: Client,
    bounds: Bounds,
}

/// Which addresses a callback may have.
#[derive(Clone)]
enum Bounds {
    Anywhere,
    /// Not this host's.
    Elsewhere,
    /// Neither this host's nor these.
    Nat(Arc<[RangeInclusive<Ipv4Addr>]>),
}

/// What a callback is told.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) callback: Callback,
    pub(super) function: FunctionRef,
    pub(super) call_id: String,
    pub(super) answer: WholeAnswer,
    pub(super) took: Duration,
    pub(super) retries: u32,
    pub(super) retries_max: u32,
}

/// Why a try came to nothing.
enum Fault {
    /// Another try would end the same.
    Lasting(String),
    /// It may pass.
    Passing(String),
}

/// What an address is, as far as callbacks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Refused,
    ThisHost,
    Elsewhere,
}

impl Callbacks {
    /// Callbacks of a server that has these ports, and opens these private ranges to functions.
    #[must_use]
    pub fn new(own_ports: Vec<u16>, allow_net: &[Block]) -> Self {
        let places = Arc::new(Semaphore::new(limits::CALLBACKS_MAX));
        let closed = network::closed(allow_net).into();
        let receivers = Mutex::default();
        Self { places, receivers, own_ports, closed, clients: OnceCell::new() }
    }

    /// Waits for a place for a callback, its receiver's first. `None` if it is given up, which is said on the log: all that
    /// it may have were taken for too long.
    pub(super) async fn place(&self, told: &Told) -> Option<CallbackPlace> {
        let receiver = self.receiver(receiver(&told.callback.url));
        let places = async {
            let of_receiver = receiver.acquire_owned().await.ok()?;
            let of_all = self.places.clone().acquire_owned().await.ok()?;
            Some(CallbackPlace { _of_receiver: of_receiver, _of_all: of_all })
        };
        if let Ok(place) = timeout(limits::CALLBACK_PLACE_WAIT_MAX, places).await {
            return place;
        }
        tracing::warn!(
            function = %told.function,
            call_id = told.call_id,
            "the answer to an asynchronous call did not reach its callback: for {} s whoever receives it was busy with \
             {} others, or all receivers with {} (CALLBACK_PLACE_WAIT_MAX, CALLBACKS_PER_RECEIVER_MAX, CALLBACKS_MAX)",
            limits::CALLBACK_PLACE_WAIT_MAX.as_secs(),
            limits::CALLBACKS_PER_RECEIVER_MAX,
            limits::CALLBACKS_MAX,
        );
        None
    }

    fn receiver(&self, name: String) -> Arc<Semaphore> {
        let mut receivers = self.receivers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = receivers.get(&name).and_then(Weak::upgrade) {
            return known;
        }
        // As many as there are deliveries can be in use.
        if receivers.len() >= 2 * limits::DELIVERIES_MAX {
            receivers.retain(|_, places| places.strong_count() > 0);
        }
        let places = Arc::new(Semaphore::new(limits::CALLBACKS_PER_RECEIVER_MAX));
        receivers.insert(name, Arc::downgrade(&places));
        places
    }

    /// Sends one, with a few tries. What it comes to is said on the log.
    pub(super) async fn send(&self, door: &Door, told: &Told) {
        let mut wait = limits::CALLBACK_WAIT_MIN;
        for tries in 1.. {
            let sent = timeout(limits::CALLBACK_TIME_MAX, self.try_send(door, told)).await;
            let late = || {
                let most = limits::CALLBACK_TIME_MAX.as_secs();
                Err(Fault::Passing(format!("it did not answer within {most} s")))
            };
            let why = match sent.unwrap_or_else(|_| late()) {
                Ok(()) => return,
                Err(Fault::Passing(_)) if tries < limits::CALLBACK_TRIES_MAX => {
                    sleep(wait).await;
                    wait *= 2;
                    continue;
                }
                Err(Fault::Passing(why) | Fault::Lasting(why)) => why,
            };
            tracing::warn!(
                function = %told.function,
                call_id = told.call_id,
                tries,
                why,
                "the answer to an asynchronous call did not reach its callback"
            );
            return;
        }
    }

    async fn try_send(&self, door: &Door, told: &Told) -> Result<(), Fault> {
        let uri: Uri =
            told.callback.url.parse().map_err(|_| Fault::Lasting("it is no URL".to_owned()))?;
        let status = match is_gateway(&uri) {
            true => through_door(door, told, &uri).await?,
            false => self.over_network(told, uri).await?,
        };
        match status {
            429 | 500.. => Err(Fault::Passing(format!("it answered {status}"))),
            300.. => Err(Fault::Lasting(format!("it answered {status}"))),
            _ => Ok(()),
        }
    }

    async fn over_network(&self, told: &Told, uri: Uri) -> Result<u16, Fault> {
        if !told.callback.stays_within_reach() {
            return Err(Fault::Lasting("it may go to functions of this server alone".to_owned()));
        }
        let build = || Clients::build(self.closed.clone());
        let clients = self.clients.get_or_try_init(build).await?;
        let is_https = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let is_ours = self.own_ports.contains(&port);
        let Bounded { client, bounds } = match told.callback.reach {
            // Of this server, functions; of this host, the rest for who is on it.
            Reach::Host if !is_ours || is_function_path(&uri) => &clients.anywhere,
            Reach::Elsewhere if is_ours && is_function_path(&uri) => &clients.anywhere,
            Reach::Host | Reach::Elsewhere => &clients.elsewhere,
            Reach::Nat | Reach::Gateway => &clients.nat,
        };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        // Addresses that are spelled out are resolved by nobody.
        if let Ok(address) = host.parse()
            && !bounds.allow(address)
        {
            return Err(Fault::Lasting(refusal(host)));
        }
        let request = request(told, uri).map_err(Fault::Lasting)?;
        let answer = client.request(request).await.map_err(|error| {
            let why = chain(&error).last().map(ToString::to_string).unwrap_or_default();
            Fault::Passing(why)
        })?;
        Ok(answer.status().as_u16())
    }
}

impl Clients {
    /// Reads the host's certificates, which takes a while, when the first callback needs them.
    async fn build(closed: Arc<[RangeInclusive<Ipv4Addr>]>) -> Result<Self, Fault> {
        let built = tokio::task::spawn_blocking(|| {
            let provider = rustls::crypto::ring::default_provider();
            let tls = rustls::ClientConfig::builder_with_provider(provider.into())
                .with_safe_default_protocol_versions()
                .map_err(|error| Fault::Lasting(format!("there is no TLS: {error}")))?;
            let tls = match tls.clone().with_native_roots() {
                Ok(tls) => tls,
                Err(_) => tls.with_root_certificates(rustls::RootCertStore::empty()),
            };
            let tls = tls.with_no_client_auth();
            Ok(Self {
                anywhere: Bounded::new(tls.clone(), Bounds::Anywhere),
                elsewhere: Bounded::new(tls.clone(), Bounds::Elsewhere),
                nat: Bounded::new(tls, Bounds::Nat(closed)),
            })
        });
        built.await.map_err(|error| Fault::Passing(error.to_string()))?
    }
}

impl Bounded {
    fn new(tls: rustls::ClientConfig, bounds: Bounds) -> Self {
        let kept = bounds.clone();
        let resolver = tower::service_fn(move |name: Name| {
            let bounds = kept.clone();
            async move {
                let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
                let found: Vec<_> = found.filter(|found| bounds.allow(found.ip())).collect();
                match found.is_empty() {
                    true => Err(io::Error::other(refusal(name.as_str()))),
                    false => Ok(found.into_iter()),
                }
            }
        });
        let mut tcp = HttpConnector::new_with_resolver(Resolver::new(resolver));
        tcp.enforce_http(false);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        let client = builder.pool_max_idle_per_host(0).build(https);
        Self { client, bounds }
    }
}

fn refusal(host: &str) -> String {
    format!(
        "{host} has no address that this callback may reach: those of one link, of many hosts and of none are \
         refused, of this server all but /function/ and /async-function/, this host's own unless the call came from \
         this host, and for functions what their network does not reach"
    )
}

impl Bounds {
    fn allow(&self, address: IpAddr) -> bool {
        match (place(address), self) {
            (Place::Refused, _) => false,
            (_, Self::Anywhere) => true,
            (Place::ThisHost, _) => false,
            (Place::Elsewhere, Self::Elsewhere) => true,
            (Place::Elsewhere, Self::Nat(closed)) => match address.to_canonical() {
                IpAddr::V4(v4) => !closed.iter().any(|range| range.contains(&v4)),
                // Networks of functions have none.
                IpAddr::V6(_) => false,
            },
        }
    }
}

impl Callback {
    /// Whether it stays within its reach, as far as it can be told before its name is resolved.
    #[must_use]
    pub fn stays_within_reach(&self) -> bool {
        let is_function = |uri: Uri| is_gateway(&uri) && is_function_path(&uri);
        self.reach != Reach::Gateway || self.url.parse().is_ok_and(is_function)
    }
}

fn place(address: IpAddr) -> Place {
    let address = address.to_canonical();
    let is_refused = match address {
        IpAddr::V4(v4) => {
            v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast() || v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.segments() == METADATA_V6
        }
    };
    if is_refused {
        return Place::Refused;
    }
    // An address that can be bound is one of this host.
    let is_here = address.is_loopback() || UdpSocket::bind((address, 0)).is_ok();
    if is_here { Place::ThisHost } else { Place::Elsewhere }
}

fn is_gateway(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    uri.scheme_str() == Some("http")
        && uri.port_u16() == Some(GATEWAY_PORT)
        && GATEWAY_NAMES.iter().any(|name| host.eq_ignore_ascii_case(name))
}

/// Who gets a callback: a function, or else whatever listens at one port of a host.
fn receiver(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return String::new() };
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
    match Route::of(target(&uri)) {
        Route::Function { segment, .. } | Route::Async { segment, .. } if is_gateway(&uri) => {
            format!("{host}/{segment}")
        }
        _ => host,
    }
}

fn is_function_path(uri: &Uri) -> bool {
    matches!(Route::of(target(uri)), Route::Function { .. } | Route::Async { .. })
}

fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |target| target.as_str())
}

/// Calls the gateway, which is this server.
async fn through_door(door: &Door, told: &Told, uri: &Uri) -> Result<u16, Fault> {
    if !is_function_path(uri) {
        let text = "the gateway serves /function/NAME and /async-function/NAME alone";
        return Err(Fault::Lasting(text.to_owned()));
    }
    let mut headers = Vec::new();
    let host = uri.authority().map(|authority| authority.as_str().as_bytes()).unwrap_or_default();
    write_header(&mut headers, b"host", host);
    for (name, value) in &headers_of(told) {
        write_header(&mut headers, name.as_str().as_bytes(), value.as_bytes());
    }
    let call = Call {
        function: told.function.clone(),
        id: told.call_id.clone(),
        method: "POST".to_owned(),
        target: String::new(),
        headers,
        callback: None,
        body: told.answer.body.clone(),
    };
    let answer = ask(door, &call, target(uri), 0).await;
    answer.map(|answer| answer.status).map_err(|error| Fault::Passing(error.to_string()))
}

fn request(told: &Told, uri: Uri) -> Result<Request<Full<Bytes>>, String> {
    let authorization = authorization(&uri);
    let mut request = Request::post(uri)
        .body(Full::new(Bytes::from(told.answer.body.clone())))
        .map_err(|error| error.to_string())?;
    *request.headers_mut() = headers_of(told);
    if let Some(authorization) = authorization {
        request.headers_mut().insert(header::AUTHORIZATION, authorization);
    }
    Ok(request)
}

/// What a URL's own user and password become.
fn authorization(uri: &Uri) -> Option<HeaderValue> {
    let (user, _) = uri.authority()?.as_str().rsplit_once('@')?;
    let user = percent_encoding::percent_decode_str(user).collect::<Vec<u8>>();
    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(user))).ok()
}

/// The function's headers, and what is told of the call.
fn headers_of(told: &Told) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for (name, value) in &told.answer.headers {
        let name = HeaderName::try_from(name.as_str());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    // Of the function's own answer; the message is framed anew.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::HOST);
    // Of a function that is called next it would ask for a callback in the platform's name, and so on for ever.
    headers.remove("x-callback-url");
    let function = match told.function.is_default_namespace() {
        true => told.function.name().to_owned(),
        false => told.function.to_string(),
    };
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set("x-call-id", told.call_id.clone());
    set("x-function-name", function);
    set("x-function-status", told.answer.status.to_string());
    set("x-duration-seconds", format!("{:.6}", told.took.as_secs_f64()));
    set("x-retry", told.retries.to_string());
    set("x-retry-max", told.retries_max.to_string());
    set("user-agent", QUEUE_AGENT.to_owned());
    if told.answer.is_cut {
        set("x-pinnace-cut-at", limits::DELIVERY_ANSWER_BYTES_MAX.to_string());
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_to(reach: Reach, url: &str) -> Told {
        Told {
            callback: Callback { url: url.to_owned(), reach },
            function: FunctionRef::new("f", "").unwrap(),
            call_id: "id".to_owned(),
            answer: WholeAnswer::default(),
            took: Duration::ZERO,
            retries: 0,
            retries_max: 9,
        }
    }

    #[test]
    fn what_callbacks_reach() {
        let place = |address: &str| super::place(address.parse().unwrap());
        for refused in [
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "fe80::1",
            "::",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
        ] {
            assert_eq!(place(refused), Place::Refused, "{refused}");
        }
        for here in ["127.0.0.1", "127.5.6.7", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(place(here), Place::ThisHost, "{here}");
        }
        for elsewhere in ["192.0.2.1", "10.255.3.4", "2001:db8::1"] {
            assert_eq!(place(elsewhere), Place::Elsewhere, "{elsewhere}");
        }
    }

    #[tokio::test]
    async fn of_this_server_only_functions_are_reached() {
        let callbacks = Callbacks::new(vec![1], &[]);
        let told = |url: &str| told_to(Reach::Host, url);
        let door = Door::new(Box::default(), Vec::new());
        let lasting = async |url: &str| {
            matches!(callbacks.try_send(&door, &told(url)).await, Err(Fault::Lasting(_)))
        };
        assert!(lasting("http://127.0.0.1:1/system/functions").await);
        assert!(lasting("http://[::1]:1/").await);
        assert!(lasting("http://169.254.169.254/latest/").await);
        assert!(lasting("http://gateway:8080/system/functions").await);
        assert!(!lasting("http://gateway.openfaas:8080/function/f").await);
        let by_name = callbacks.try_send(&door, &told("http://localhost:1/system/functions")).await;
        assert!(matches!(by_name, Err(Fault::Passing(why)) if why.contains("may reach")));
        let functions = callbacks.try_send(&door, &told("http://127.0.0.1:1/function/f")).await;
        assert!(matches!(functions, Err(Fault::Passing(why)) if !why.contains("may reach")));
        for (reach, url) in [
            (Reach::Elsewhere, "http://127.0.0.1:2/"),
            (Reach::Nat, "http://127.0.0.1:2/"),
            (Reach::Nat, "http://127.0.0.1:1/function/f"),
            (Reach::Nat, "http://10.255.3.4/"),
            (Reach::Nat, "http://[2001:db8::1]/"),
            (Reach::Gateway, "http://192.0.2.1/"),
            (Reach::Gateway, "http://gateway:8081/function/f"),
        ] {
            let sent = callbacks.try_send(&door, &told_to(reach, url)).await;
            assert!(matches!(sent, Err(Fault::Lasting(_))), "{url} {reach:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_hangs_leaves_places_to_others() {
        let callbacks = Callbacks::new(Vec::new(), &[]);
        let place = async |url: &str| callbacks.place(&told_to(Reach::Host, url)).await;
        let mut held = Vec::new();
        for at in 0..limits::CALLBACKS_PER_RECEIVER_MAX {
            held.push(place(&format!("http://user{at}@Hangs/{at}")).await.unwrap());
        }
        assert!(place("http://hangs/").await.is_none());
        assert!(place("http://hangs:81/").await.is_some());
        assert!(place("http://gateway:8080/function/a").await.is_some());
        held.pop();
        assert!(place("http://hangs/").await.is_some());
    }

    #[test]
    fn receivers_are_functions_and_ports() {
        assert_eq!(receiver("http://gateway:8080/async-function/a.b/c"), "gateway:8080/a.b");
        assert_eq!(receiver("http://u:p@H:1/function/a"), "h:1");
        assert_eq!(receiver("\u{1}"), "");
    }

    #[test]
    fn a_function_is_sent_no_further_than_its_network_is() {
        let allows = |bounds: &Bounds, address: &str| bounds.allow(address.parse().unwrap());
        let nat = Bounds::Nat(network::closed(&["10.1.0.0/16".parse().unwrap()]).into());
        for open in ["192.88.98.1", "10.1.2.3"] {
            assert!(allows(&nat, open) && allows(&Bounds::Elsewhere, open), "{open}");
        }
        for closed in ["10.2.0.1", "192.168.1.1", "127.0.0.1", "2001:db8::1"] {
            assert!(!allows(&nat, closed), "{closed}");
        }
        assert!(allows(&Bounds::Elsewhere, "192.168.1.1"));
        assert!(!allows(&Bounds::Elsewhere, "127.0.0.1"));
        assert!(allows(&Bounds::Anywhere, "127.0.0.1"));
        assert!(!allows(&Bounds::Anywhere, "169.254.169.254"));
    }

    #[test]
    fn headers_are_the_functions_and_what_is_told_of_the_call() {
        let told = Told {
            callback: Callback { url: String::new(), reach: Reach::Host },
            function: FunctionRef::new("env", "").unwrap(),
            call_id: "mine".to_owned(),
            answer: WholeAnswer {
                status: 418,
                headers: [
                    ("X-A", "1"),
                    ("x-a", "2"),
                    ("X-Call-Id", "theirs"),
                    ("Content-Length", "9"),
                    ("X-Callback-Url", "http://gateway:8080/async-function/env"),
                ]
                .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
                .to_vec(),
                ..WholeAnswer::default()
            },
            took: Duration::from_millis(12),
            retries: 2,
            retries_max: 9,
        };
        let headers = headers_of(&told);
        let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-a"), ["1", "2"]);
        assert_eq!(all("x-call-id"), ["mine"]);
        assert_eq!(all("x-function-name"), ["env"]);
        assert_eq!(all("x-function-status"), ["418"]);
        assert_eq!(all("x-duration-seconds"), ["0.012000"]);
        assert_eq!(all("x-retry"), ["2"]);
        assert_eq!(all("x-retry-max"), ["9"]);
        assert!(all("x-callback-url").is_empty());
        assert!(all("content-length").is_empty() && all("x-pinnace-cut-at").is_empty());
        let uri = "http://us%40er:pw@h/".parse().unwrap();
        let expected = format!("Basic {}", BASE64_STANDARD.encode("us@er:pw"));
        assert_eq!(authorization(&uri).unwrap(), expected.as_str());
    }
}
