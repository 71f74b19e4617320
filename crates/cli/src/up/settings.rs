//! From what was typed after `pinnace up` to checked [`Settings`]: the one place where flags are judged.
//!
//! [`UpArgs`] mirrors the flags and knows no host; [`resolve`] turns them into settings or says everything
//! that is wrong with them at once.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use pinnace_core::{duration, limits, network::Block, quantity};
use pinnace_server::{
    Settings,
    certificate::CertificateFiles,
    registry::{Mirror, PlainHosts, RegistrySettings},
};

use ureq::http::Uri;

use super::builds::BuildFlags;
use crate::args::number;

/// The flags of `pinnace up` as they were typed.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pinnace up                             on this host only, at http://127.0.0.1:8080
  pinnace up --examples                  the same, with functions to try
  pinnace up --listen 0.0.0.0:8080       for other hosts too; they need the password
  pinnace up -f stack.yaml               no server: build, push, deploy; has a --help of its own

The password of user admin is printed at the first start and kept in STATE_DIR/basic-auth-password.
SIGINT or SIGTERM ends the server and what it started; a second one does not wait for calls under way.")]
pub struct UpArgs {
    /// What runs the functions
    #[arg(long, value_enum, default_value_t = Provider::Sandbox, help_heading = "Where")]
    pub provider: Provider,
    /// Address of functions and API; may be repeated, the first is the one that is told
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", help_heading = "Where")]
    pub listen: Vec<String>,
    /// Address of metrics
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082", help_heading = "Where")]
    pub metrics_listen: String,
    /// Where everything is kept [default: /var/lib/pinnace as root, else pinnace in the XDG data directory]
    #[arg(long, value_name = "DIR", env = "PINNACE_STATE_DIR", help_heading = "Where")]
    pub state_dir: Option<PathBuf>,
    /// Where sockets and records of what runs lie, best in memory [default: /run/pinnace as root if /run is in
    /// memory, else the state directory]
    #[arg(long, value_name = "DIR", help_heading = "Where")]
    pub run_dir: Option<PathBuf>,

    /// Serve functions and API over TLS, with this certificate in PEM form; it is read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key", help_heading = "Access")]
    pub tls_cert: Option<PathBuf>,
    /// Key of the certificate, in PEM form and not encrypted
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "Access")]
    pub tls_key: Option<PathBuf>,
    /// URL by which clients reach this server, such as https://faas.example: the issuer in its tokens
    /// [default: http://gateway.openfaas:8080, as functions call it]
    #[arg(long, value_name = "URL", help_heading = "Access")]
    pub external_url: Option<String>,
    /// Let everybody who reaches the address use the API
    #[arg(long, help_heading = "Access")]
    pub no_auth: bool,
    /// Allow --no-auth on an address that other hosts reach
    #[arg(long, requires = "no_auth", help_heading = "Access")]
    pub insecure: bool,

    /// Longest time to the first byte of a function's answer, unless it names its own
    #[arg(long, value_name = "TIME", default_value = "60s", help_heading = "Functions")]
    pub timeout: String,
    /// Memory of a replica that names no limit
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "512Mi",
        allow_negative_numbers = true,
        help_heading = "Functions"
    )]
    pub memory: String,
    /// Processes and threads of a replica
    #[arg(long, value_name = "COUNT", default_value_t = limits::PIDS_DEFAULT, value_parser = number::<u32>, allow_negative_numbers = true, help_heading = "Functions")]
    pub pids: u32,
    /// Let functions with network nat reach a part of a private range, such as 10.1.0.0/16; may be repeated
    #[arg(long, value_name = "CIDR", help_heading = "Functions")]
    pub allow_net: Vec<String>,
    /// Sandboxes that are made ahead of need at most; 0 for none
    #[arg(long, value_name = "COUNT", default_value_t = limits::SLOTS_DEFAULT, value_parser = number::<usize>, allow_negative_numbers = true, help_heading = "Functions")]
    pub slots: usize,
    /// End idle functions unless their label says otherwise
    #[arg(long, help_heading = "Functions")]
    pub scale_zero_default: bool,
    /// Leave schedules (topic cron-function) to a cron-connector that runs beside
    #[arg(long, help_heading = "Functions")]
    pub no_schedules: bool,
    /// Largest body of an asynchronous call
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "1Mi",
        allow_negative_numbers = true,
        help_heading = "Functions"
    )]
    pub async_body: String,
    /// How long calls under way may take when the server is asked to end
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Functions")]
    pub drain: String,

    /// Ask this server before a registry, such as docker.io=https://mirror.example; may be repeated
    #[arg(long, value_name = "REGISTRY=URL", help_heading = "Registries")]
    pub registry_mirror: Vec<String>,
    /// Speak to this registry without TLS, as to those of this host; may be repeated
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Registries")]
    pub insecure_registry: Vec<String>,
    /// How long a registry may send next to nothing
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Registries")]
    pub registry_idle: String,
    /// Directory of Docker's config.json, which has the logins [default: ~/.docker]
    #[arg(
        long,
        value_name = "DIR",
        env = "DOCKER_CONFIG",
        hide_env_values = true,
        help_heading = "Registries"
    )]
    pub docker_config: Option<PathBuf>,

    /// Largest image that is loaded or pulled, as its archive or registry has it, and largest blob that is pushed
    #[arg(
        long,
        value_name = "BYTES",
        default_value = "16Gi",
        allow_negative_numbers = true,
        help_heading = "Storage"
    )]
    pub image_bytes_max: String,
    /// Log files of 8 MiB kept of each function
    #[arg(long, value_name = "COUNT", default_value_t = limits::LOG_FILES_PER_FUNCTION_MAX, value_parser = number::<usize>, allow_negative_numbers = true, help_heading = "Storage")]
    pub log_files: usize,

    /// How images are built
    #[command(flatten)]
    pub builds: BuildFlags,

    /// Form of the server's own log
    #[arg(long, value_enum, default_value_t = LogFormat::Text, help_heading = "Output")]
    pub log_format: LogFormat,
    /// Deploy example functions and show how to call them
    #[arg(long, help_heading = "Output")]
    pub examples: bool,
}

