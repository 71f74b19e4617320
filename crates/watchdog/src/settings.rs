//! What the environment tells the watchdog to do (contract section 8.1).
//!
//! Parsing is pure: it reads a map and reports every fault at once, so that one failed start shows all
//! that must be changed.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use http::{HeaderValue, Uri, uri::PathAndQuery};
use pinnace_core::duration::parse_seconds_or_go;

use crate::auth::AuthSettings;

/// All settings of the watchdog.
#[derive(Debug)]
pub struct Settings {
    /// How calls reach the function.
    pub mode: Mode,
    /// Program and arguments; empty in static mode.
    pub command: Vec<String>,
    /// Port on which it listens unless it is handed a socket.
    pub port: u16,
    /// Longest wait for a request's head, for the next part of its body, and between requests; [`UNLIMITED`] for any.
    pub read_timeout: Duration,
    /// Longest time from a request's head to the end of its answer; also bounds the drain. If it equals
    /// `exec_timeout`, the answer that that has passed still comes.
    pub write_timeout: Duration,
    /// Longest time of one call; `None` for no limit.
    pub exec_timeout: Option<Duration>,
    /// How long it serves on after SIGTERM; `None` if not set (then it follows `write_timeout`).
    pub healthcheck_interval: Option<Duration>,
    /// Type of answers in the forking modes.
    pub content_type: HeaderValue,
    /// Whether request bodies are read whole before they are forwarded (http mode).
    pub buffer_body: bool,
    /// Calls under way at once; `None` for no limit.
    pub max_inflight: Option<usize>,
    /// The child's log lines.
    pub logs: LogSettings,
    /// Whether access lines end with the call id (http mode).
    pub log_call_id: bool,
    /// What `/_/ready` asks the function for.
    pub ready_path: Option<PathAndQuery>,
    /// Whether there is no lock file.
    pub suppress_lock: bool,
    /// Where the lock file is.
    pub lock_dir: PathBuf,
    /// Who may call; `None` for everybody.
    pub auth: Option<AuthSettings>,
}

/// What only the classic watchdog knows.
#[derive(Debug, Clone)]
pub struct ClassicSettings {
    /// Type of answers; `None` for that of the request.
    pub content_type: Option<HeaderValue>,
    /// Whether the process learns of the request by variables.
    pub tells_cgi: bool,
    /// Whether the process's errors are a part of the answer.
    pub combines_output: bool,
    /// Whether the process gets the request as JSON.
    pub marshals: bool,
    /// Whether headers are logged.
    pub debugs_headers: bool,
    /// Whether answers are logged.
    pub debugs_writes: bool,
}

/// A limit of time that is none. Clocks can still add it to now.
pub const UNLIMITED: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How calls reach the function.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Its own server, started once.
    Http(Upstream),
    /// A process for each call, its output streamed.
    Streaming,
    /// A process for each call, its output held until it ends.
    Serializing,
    /// Files of a directory.
    Static(PathBuf),
    /// Not a mode but the other watchdog: a process for each call, its output held until it ends.
    Classic(ClassicSettings),
}

/// Where the function's own server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// `HOST:PORT` as a Host header has it.
    pub authority: HeaderValue,
    /// Where to connect.
    pub place: Place,
    /// Path that is put before every request's; empty or beginning with a slash.
    pub base_path: String,
}

/// Where an upstream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// At one of these addresses, tried in this order.
    At(Vec<SocketAddr>),
    /// Where a name leads, which is asked at each connection.
    Named(String, u16),
}

/// How the child's log lines are written.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Whether each gets date, time and the stream's name.
    pub prefix: bool,
    /// A line of so many bytes or more is left out; `None` for lines of any length.
    pub line_bytes_max: Option<usize>,
}

