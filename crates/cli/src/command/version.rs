//! `pinnace version`: of this program and of the gateway. Without a gateway the first part alone.

use std::io::{self, Write};

use clap::Args;
use pinnace_core::{limits, wire::Version};
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::http::Method;

use crate::{
    args::{GatewayArgs, OutputArgs, StackFileArgs},
    gateway::{Gateway, Patience},
    output::{self, printable},
};

/// Version of this program.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Flags of `pinnace version`.
#[derive(Args, Debug)]
pub struct VersionArgs {
    /// Show this program's version alone
    #[arg(long)]
    short_version: bool,
    /// Taken for the sake of scripts; nothing outside the gateway is ever asked
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    warn_update: Option<bool>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

/// What other gateways answer may lack a part: a gateway whose provider is down says `null`.
#[derive(Deserialize)]
struct Info {
    provider: Option<Provider>,
    version: Option<Version>,
}

#[derive(Deserialize)]
struct Provider {
    provider: String,
    orchestration: String,
    version: Version,
}

/// Shows versions.
pub fn run(args: &VersionArgs) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if args.short_version {
        writeln!(out, "{RELEASE}")?;
        return Ok(());
    }
    let gateway = Gateway::open(&args.gateway, args.stack.gateway()?.as_deref())?;
    let info = ask(&gateway);
    if args.output.is_json() {
        return output::json(&mut out, &as_json(&gateway, info.as_ref().ok()));
    }
    writeln!(out, "CLI:\n  commit:  {}\n  version: {RELEASE}", pinnace_server::REVISION)?;
    match info {
        Ok(info) => write!(out, "{}", as_text(&gateway, &info))?,
        Err(error) => output::remark(&format!("\nGateway: {}", error.root_cause())),
    }
    Ok(())
}

fn ask(gateway: &Gateway) -> anyhow::Result<Info> {
    let doing = "reading the gateway's version";
    let patience = Patience::Within(limits::CLIENT_VERSION_TIME_MAX);
    gateway.read(gateway.ask(Method::GET, "/system/info", patience, doing)?, doing)
}

fn as_text(gateway: &Gateway, info: &Info) -> String {
    let mut text = String::new();
    if let Some(version) = &info.version {
        text.push_str(&format!(
            "\nGateway\n uri:     {}\n version: {}\n sha:     {}\n\n",
            gateway.address(),
            printable(&version.release),
            printable(&version.sha)
        ));
    }
    if let Some(provider) = &info.provider {
        text.push_str(&format!(
            "\nProvider\n name:          {}\n orchestration: {}\n version:       {}\n sha:           {}\n",
            printable(&provider.provider),
            printable(&provider.orchestration),
            printable(&provider.version.release),
            printable(&provider.version.sha)
        ));
    }
    text
}

fn as_json(gateway: &Gateway, info: Option<&Info>) -> Value {
    let mut value = json!({ "cli": { "commit": pinnace_server::REVISION, "version": RELEASE } });
    if let Some(version) = info.and_then(|info| info.version.as_ref()) {
        let uri = gateway.address().as_str();
        value["gateway"] = json!({ "uri": uri, "version": version.release, "sha": version.sha });
    }
    if let Some(provider) = info.and_then(|info| info.provider.as_ref()) {
        value["provider"] = json!({
            "name": provider.provider,
            "orchestration": provider.orchestration,
            "version": provider.version.release,
            "sha": provider.version.sha,
        });
    }
    value
}