/// What runs the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Provider {
    /// Pinnace itself, on this Linux host
    Sandbox,
    /// Docker Engine (not in this version)
    Docker,
    /// A Kubernetes cluster (not in this version)
    Kubernetes,
}

/// Forms of the server's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// Settings from the flags, without the programs' directory, which is unpacked later.
///
/// # Errors
/// Everything that is wrong with them, a sentence each.
pub fn resolve(args: &UpArgs, default_state_dir: Option<&Path>) -> Result<Settings, Vec<String>> {
    let mut faults = Vec::new();
    check_provider(args.provider, &mut faults);
    let metrics_listen = address("--metrics-listen", &args.metrics_listen, &mut faults);
    let listen = listen(args, metrics_listen, &mut faults);
    let certificate = certificate(args, &mut faults);
    let external_url = args.external_url.as_deref().and_then(|url| external_url(url, &mut faults));
    let state_dir = state_dir(args, default_state_dir, &mut faults);
    let run_dir = args.run_dir.as_deref().and_then(|dir| absolute("--run-dir", dir, &mut faults));
    let drain = time("--drain", &args.drain, &mut faults);
    let call_deadline = time("--timeout", &args.timeout, &mut faults);
    if call_deadline == Some(Duration::ZERO) {
        faults.push("--timeout 0 would end every call; give a time such as 60s".to_owned());
    }
    let memory_bytes = bytes("--memory", &args.memory, limits::MEMORY_BYTES_MIN, &mut faults);
    let image_bytes_max = bytes("--image-bytes-max", &args.image_bytes_max, 1, &mut faults);
    let async_body = bytes("--async-body", &args.async_body, 1, &mut faults);
    if async_body.is_some_and(|bytes| bytes > limits::ASYNC_BODY_BYTES_MAX) {
        let most = limits::ASYNC_BODY_BYTES_MAX >> 20;
        faults
            .push(format!("--async-body {} is more than the {most}Mi it may be", args.async_body));
    }
    let registry = registry(args, &mut faults);
    let builder = args.builds.settings(&mut faults);
    if args.pids == 0 {
        faults.push("--pids 0 leaves no process to run; give at least 1".to_owned());
    }
    if args.slots > limits::SLOTS_MAX {
        faults.push(format!(
            "--slots {} is more than the {} that may be made ahead",
            args.slots,
            limits::SLOTS_MAX
        ));
    }
    let mut allow_net = Vec::new();
    for text in &args.allow_net {
        match Block::to_allow(text) {
            Ok(block) => allow_net.push(block),
            Err(error) => faults.push(format!("--allow-net: {error}")),
        }
    }
    if args.log_files == 0 {
        faults.push("--log-files 0 keeps no log; give at least 1".to_owned());
    }
    let settings = || {
        Some(Settings {
            listen: listen.clone(),
            certificate: certificate.clone(),
            external_url: external_url.clone(),
            metrics_listen: metrics_listen?,
            state_dir: state_dir?,
            run_dir: run_dir.clone(),
            auth: !args.no_auth,
            insecure: args.insecure,
            programs: PathBuf::new(),
            drain: drain?,
            call_deadline: call_deadline?,
            memory_bytes: memory_bytes?,
            pids: args.pids,
            allow_net: allow_net.clone(),
            slots_max: args.slots,
            zero_by_default: args.scale_zero_default,
            schedules: !args.no_schedules,
            image_bytes_max: image_bytes_max?,
            registry: registry?,
            builder: builder.clone()?,
            async_body_bytes_max: usize::try_from(async_body?).unwrap_or(usize::MAX),
            log_files_max: args.log_files,
        })
    };
    match settings() {
        Some(settings) if faults.is_empty() => Ok(settings),
        _ => Err(faults),
    }
}

