//! `pinnace logs`: what functions print, as it comes.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use pinnace_core::duration;
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use ureq::http::{Method, StatusCode};

use super::{no_such_function, split_name};
use crate::{
    args::{GatewayArgs, NamespaceArgs, StackFileArgs, number},
    failure::usage,
    gateway::{Gateway, Lines, Patience, query},
    golayout,
};

/// Flags of `pinnace logs`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace logs hello                               all there is, then what follows
  pinnace logs hello --tail=false --since 10m      the last ten minutes, then end
  pinnace logs hello --lines 20 --instance
  pinnace logs hello -o json | jq -r .text

Time formats: rfc3339, rfc3339nano, rfc850, rfc1123, kitchen, stamp, ansic, unixdate and others that Go
names, or a layout such as '15:04:05'; an empty one leaves the time out.")]
pub struct LogsArgs {
    /// The function
    function: String,
    /// Only lines of the last so long, such as 5m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines since this time, in RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<String>,
    /// Only so many of the last lines; all if it is not above 0
    #[arg(long, value_name = "COUNT", default_value_t = -1, value_parser = number::<i64>, allow_negative_numbers = true)]
    lines: i64,
    /// Go on with new lines until the stream is ended
    #[arg(short, long, visible_alias = "follow", value_name = "BOOL", default_value_t = true,
          num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    tail: bool,
    /// Show the function's name in each line
    #[arg(long, help_heading = "Output")]
    name: bool,
    /// Show the replica in each line
    #[arg(long, help_heading = "Output")]
    instance: bool,
    /// Form of a line
    #[arg(short, long, value_name = "FORM", value_enum, default_value_t = Form::Plain, help_heading = "Output")]
    output: Form,
    /// The same as --output json
    #[arg(short, long, help_heading = "Output")]
    json: bool,
    /// Form of the time [default: rfc3339]
    #[arg(long, value_name = "FORMAT", help_heading = "Output")]
    time_format: Option<String>,
    #[command(flatten)]
    gateway: GatewayArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    stack: StackFileArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Time and text
    #[value(alias = "text")]
    Plain,
    /// key="value" pairs
    Keyvalue,
    /// One JSON object a line, with everything
    Json,
}

impl LogsArgs {
    fn is_json(&self) -> bool {
        self.json || self.output == Form::Json
    }
}

/// A line as any gateway sends it; a part that is missing is empty.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Line {
    name: String,
    namespace: String,
    instance: String,
    timestamp: String,
    text: String,
}

/// Shows logs.
pub fn run(args: &LogsArgs) -> anyhow::Result<()> {
    let (name, namespace) = split_name(&args.function, args.namespace.get())?;
    if args.is_json() && args.time_format.is_some() {
        return Err(usage("--time-format means nothing with JSON, whose times are in RFC 3339"));
    }
    let since = since(args, OffsetDateTime::now_utc())?;
    let gateway = Gateway::open(&args.gateway, args.stack.gateway()?.as_deref())?;
    let lines = args.lines.to_string();
    let follow = args.tail.to_string();
    let target = format!(
        "/system/logs{}",
        query(&[
            ("follow", Some(&follow)),
            ("name", Some(name)),
            ("namespace", namespace),
            ("since", since.as_deref()),
            ("tail", Some(&lines)),
        ])
    );
    let doing = format!("reading the logs of {name}");
    let answer = gateway.ask(Method::GET, &target, Patience::Stream, &doing)?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Err(no_such_function(name, namespace, &gateway));
    }
    let answer = gateway.expect(answer, &[StatusCode::OK], &doing)?;
    let mut lines = Lines::<_, Line>::new(answer.into_body().into_reader());
    let mut out = io::stdout().lock();
    while let Some(line) = lines.next()? {
        writeln!(out, "{}", formed(&line, args)?)?;
        out.flush()?;
    }
    Ok(())
}