/// Something in the environment that cannot be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// `mode` is not one of the known.
    #[error(
        "unknown watchdog mode: 0 (mode={0:?} is none of http, streaming, serializing, static)"
    )]
    UnknownMode(String),
    /// `mode=inproc`.
    #[error(
        "mode=inproc needs a handler that is linked in: build the function as its own server and use mode=http"
    )]
    Inproc,
    /// `watchdog_kind` asks for another watchdog.
    #[error("watchdog_kind={0:?} is not known: it is \"of\" or \"classic\"")]
    Kind(String),
    /// Neither `fprocess` nor `function_process`.
    #[error(
        "Error loading config: provide a \"function_process\" or \"fprocess\" environmental variable for your function"
    )]
    NoCommand,
    /// `fprocess` is missing, in the classic watchdog.
    #[error("Provide a valid process via fprocess environmental variable.")]
    NoClassicCommand,
    /// `upstream_url` is missing or not usable.
    #[error("For \"mode=http\" you must specify a valid URL for \"http_upstream_url\": {0}")]
    Upstream(String),
    /// `static_path` is empty.
    #[error("For mode=static you must specify the \"static_path\" to serve")]
    NoStaticPath,
    /// `write_timeout` is zero.
    #[error("Error loading config: HTTP write timeout must be over 0s")]
    NoWriteTimeout,
    /// A value that cannot be used.
    #[error("Error loading config: {name}={value:?} is not {wanted}")]
    Value {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        wanted: &'static str,
    },
}

impl Fault {
    /// What the watchdog exits with because of it.
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::UnknownMode(_) | Self::NoClassicCommand) { 2 } else { 1 }
    }
}

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
const LOG_LINE_BYTES_DEFAULT: usize = 65_536;

impl Settings {
    /// Reads the settings from the environment.
    ///
    /// # Errors
    /// Every fault there is.
    pub fn parse(env: &HashMap<String, String>) -> Result<Self, Vec<Fault>> {
        let env = Reader { env, faults: Vec::new() };
        env.parse()
    }

    /// How long it serves on after SIGTERM.
    pub fn pause(&self) -> Duration {
        let write_timeout = Some(self.write_timeout).filter(|limit| *limit != UNLIMITED);
        self.healthcheck_interval.or(write_timeout).unwrap_or_default()
    }
}

struct Reader<'a> {
    env: &'a HashMap<String, String>,
    faults: Vec<Fault>,
}