fn check_provider(provider: Provider, faults: &mut Vec<String>) {
    let name = match provider {
        Provider::Sandbox => return,
        Provider::Docker => "docker",
        Provider::Kubernetes => "kubernetes",
    };
    faults.push(format!("--provider {name} is not in this version; use --provider sandbox"));
}

fn address(flag: &str, text: &str, faults: &mut Vec<String>) -> Option<SocketAddr> {
    let parsed = text.parse::<SocketAddr>().ok();
    if parsed.is_none() {
        faults.push(format!(
            "{flag} {text:?} is no address with a port; write it as 127.0.0.1:8080, or [::1]:8080"
        ));
    }
    parsed
}

/// Where functions and API are served.
fn listen(
    args: &UpArgs,
    metrics_listen: Option<SocketAddr>,
    faults: &mut Vec<String>,
) -> Vec<SocketAddr> {
    let mut listen = Vec::new();
    for text in &args.listen {
        let Some(address) = address("--listen", text, faults) else { continue };
        let has_port = address.port() != 0;
        if has_port && Some(address) == metrics_listen {
            faults.push(format!("--listen and --metrics-listen are both {text}"));
        }
        if has_port && listen.contains(&address) {
            faults.push(format!("--listen {text} is there twice"));
        }
        check_access(args, address, faults);
        listen.push(address);
    }
    if listen.len() > limits::LISTEN_ADDRESSES_MAX {
        faults.push(format!(
            "--listen is there {} times, more than the {} that are served (LISTEN_ADDRESSES_MAX)",
            listen.len(),
            limits::LISTEN_ADDRESSES_MAX
        ));
    }
    listen
}

fn certificate(args: &UpArgs, faults: &mut Vec<String>) -> Option<CertificateFiles> {
    let certificate = absolute("--tls-cert", args.tls_cert.as_deref()?, faults)?;
    let key = absolute("--tls-key", args.tls_key.as_deref()?, faults)?;
    Some(CertificateFiles { certificate, key })
}

fn external_url(text: &str, faults: &mut Vec<String>) -> Option<String> {
    let url = text.trim_end_matches('/');
    let is_fit = url.parse::<Uri>().is_ok_and(|uri| {
        let has_host = uri.authority().is_some_and(|authority| {
            !authority.host().is_empty() && !authority.as_str().contains('@')
        });
        matches!(uri.scheme_str(), Some("http" | "https")) && has_host && uri.query().is_none()
    });
    if !is_fit || url.contains('#') {
        // It may hold a password.
        let shown = if text.contains('@') { "…" } else { text };
        faults.push(format!(
            "--external-url {shown:?} is no URL of a server; write it as https://faas.example"
        ));
        return None;
    }
    Some(url.to_owned())
}

