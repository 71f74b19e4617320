//! `pinnace print-token`: what a JSON Web Token says. Its signature is not checked.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use pinnace_core::limits;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::output;

/// Flags of `pinnace print-token`.
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  pinnace print-token ./token.txt")]
pub struct PrintTokenArgs {
    /// File that holds the token
    file: PathBuf,
}

#[derive(Debug, PartialEq, Serialize)]
struct Token {
    header: Map<String, Value>,
    payload: Map<String, Value>,
}

/// Shows a token.
pub fn run(args: &PrintTokenArgs) -> anyhow::Result<()> {
    let shown = args.file.display();
    let wrong = |error: io::Error| anyhow::anyhow!("{shown}: {error}");
    let mut text = String::new();
    let most = limits::CREDENTIALS_FILE_BYTES_MAX;
    let file = File::open(&args.file).map_err(wrong)?;
    file.take(most + 1).read_to_string(&mut text).map_err(wrong)?;
    if text.len() as u64 > most {
        anyhow::bail!("{shown}: is more than {most} bytes; it is no token");
    }
    let token = parse(text.trim()).map_err(|why| anyhow::anyhow!("{shown}: {why}"))?;
    output::json(&mut io::stdout(), &token)
}

fn parse(text: &str) -> Result<Token, String> {
    let parts: Vec<&str> = text.split('.').collect();
    let [header, payload, _] = parts[..] else {
        return Err(format!("a token has 3 parts with dots between them, not {}", parts.len()));
    };
    let part = |what: &str, part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|error| format!("its {what}: {error}"))?;
        serde_json::from_slice(&bytes).map_err(|error| format!("its {what}: {error}"))
    };
    Ok(Token { header: part("header", header)?, payload: part("payload", payload)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_payload() {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let text = format!("{}.{}.x", encode(r#"{"alg":"ES256"}"#), encode(r#"{"sub":"me"}"#));
        let token = serde_json::to_value(parse(&text).unwrap()).unwrap();
        assert_eq!(token["header"]["alg"], "ES256");
        assert_eq!(token["payload"]["sub"], "me");
        assert_eq!(parse("a.b").unwrap_err(), "a token has 3 parts with dots between them, not 2");
        assert!(parse("?.e30.x").unwrap_err().starts_with("its header"));
        assert!(parse("e30.W10.x").unwrap_err().starts_with("its payload"));
    }
}