fn since(args: &LogsArgs, now: OffsetDateTime) -> anyhow::Result<Option<String>> {
    if let Some(text) = &args.since_time {
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            usage(format!("--since-time {text:?} is no RFC 3339 time such as 2026-01-02T15:04:05Z"))
        })?;
        return Ok(Some(text.clone()));
    }
    let Some(text) = &args.since else { return Ok(None) };
    let wrong = || usage(format!("--since {text:?} is no time such as 5m or 1h30m"));
    let ago = duration::parse_go(text).ok_or_else(wrong)?;
    if ago.is_zero() {
        return Ok(None);
    }
    let ago = time::Duration::try_from(ago).map_err(|_| wrong())?;
    let then = now.checked_sub(ago).ok_or_else(wrong)?;
    Ok(Some(then.replace_nanosecond(0)?.format(&Rfc3339)?))
}

fn formed(line: &Line, args: &LogsArgs) -> anyhow::Result<String> {
    if args.is_json() {
        return Ok(serde_json::to_string(line)?);
    }
    let time_format = args.time_format.as_deref().unwrap_or("rfc3339");
    let time = golayout::reformat(&line.timestamp, time_format);
    let text = line.text.trim_end_matches('\n');
    let mut out = String::new();
    if args.output == Form::Keyvalue {
        let mut pair = |key: &str, value: &str| out.push_str(&format!("{key}=\"{value}\" "));
        if !time_format.is_empty() {
            pair("timestamp", &time);
        }
        if args.name {
            pair("name", &line.name);
        }
        if args.instance {
            pair("instance", &line.instance);
        }
        pair("text", text);
        return Ok(out);
    }
    if !time_format.is_empty() {
        out.push_str(&format!("{time} "));
    }
    if args.name {
        out.push_str(&format!("{} ", line.name));
    }
    if args.instance {
        out.push_str(&format!("({}) ", line.instance));
    }
    out.push_str(text);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use time::macros::datetime;

    use super::*;

    #[derive(Parser)]
    struct Words {
        #[command(flatten)]
        logs: LogsArgs,
    }

    fn args(words: &[&str]) -> LogsArgs {
        Words::parse_from(["logs", "echo"].iter().chain(words)).logs
    }

    fn shown(words: &[&str]) -> String {
        let line = Line {
            name: "echo".into(),
            namespace: "openfaas-fn".into(),
            instance: "echo-1".into(),
            timestamp: "2026-11-23T19:55:51.186600Z".into(),
            text: "Forking fprocess.\n".into(),
        };
        formed(&line, &args(words)).unwrap()
    }

    #[test]
    fn forms_are_those_of_faas_cli() {
        assert_eq!(shown(&[]), "2026-11-23T19:55:51Z Forking fprocess.");
        assert_eq!(
            shown(&["-o", "keyvalue", "--name", "--instance", "--time-format", "rfc850"]),
            "timestamp=\"Monday, 23-Nov-26 19:55:51 UTC\" name=\"echo\" instance=\"echo-1\" \
             text=\"Forking fprocess.\" "
        );
        assert_eq!(
            shown(&["--name", "--instance", "--time-format", ""]),
            "echo (echo-1) Forking fprocess."
        );
        assert_eq!(
            shown(&["-j"]),
            r#"{"name":"echo","namespace":"openfaas-fn","instance":"echo-1","timestamp":"2026-11-23T19:55:51.186600Z","text":"Forking fprocess.\n"}"#
        );
    }

    #[test]
    fn since_counts_back_from_now() {
        let now = datetime!(2026-11-23 19:55:51.5 UTC);
        let at = |words: &[&str]| since(&args(words), now);
        assert_eq!(at(&["--since", "10m"]).unwrap().as_deref(), Some("2026-11-23T19:45:51Z"));
        assert_eq!(at(&["--since", "0"]).unwrap(), None);
        let time = "2026-01-02T03:04:05Z";
        assert_eq!(at(&["--since-time", time]).unwrap().as_deref(), Some(time));
        for bad in [["--since", "soon"], ["--since", "9999999h"], ["--since-time", "yesterday"]] {
            let failed = at(&bad).is_err();
            assert!(failed || bad[1] == "9999999h", "{bad:?}");
        }
    }
}