impl Reader<'_> {
    fn parse(mut self) -> Result<Settings, Vec<Fault>> {
        match self.text("watchdog_kind").unwrap_or_default() {
            "" | "of" => {}
            "classic" => return self.parse_classic(),
            other => {
                let fault = Fault::Kind(other.to_owned());
                self.faults.push(fault);
            }
        }
        let mode = self.mode();
        let command = self.command(mode.as_ref());
        let port = self.port();
        let read_timeout = self.limit("read_timeout");
        let write_timeout = self.limit("write_timeout");
        if write_timeout == UNLIMITED {
            self.faults.push(Fault::NoWriteTimeout);
        }
        let exec_timeout = self.duration("exec_timeout").unwrap_or(TIMEOUT_DEFAULT);
        let content_type = self.content_type();
        let ready_path = self.ready_path();
        match mode {
            Some(mode) if self.faults.is_empty() => Ok(Settings {
                mode,
                command,
                port,
                read_timeout,
                write_timeout,
                exec_timeout: Some(exec_timeout).filter(|limit| !limit.is_zero()),
                healthcheck_interval: self.duration("healthcheck_interval"),
                content_type,
                buffer_body: self.truth("http_buffer_req_body") || self.truth("buffer_http"),
                max_inflight: self.max_inflight(),
                logs: self.logs(),
                log_call_id: self.go_truth("log_callid").unwrap_or(false),
                ready_path,
                suppress_lock: self.truth("suppress_lock"),
                lock_dir: self.lock_dir(),
                auth: self.truth("jwt_auth").then(|| self.auth(Self::truth)),
            }),
            _ => Err(self.faults),
        }
    }

    /// The classic watchdog takes `true` alone for true.
    fn parse_classic(mut self) -> Result<Settings, Vec<Fault>> {
        let command = self.non_empty("fprocess").unwrap_or_default();
        let command: Vec<String> = match command {
            "" => Vec::new(),
            text => text.split(' ').map(str::to_owned).collect(),
        };
        if command.is_empty() {
            self.faults.push(Fault::NoClassicCommand);
        }
        let port = self.classic_port();
        let content_type = self.classic_content_type();
        let settings = Settings {
            mode: Mode::Classic(ClassicSettings {
                content_type,
                tells_cgi: self.is_left_on("cgi_headers"),
                combines_output: self.is_left_on("combine_output"),
                marshals: self.is_true("marshal_request"),
                debugs_headers: self.is_true("debug_headers"),
                debugs_writes: self.is_true("write_debug"),
            }),
            command,
            port,
            read_timeout: self.limit("read_timeout"),
            write_timeout: self.limit("write_timeout"),
            exec_timeout: self.duration("exec_timeout").filter(|limit| !limit.is_zero()),
            healthcheck_interval: self.duration("healthcheck_interval"),
            content_type: HeaderValue::from_static(""),
            buffer_body: false,
            max_inflight: self.max_inflight(),
            logs: LogSettings { prefix: true, line_bytes_max: None },
            log_call_id: false,
            ready_path: None,
            suppress_lock: self.is_true("suppress_lock"),
            lock_dir: self.lock_dir(),
            auth: self.is_true("jwt_auth").then(|| self.auth(Self::is_true)),
        };
        if self.faults.is_empty() { Ok(settings) } else { Err(self.faults) }
    }

    /// A word for a port is the default here.
    fn classic_port(&mut self) -> u16 {
        let number = self.text("port").and_then(|value| value.parse::<i64>().ok());
        match number.filter(|number| *number >= 0).map(u16::try_from) {
            None => 8080,
            Some(Ok(port)) => port,
            Some(Err(_)) => {
                self.bad("port", "a port number from 0 to 65535");
                0
            }
        }
    }

    fn classic_content_type(&mut self) -> Option<HeaderValue> {
        self.non_empty("content_type")?;
        Some(self.content_type())
    }

    fn auth(&self, truth: impl Fn(&Self, &str) -> bool) -> AuthSettings {
        AuthSettings {
            local: truth(self, "jwt_auth_local"),
            debug: truth(self, "jwt_auth_debug"),
            name: self.text("OPENFAAS_NAME").map(str::to_owned),
            namespace: self.text("OPENFAAS_NAMESPACE").map(str::to_owned),
        }
    }

    fn lock_dir(&self) -> PathBuf {
        self.non_empty("TMPDIR").unwrap_or("/tmp").into()
    }

    /// A limit of the server; zero is none.
    fn limit(&self, name: &str) -> Duration {
        match self.duration(name) {
            None => TIMEOUT_DEFAULT,
            Some(Duration::ZERO) => UNLIMITED,
            Some(limit) => limit.min(UNLIMITED),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    fn non_empty(&self, name: &str) -> Option<&str> {
        self.text(name).filter(|value| !value.is_empty())
    }

    fn mode(&mut self) -> Option<Mode> {
        match self.text("mode").unwrap_or_default() {
            "" | "streaming" => Some(Mode::Streaming),
            "serializing" => Some(Mode::Serializing),
            "http" => self.upstream().map(Mode::Http),
            "static" => match self.text("static_path").unwrap_or("/home/app/public") {
                "" => self.fault(Fault::NoStaticPath),
                path => Some(Mode::Static(path.into())),
            },
            "inproc" => self.fault(Fault::Inproc),
            other => {
                let other = other.to_owned();
                self.fault(Fault::UnknownMode(other))
            }
        }
    }

    fn fault<T>(&mut self, fault: Fault) -> Option<T> {
        self.faults.push(fault);
        None
    }

    fn upstream(&mut self) -> Option<Upstream> {
        let text = self.text("http_upstream_url").or_else(|| self.text("upstream_url"));
        match parse_upstream(text.unwrap_or_default()) {
            Ok(upstream) => Some(upstream),
            Err(why) => self.fault(Fault::Upstream(why)),
        }
    }

    /// An empty `function_process` hides `fprocess` all the same.
    fn command(&mut self, mode: Option<&Mode>) -> Vec<String> {
        let text = self.text("function_process").or_else(|| self.text("fprocess"));
        match text.unwrap_or_default() {
            "" => {
                if !matches!(mode, Some(Mode::Static(_))) && !self.faults.contains(&Fault::Inproc) {
                    self.faults.push(Fault::NoCommand);
                }
                Vec::new()
            }
            text => text.split(' ').map(str::to_owned).collect(),
        }
    }

    fn port(&mut self) -> u16 {
        let Some(value) = self.non_empty("port") else { return 8080 };
        let port = value.parse().ok();
        port.unwrap_or_else(|| {
            self.bad("port", "a port number from 0 to 65535");
            0
        })
    }

    fn content_type(&mut self) -> HeaderValue {
        let value = self.non_empty("content_type").unwrap_or("application/octet-stream");
        let value = HeaderValue::from_str(value).ok();
        value.unwrap_or_else(|| {
            self.bad("content_type", "the value of a header");
            HeaderValue::from_static("")
        })
    }

    fn ready_path(&mut self) -> Option<PathAndQuery> {
        let value = self.non_empty("ready_path")?;
        let path = value.parse().ok().filter(|_| value.starts_with('/'));
        if path.is_none() {
            self.bad("ready_path", "a path that begins with a slash");
        }
        path
    }

    fn bad(&mut self, name: &'static str, wanted: &'static str) {
        let value = self.text(name).unwrap_or_default().to_owned();
        self.faults.push(Fault::Value { name, value, wanted });
    }

    fn logs(&self) -> LogSettings {
        let prefix = self.go_truth("prefix_logs").unwrap_or(true);
        let size = self.text("log_buffer_size").and_then(|value| value.parse::<i64>().ok());
        let line_bytes_max = match size {
            Some(-1) => None,
            Some(bytes @ 1..) => usize::try_from(bytes).ok(),
            _ => Some(LOG_LINE_BYTES_DEFAULT),
        };
        LogSettings { prefix, line_bytes_max }
    }

    fn max_inflight(&self) -> Option<usize> {
        self.text("max_inflight")?.parse().ok().filter(|max| *max > 0)
    }

    /// A duration; what is none counts as not set.
    fn duration(&self, name: &str) -> Option<Duration> {
        self.text(name).and_then(parse_seconds_or_go)
    }

    fn is_true(&self, name: &str) -> bool {
        self.text(name) == Some("true")
    }

    /// Any other word than true switches it off.
    fn is_left_on(&self, name: &str) -> bool {
        self.non_empty(name).is_none_or(|word| word == "true")
    }

    fn truth(&self, name: &str) -> bool {
        matches!(self.text(name), Some("true" | "1"))
    }

    /// Go's `strconv.ParseBool`.
    fn go_truth(&self, name: &str) -> Option<bool> {
        match self.text(name)? {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
            _ => None,
        }
    }
}

/// Reads where a server is.
///
/// # Errors
/// What it should be like.
pub fn parse_upstream(text: &str) -> Result<Upstream, String> {
    let shown = || format!("it is {text:?}, and should be like http://127.0.0.1:3000");
    let uri: Uri = text.parse().map_err(|_| shown())?;
    let authority = uri.authority().ok_or_else(shown)?;
    if uri.scheme_str() != Some("http") {
        return Err(format!("{} (only http is served)", shown()));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || authority.as_str().contains('@') {
        return Err(shown());
    }
    // A URI without a path has "/", which must not be doubled by the request's own.
    let after = text.splitn(4, '/').nth(3);
    let base_path = after.map(|_| uri.path().to_owned()).unwrap_or_default();
    Ok(Upstream {
        authority: HeaderValue::from_str(authority.as_str()).map_err(|_| shown())?,
        place: place(host, authority.port_u16().unwrap_or(80)),
        base_path,
    })
}

/// `localhost` is what it always is: an image may have no file that says so.
fn place(host: &str, port: u16) -> Place {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    match host.parse::<IpAddr>() {
        Ok(address) => Place::At(vec![SocketAddr::new(address, port)]),
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            Place::At(loopback.map(|address| SocketAddr::new(address, port)).to_vec())
        }
        Err(_) => Place::Named(host.to_owned(), port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Settings, Vec<Fault>> {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Settings::parse(&map)
    }

    #[test]
    fn defaults() {
        let settings = parse(&[("fprocess", "cat")]).unwrap();
        assert!(matches!(settings.mode, Mode::Streaming));
        assert_eq!(settings.port, 8080);
        assert_eq!(settings.read_timeout, Duration::from_secs(30));
        assert_eq!(settings.exec_timeout, Some(Duration::from_secs(30)));
        assert_eq!(settings.pause(), Duration::from_secs(30));
        assert_eq!(settings.content_type, "application/octet-stream");
        assert_eq!(settings.max_inflight, None);
        assert!(settings.logs.prefix && settings.logs.line_bytes_max == Some(65_536));
        assert_eq!(settings.lock_dir, PathBuf::from("/tmp"));
    }

    #[test]
    fn the_command_is_split_at_single_spaces_and_function_process_wins() {
        let settings = parse(&[("fprocess", "echo a  'b c'")]).unwrap();
        assert_eq!(settings.command, ["echo", "a", "", "'b", "c'"]);
        let settings = parse(&[("fprocess", "a"), ("function_process", "b")]).unwrap();
        assert_eq!(settings.command, ["b"]);
        let hidden = parse(&[("fprocess", "a"), ("function_process", "")]).unwrap_err();
        assert_eq!(hidden, [Fault::NoCommand]);
    }

    #[test]
    fn every_fault_is_reported() {
        let faults =
            parse(&[("mode", "http"), ("write_timeout", "0"), ("port", "abc")]).unwrap_err();
        assert_eq!(faults.len(), 4);
        assert!(faults.iter().all(|fault| fault.exit_code() == 1));
        let faults = parse(&[("mode", "warp"), ("fprocess", "cat")]).unwrap_err();
        assert_eq!(faults, [Fault::UnknownMode("warp".into())]);
        assert_eq!(faults[0].exit_code(), 2);
        assert_eq!(parse(&[("mode", "inproc")]).unwrap_err(), [Fault::Inproc]);
        let faults = parse(&[("mode", "static"), ("static_path", "")]).unwrap_err();
        assert!(faults.contains(&Fault::NoStaticPath));
        let faults = parse(&[("watchdog_kind", "other"), ("fprocess", "cat")]).unwrap_err();
        assert_eq!(faults, [Fault::Kind("other".into())]);
    }

    #[test]
    fn the_classic_watchdog_has_its_own_words_and_defaults() {
        let classic =
            |pairs: &[(&str, &str)]| parse(&[&[("watchdog_kind", "classic")], pairs].concat());
        let own = |settings: &Settings| match &settings.mode {
            Mode::Classic(own) => own.clone(),
            mode => panic!("{mode:?}"),
        };
        let settings = classic(&[("fprocess", "cat"), ("mode", "http"), ("port", "abc")]).unwrap();
        assert_eq!((settings.port, settings.exec_timeout), (8080, None));
        let defaults = own(&settings);
        assert!(defaults.tells_cgi && defaults.combines_output && defaults.content_type.is_none());
        assert!(!defaults.marshals && !defaults.debugs_headers && !defaults.debugs_writes);
        let settings = classic(&[
            ("fprocess", "cat"),
            ("cgi_headers", "True"),
            ("combine_output", "1"),
            ("write_debug", "1"),
            ("write_timeout", "0"),
            ("jwt_auth", "1"),
            ("content_type", "a/b"),
        ])
        .unwrap();
        let words = own(&settings);
        assert!(!words.tells_cgi && !words.combines_output && !words.debugs_writes);
        assert_eq!(words.content_type.unwrap(), "a/b");
        assert_eq!((settings.write_timeout, settings.pause()), (UNLIMITED, Duration::ZERO));
        assert_eq!(settings.auth, None);
        let faults = classic(&[("function_process", "cat")]).unwrap_err();
        assert_eq!(faults, [Fault::NoClassicCommand]);
        assert_eq!(faults[0].exit_code(), 2);
        assert!(classic(&[("fprocess", "cat"), ("port", "70000")]).is_err());
    }

    #[test]
    fn tokens_are_asked_for_by_setting() {
        let settings = parse(&[
            ("fprocess", "cat"),
            ("jwt_auth", "1"),
            ("jwt_auth_local", "true"),
            ("OPENFAAS_NAME", "fn"),
        ]);
        let auth = settings.unwrap().auth.unwrap();
        assert!(auth.local && !auth.debug);
        assert_eq!((auth.name.as_deref(), auth.namespace), (Some("fn"), None));
        assert_eq!(parse(&[("fprocess", "cat"), ("jwt_auth", "yes")]).unwrap().auth, None);
    }

    #[test]
    fn durations_fall_back_and_zero_lifts_exec_timeout() {
        let settings = parse(&[
            ("fprocess", "cat"),
            ("read_timeout", "90"),
            ("write_timeout", "1m30s"),
            ("exec_timeout", "soon"),
            ("healthcheck_interval", "1.5s"),
        ])
        .unwrap();
        assert_eq!(settings.read_timeout, Duration::from_secs(90));
        assert_eq!(settings.write_timeout, Duration::from_secs(90));
        assert_eq!(settings.exec_timeout, Some(Duration::from_secs(30)));
        assert_eq!(settings.pause(), Duration::from_millis(1500));
        let zero = [("fprocess", "cat"), ("exec_timeout", "0"), ("read_timeout", "0")];
        let settings = parse(&zero).unwrap();
        assert_eq!((settings.exec_timeout, settings.read_timeout), (None, UNLIMITED));
    }

    #[test]
    fn truths() {
        let settings = parse(&[
            ("fprocess", "cat"),
            ("prefix_logs", "F"),
            ("suppress_lock", "True"),
            ("log_callid", "T"),
            ("buffer_http", "1"),
            ("log_buffer_size", "-1"),
            ("max_inflight", "many"),
        ])
        .unwrap();
        assert!(!settings.logs.prefix && settings.logs.line_bytes_max.is_none());
        assert!(!settings.suppress_lock && settings.log_call_id && settings.buffer_body);
        assert_eq!(settings.max_inflight, None);
    }

    #[test]
    fn upstream_urls() {
        let upstream = parse_upstream("http://127.0.0.1:3000").unwrap();
        assert_eq!(upstream.place, Place::At(vec!["127.0.0.1:3000".parse().unwrap()]));
        assert_eq!(upstream.base_path, "");
        assert_eq!(upstream.authority, "127.0.0.1:3000");
        assert_eq!(parse_upstream("http://h:1/base").unwrap().base_path, "/base");
        assert_eq!(parse_upstream("http://h:1/").unwrap().base_path, "/");
        let v6 = parse_upstream("http://[::1]/").unwrap();
        assert_eq!(v6.place, Place::At(vec!["[::1]:80".parse().unwrap()]));
        let named = parse_upstream("http://db.test:1").unwrap();
        assert_eq!(named.place, Place::Named("db.test".into(), 1));
        let local = parse_upstream("http://localhost:1").unwrap();
        assert!(matches!(local.place, Place::At(addresses) if addresses.len() == 2));
        for bad in ["", "127.0.0.1:80", "https://a", "http://", "/x", "http://a@b:1"] {
            assert!(parse_upstream(bad).is_err(), "{bad}");
        }
    }
}