fn check_access(args: &UpArgs, listen: SocketAddr, faults: &mut Vec<String>) {
    if args.no_auth && !args.insecure && !listen.ip().is_loopback() {
        faults.push(format!(
            "--no-auth on {listen} lets everybody who reaches this host run programs on it; leave \
             --no-auth out, listen on 127.0.0.1, or add --insecure if that is meant"
        ));
    }
    if args.examples && listen.port() == 0 {
        faults.push("--examples needs to know the port; give one in --listen".to_owned());
    }
}

fn state_dir(
    args: &UpArgs,
    default_state_dir: Option<&Path>,
    faults: &mut Vec<String>,
) -> Option<PathBuf> {
    let named = args.state_dir.as_deref().filter(|dir| !dir.as_os_str().is_empty());
    let Some(dir) = named.or(default_state_dir) else {
        faults.push(
            "there is no home directory; say where to keep state with --state-dir".to_owned(),
        );
        return None;
    };
    absolute("--state-dir", dir, faults)
}

pub(super) fn absolute(flag: &str, dir: &Path, faults: &mut Vec<String>) -> Option<PathBuf> {
    let refused = |error| faults.push(format!("{flag} {}: {error}", dir.display()));
    std::path::absolute(dir).map_err(refused).ok()
}

fn registry(args: &UpArgs, faults: &mut Vec<String>) -> Option<RegistrySettings> {
    let idle = time("--registry-idle", &args.registry_idle, faults);
    if idle == Some(Duration::ZERO) {
        faults.push("--registry-idle 0 would end every pull; give a time such as 30s".to_owned());
    }
    let mut plain = PlainHosts::default();
    for host in &args.insecure_registry {
        if !plain.add(host) {
            faults.push(format!(
                "--insecure-registry {host:?} is no host; write it as registry.example:5000"
            ));
        }
    }
    let mut mirrors = Vec::new();
    for text in &args.registry_mirror {
        match Mirror::parse(text, &plain) {
            Ok(mirror) => mirrors.push(mirror),
            Err(error) => faults.push(format!("--registry-mirror {text:?}: {error}")),
        }
    }
    let named = args.docker_config.as_ref().filter(|dir| !dir.as_os_str().is_empty());
    let docker_config = named.map(|dir| dir.join("config.json"));
    Some(RegistrySettings { plain, mirrors, idle: idle?, docker_config })
}

pub(super) fn time(flag: &str, text: &str, faults: &mut Vec<String>) -> Option<Duration> {
    let parsed = duration::parse_seconds_or_go(text);
    if parsed.is_none() {
        faults.push(format!("{flag} {text:?} is no time; write it as 30s, 1m30s or 500ms"));
    }
    parsed
}

pub(super) fn bytes(flag: &str, text: &str, least: u64, faults: &mut Vec<String>) -> Option<u64> {
    match quantity::parse_bytes(text) {
        Some(bytes) if bytes >= least => return Some(bytes),
        Some(_) => {
            faults.push(format!("{flag} {text} is too little; give at least {}", plain(least)));
        }
        None => faults.push(format!(
            "{flag} {text:?} is no number of bytes; write it as 536870912, 512Mi or 1Gi"
        )),
    }
    None
}

