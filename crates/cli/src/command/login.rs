//! `pinnace login` and `logout`: credentials that are tried before they are kept.

use std::io::{self, Read, Write};

use clap::Args;
use pinnace_core::limits;
use serde_json::json;
use ureq::http::{Method, StatusCode};

use crate::{
    args::{GatewayArgs, OutputArgs, StackFileArgs},
    credentials::{ADMIN, Credential, Store},
    failure::usage,
    gateway::{Address, Gateway, Patience},
    output,
};

/// Flags of `pinnace login`.
#[derive(Args)]
#[command(after_help = "\
Examples:
  pinnace login --password-stdin < password-file
  ssh host sudo cat /var/lib/pinnace/basic-auth-password | pinnace login -g https://faas.example -s
  pinnace login --as-token -s < password-file      keep a token of an hour, and not the password
  pinnace login --token-stdin < token-file         keep a token that somebody gave you

On the host where the server runs no login is needed by whoever may read its state directory.
Logins are kept in ~/.openfaas/config.yml, which faas-cli shares.")]
pub struct LoginArgs {
    /// User
    #[arg(short, long, value_name = "NAME", default_value = ADMIN)]
    username: String,
    /// Password; others on this host can read it here, so prefer --password-stdin
    #[arg(
        short,
        long,
        value_name = "TEXT",
        conflicts_with = "password_stdin",
        allow_hyphen_values = true
    )]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(short = 's', long)]
    password_stdin: bool,
    /// Read a token from standard input, and keep it in the place of a password; so does --token
    #[arg(long, conflicts_with_all = ["password", "password_stdin", "token"])]
    token_stdin: bool,
    /// Keep a token that the gateway gives for the password; it ends after an hour
    #[arg(long, conflicts_with_all = ["token_stdin", "token"])]
    as_token: bool,
    /// Taken for the sake of scripts
    #[arg(long, value_name = "TIME", hide = true)]
    timeout: Option<String>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

impl std::fmt::Debug for LoginArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginArgs").field("gateway", &self.gateway.gateway).finish_non_exhaustive()
    }
}

/// Flags of `pinnace logout`.
#[derive(Args, Debug)]
pub struct LogoutArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

/// Logs in.
pub fn run(args: &LoginArgs) -> anyhow::Result<()> {
    let address = address(&args.gateway, &args.stack)?;
    let store = store()?;
    let mut credential = credential(args)?;
    if address.is_exposed() {
        output::warn(&format!(
            "{address} is plain http: others on the way can read the password or token"
        ));
    }
    let mut out = io::stdout().lock();
    if !args.output.is_json() {
        writeln!(out, "Calling the OpenFaaS server to validate the credentials...")?;
        out.flush()?;
    }
    let open = |credential: &Credential| {
        Gateway::new(address.clone(), Some(credential.clone()), args.gateway.tls_no_verify)
    };
    validate(args, &open(&credential), &credential)?;
    if args.as_token {
        credential = open(&credential).api_token("getting a token for the password")?;
    }
    store.save(&address.key(), &credential)?;
    let username = is_password(&credential).then_some(&args.username);
    if args.output.is_json() {
        let gateway = address.key();
        return output::json(&mut out, &json!({ "gateway": gateway, "username": username }));
    }
    match username {
        Some(username) => writeln!(out, "credentials saved for {username} {address}")?,
        None => writeln!(out, "token saved for {address}")?,
    }
    Ok(())
}

/// Has the gateway look at a credential.
fn validate(args: &LoginArgs, gateway: &Gateway, credential: &Credential) -> anyhow::Result<()> {
    let doing = "logging in";
    let answer = gateway.ask(Method::GET, "/system/functions", Patience::Request, doing)?;
    if answer.status() == StatusCode::UNAUTHORIZED {
        let address = gateway.address();
        if is_password(credential) {
            anyhow::bail!(
                "{doing}: {address} does not accept the password of user {}",
                args.username
            );
        }
        anyhow::bail!("{doing}: {address} does not accept the token; it may have expired");
    }
    gateway.expect(answer, &[StatusCode::OK], doing).map(drop)
}

fn is_password(credential: &Credential) -> bool {
    matches!(credential, Credential::Basic(_))
}

/// Forgets a login.
pub fn logout(args: &LogoutArgs) -> anyhow::Result<()> {
    let address = address(&args.gateway, &args.stack)?;
    if !store()?.forget(&address.key())? {
        anyhow::bail!("there is no login at {address} to forget");
    }
    let mut out = io::stdout().lock();
    if args.output.is_json() {
        return output::json(&mut out, &json!({ "gateway": address.key() }));
    }
    writeln!(out, "credentials removed for {address}")?;
    Ok(())
}

fn address(args: &GatewayArgs, stack: &StackFileArgs) -> anyhow::Result<Address> {
    let variable = |name: &str| std::env::var(name).ok();
    Address::choose(args.gateway.as_deref(), stack.gateway()?.as_deref(), variable)
}

fn store() -> anyhow::Result<Store> {
    Store::locate().ok_or_else(|| {
        anyhow::anyhow!(
            "there is no home directory to keep logins in; name one with OPENFAAS_CONFIG"
        )
    })
}

fn credential(args: &LoginArgs) -> anyhow::Result<Credential> {
    let token = args.gateway.token.as_deref();
    if let Some(token) = token.filter(|token| !token.is_empty()) {
        if args.password.is_some() || args.password_stdin {
            return Err(usage("give a password or a token, not both"));
        }
        output::warn("others on this host can read a token on the command line; use --token-stdin");
        return Ok(Credential::Bearer(token.trim().to_owned()));
    }
    if args.token_stdin {
        let token = from_stdin("token", limits::TOKEN_BYTES_MAX as u64)?;
        return match token.trim() {
            "" => Err(usage("the token is empty")),
            token => Ok(Credential::Bearer(token.to_owned())),
        };
    }
    if args.username.is_empty() || args.username.contains(':') {
        return Err(usage("--username must not be empty and must not hold a colon"));
    }
    let password = match &args.password {
        Some(password) => {
            output::warn(
                "others on this host can read a password on the command line; use --password-stdin",
            );
            password.clone()
        }
        None if args.password_stdin => from_stdin("password", limits::PASSWORD_BYTES_MAX)?,
        None => return Err(usage("give the password with --password-stdin (or --password)")),
    };
    let password = password.trim();
    if password.is_empty() {
        return Err(usage("the password is empty"));
    }
    Ok(Credential::basic(&args.username, password))
}

fn from_stdin(what: &str, bytes_max: u64) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    io::stdin().lock().take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(usage(format!("the {what} has more than {bytes_max} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| usage(format!("the {what} is no UTF-8 text")))
}