/// Bytes as a flag takes them.
fn plain(bytes: u64) -> String {
    if bytes.is_multiple_of(1 << 20) { format!("{}Mi", bytes >> 20) } else { bytes.to_string() }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        up: UpArgs,
    }

    fn resolved(words: &[&str]) -> Result<Settings, Vec<String>> {
        let words = std::iter::once("up").chain(words.iter().copied());
        let line = Line::try_parse_from(words).map_err(|error| vec![error.to_string()])?;
        resolve(&line.up, Some(Path::new("/default")))
    }

    fn refused(words: &[&str]) -> String {
        resolved(words).unwrap_err().join("\n")
    }

    #[test]
    fn defaults_are_those_of_the_limits() {
        let settings = resolved(&["--state-dir", "/s"]).unwrap();
        assert_eq!(settings.listen, ["127.0.0.1:8080".parse().unwrap()]);
        assert_eq!(settings.certificate, None);
        assert_eq!(settings.metrics_listen, "127.0.0.1:8082".parse().unwrap());
        assert_eq!(settings.state_dir, Path::new("/s"));
        assert!(settings.auth && !settings.insecure && !settings.zero_by_default);
        assert_eq!(settings.drain, limits::DRAIN_DEFAULT);
        assert_eq!(settings.call_deadline, limits::CALL_DEADLINE_DEFAULT);
        assert_eq!(settings.memory_bytes, limits::MEMORY_BYTES_DEFAULT);
        assert_eq!(settings.pids, limits::PIDS_DEFAULT);
        assert_eq!(settings.image_bytes_max, limits::IMAGE_BYTES_MAX);
        assert_eq!(settings.async_body_bytes_max as u64, limits::ASYNC_BODY_BYTES_DEFAULT);
        assert_eq!(settings.registry.idle, limits::REGISTRY_IDLE_DEFAULT);
        assert_eq!(settings.log_files_max, limits::LOG_FILES_PER_FUNCTION_MAX);
    }

    #[test]
    fn bad_addresses() {
        for bad in ["8080", ":8080", "localhost:8080", "127.0.0.1", "127.0.0.1:99999", ""] {
            let said = refused(&["--listen", bad]);
            assert!(said.contains("--listen") && said.contains("127.0.0.1:8080"), "{bad}: {said}");
        }
        assert!(refused(&["--metrics-listen", "x"]).contains("--metrics-listen"));
        assert!(refused(&["--metrics-listen", "127.0.0.1:8080"]).contains("are both"));
        assert!(resolved(&["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"]).is_ok());
    }

    #[test]
    fn several_addresses_are_each_judged() {
        let both = ["--listen", "127.0.0.1:1", "--listen", "[::1]:1"];
        let expected = ["127.0.0.1:1", "[::1]:1"].map(|text| text.parse().unwrap());
        assert_eq!(resolved(&both).unwrap().listen, expected);
        let open = refused(&["--no-auth", "--listen", "127.0.0.1:1", "--listen", "[::]:1"]);
        assert!(open.contains("--no-auth on [::]:1"), "{open}");
        assert!(refused(&["--listen", "127.0.0.1:1", "--listen", "127.0.0.1:1"]).contains("twice"));
        let metrics = refused(&["--listen", "127.0.0.1:1", "--listen", "127.0.0.1:8082"]);
        assert!(metrics.contains("are both"), "{metrics}");
        let many = ["--listen", "127.0.0.1:0"].repeat(limits::LISTEN_ADDRESSES_MAX + 1);
        assert!(refused(&many).contains("LISTEN_ADDRESSES_MAX"));
    }

    #[test]
    fn an_external_url_is_one_of_a_server() {
        let url =
            |url: &str| resolved(&["--external-url", url]).map(|settings| settings.external_url);
        assert_eq!(url("https://faas.example/").unwrap().unwrap(), "https://faas.example");
        assert!(url("http://10.0.0.1:8080").is_ok() && url("https://h/faas").is_ok());
        for bad in ["", "faas.example", "ftp://h", "https://", "https://h/?a", "https://h/#a"] {
            assert!(url(bad).unwrap_err()[0].contains("--external-url"), "{bad}");
        }
        assert!(!url("https://admin:hunter2@h").unwrap_err()[0].contains("hunter2"));
    }

    #[test]
    fn certificate_and_key_come_together() {
        let settings = resolved(&["--tls-cert", "/c", "--tls-key", "/k"]).unwrap();
        assert_eq!(settings.certificate.unwrap().key, Path::new("/k"));
        assert!(refused(&["--tls-cert", "/c"]).contains("--tls-key"));
        assert!(refused(&["--tls-key", "/k"]).contains("--tls-cert"));
    }

    #[test]
    fn no_auth_needs_loopback_or_insecure() {
        for open in ["0.0.0.0:8080", "[::]:8080", "10.0.0.1:80"] {
            assert!(refused(&["--no-auth", "--listen", open]).contains("--insecure"), "{open}");
            assert!(resolved(&["--no-auth", "--insecure", "--listen", open]).is_ok(), "{open}");
        }
        for loopback in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1"] {
            let settings = resolved(&["--no-auth", "--listen", loopback]).unwrap();
            assert!(!settings.auth, "{loopback}");
        }
        assert!(resolved(&["--listen", "0.0.0.0:8080"]).unwrap().auth);
        assert!(resolved(&["--insecure"]).is_err(), "--insecure without --no-auth means nothing");
    }

    #[test]
    fn memory_is_a_quantity_or_a_number() {
        let memory = |text| resolved(&["--memory", text]).map(|settings| settings.memory_bytes);
        assert_eq!(memory("256Mi"), Ok(256 << 20));
        assert_eq!(memory("1G"), Ok(1_000_000_000));
        assert_eq!(memory("536870912"), Ok(512 << 20));
        for little in ["1Ki", "0"] {
            let expected = format!("--memory {little} is too little; give at least 4Mi");
            assert_eq!(refused(&["--memory", little]), expected);
        }
        for bad in ["512MB", "-1"] {
            assert!(refused(&["--memory", bad]).contains("512Mi"), "{bad}");
        }
        assert!(refused(&["--pids", "-1"]).contains("whole number"));
        assert!(refused(&["--image-bytes-max", "0"]).ends_with("give at least 1"));
    }

    #[test]
    fn builds_have_bounds() {
        let builder = resolved(&[]).unwrap().builder;
        assert_eq!(builder.memory_bytes, limits::BUILD_MEMORY_BYTES_DEFAULT);
        assert_eq!(builder.time_max, limits::BUILD_TIME_DEFAULT);
        assert_eq!(builder.payload_secret, None);
        assert!(refused(&["--build-time-max", "0"]).contains("give a time such as 10m"));
        assert!(refused(&["--builds-max", "0"]).contains("give at least 1"));
        assert!(refused(&["--build-memory", "1Ki"]).contains("--build-memory 1Ki is too little"));
    }

    #[test]
    fn times() {
        let settings = resolved(&["--drain", "0", "--timeout", "1m30s"]).unwrap();
        assert_eq!(settings.drain, Duration::ZERO);
        assert_eq!(settings.call_deadline, Duration::from_secs(90));
        assert_eq!(resolved(&["--timeout", "90"]).unwrap().call_deadline.as_secs(), 90);
        assert!(refused(&["--timeout", "0"]).contains("every call"));
        assert!(refused(&["--drain", "soon"]).contains("--drain"));
    }

    #[test]
    fn registries() {
        let mirror = "docker.io=https://mirror.example";
        let words = ["--registry-mirror", mirror, "--insecure-registry", "lan.example:5000"];
        let found = resolved(&words).unwrap().registry;
        assert_eq!(found.mirrors.len(), 1);
        assert!(found.plain.allow("lan.example:5000") && !found.plain.allow("ghcr.io"));
        let open = "docker.io=http://lan.example:5000";
        assert!(refused(&["--registry-mirror", open]).contains("--insecure-registry"));
        assert!(resolved(&["--registry-mirror", open, words[2], words[3]]).is_ok());
        assert!(refused(&["--registry-mirror", "mirror.example"]).contains("docker.io=https"));
        assert!(refused(&["--insecure-registry", "a b"]).contains("no host"));
        assert!(refused(&["--insecure-registry", "https://a.example"]).contains("no host"));
        assert!(refused(&["--registry-idle", "0"]).contains("every pull"));
    }

    #[test]
    fn providers_that_are_not_here_are_refused() {
        for name in ["docker", "kubernetes"] {
            assert!(refused(&["--provider", name]).contains("not in this version"), "{name}");
        }
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let said = resolved(&["--listen", "x", "--drain", "y", "--memory", "z", "--pids", "0"]);
        assert_eq!(said.unwrap_err().len(), 4);
        assert!(refused(&["--examples", "--listen", "127.0.0.1:0"]).contains("--examples"));
        assert!(refused(&["--log-files", "0"]).contains("--log-files"));
    }

    #[test]
    fn the_state_directory_is_absolute_and_must_be_known() {
        let settings = resolved(&["--state-dir", "rel", "--run-dir", "mem"]).unwrap();
        assert!(settings.state_dir.is_absolute() && settings.run_dir.unwrap().is_absolute());
        assert!(refused(&["--run-dir", ""]).contains("--run-dir"));
        let line = Line::try_parse_from(["up"]).unwrap();
        let mut args = line.up;
        args.state_dir = None;
        assert_eq!(
            resolve(&args, Some(Path::new("/default"))).unwrap().state_dir,
            Path::new("/default")
        );
        assert!(resolve(&args, None).unwrap_err()[0].contains("--state-dir"));
    }
}
