//! `pinnace registry`: what is in the server's own registry, over its API.

use std::io::{self, Write};

use clap::{Args, Subcommand};
use pinnace_core::{
    distribution::{RegistryGarbage, RegistryImage, RegistryListing},
    duration::parse_seconds_or_go,
    limits,
};
use ureq::http::{Method, StatusCode};

use super::remove_each;
use crate::{
    args::AskArgs,
    gateway::{Answer, Gateway, Patience, query},
    output::{self, Columns, bytes, printable},
};

/// Commands about the built-in registry.
#[derive(Args, Debug)]
#[command(after_help = "\
Images are pushed to the server by any client of registries:
  docker login 127.0.0.1:8080
  docker push 127.0.0.1:8080/hello:1
  pinnace deploy hello --image 127.0.0.1:8080/hello:1")]
pub struct RegistryArgs {
    #[command(subcommand)]
    command: RegistryCommand,
}

#[derive(Debug, Subcommand)]
enum RegistryCommand {
    /// List what was pushed
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove tags, and what nothing else leads to
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Remove blobs that no manifest refers to
    Gc(GcArgs),
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Show references alone
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    common: AskArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Functions that run from what is removed go on: their images were unpacked when they were deployed. The room on
disk is free again after `pinnace registry gc`, which the server does by itself every hour.")]
struct RmArgs {
    /// NAME:TAG or NAME@DIGEST, with or without the server's name
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    common: AskArgs,
}

#[derive(Args, Debug)]
struct GcArgs {
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove manifests too that no tag and no other manifest leads to
    #[arg(long)]
    untagged: bool,
    /// How long what no manifest refers to is kept: a push sends blobs first [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = grace)]
    grace: Option<String>,
    #[command(flatten)]
    common: AskArgs,
}

/// A duration, as it was typed.
fn grace(text: &str) -> Result<String, String> {
    match parse_seconds_or_go(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("give a duration such as 30m, or 0s".to_owned()),
    }
}

/// Runs one of them.
pub fn run(args: &RegistryArgs) -> anyhow::Result<()> {
    match &args.command {
        RegistryCommand::Ls(args) => ls(args),
        RegistryCommand::Rm(args) => rm(args),
        RegistryCommand::Gc(args) => gc(args),
    }
}

fn ls(args: &LsArgs) -> anyhow::Result<()> {
    let doing = "listing the registry";
    let gateway = args.common.open()?;
    let answer = gateway.ask(Method::GET, "/system/registry", Patience::Request, doing)?;
    let answer = expect(&gateway, answer, &[StatusCode::OK], doing)?;
    let listing: RegistryListing = gateway.read(answer, doing)?;
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &listing);
    }
    if args.quiet {
        for image in &listing.images {
            writeln!(out, "{}", printable(&image.reference()))?;
        }
    } else {
        table(&listing.images).print(&mut out)?;
    }
    if listing.has_more {
        output::remark("There are more, which are not shown.");
    } else if listing.images.is_empty() && !args.quiet {
        let host = gateway.address().to_string();
        let host = host.split_once("://").map_or(host.as_str(), |(_, host)| host);
        output::remark(&format!(
            "There is nothing yet; push it by `docker push {host}/NAME:TAG` or another client of registries."
        ));
    }
    Ok(())
}

fn table(images: &[RegistryImage]) -> Columns {
    let columns = [("Repository", false), ("Tag", false), ("Digest", false)];
    let columns = [&columns[..], &[("Size", true), ("Pushed", false)]].concat();
    let mut table = Columns::new(&columns);
    for image in images {
        let digest = image.digest.split_once(':').map_or("", |(_, hex)| hex);
        table.row(&[
            image.repository.clone(),
            image.tag.clone().unwrap_or_else(|| "-".to_owned()),
            digest.chars().take(12).collect(),
            bytes(image.size_bytes),
            image.pushed_at.get(..19).unwrap_or(&image.pushed_at).replace('T', " "),
        ]);
    }
    table
}

fn rm(args: &RmArgs) -> anyhow::Result<()> {
    let gateway = args.common.open()?;
    remove_each(&args.references, args.common.output.is_json(), |reference| {
        remove(&gateway, reference)
    })
}

fn remove(gateway: &Gateway, reference: &str) -> anyhow::Result<()> {
    let doing = format!("removing {reference}");
    let target = format!("/system/registry{}", query(&[("reference", Some(reference))]));
    let answer = gateway.ask(Method::DELETE, &target, Patience::Request, &doing)?;
    if answer.status() == StatusCode::NOT_FOUND {
        anyhow::bail!(
            "{doing}: the registry of {} has no such image; `pinnace registry ls` shows them",
            gateway.address()
        );
    }
    expect(gateway, answer, &[StatusCode::ACCEPTED], &doing)?;
    Ok(())
}

fn gc(args: &GcArgs) -> anyhow::Result<()> {
    let doing = "collecting the registry's garbage";
    let gateway = args.common.open()?;
    let word = |is_set: bool| is_set.then_some("true");
    let target = query(&[
        ("dry", word(args.dry_run)),
        ("untagged", word(args.untagged)),
        ("grace", args.grace.as_deref()),
    ]);
    let target = format!("/system/registry/gc{target}");
    let patience = Patience::Within(limits::CLIENT_LOAD_IDLE_MAX);
    let answer = gateway.ask(Method::POST, &target, patience, doing)?;
    let answer = expect(&gateway, answer, &[StatusCode::OK], doing)?;
    let garbage: RegistryGarbage = gateway.read(answer, doing)?;
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &garbage);
    }
    writeln!(out, "{}", said(&garbage))?;
    if garbage.young_blobs > 0 {
        output::remark(&format!(
            "{} of no manifest, {}, {} younger than the grace and stay; --grace sets it.",
            counted(garbage.young_blobs, "blob"),
            bytes(garbage.young_bytes),
            if garbage.young_blobs == 1 { "is" } else { "are" }
        ));
    }
    Ok(())
}

fn said(garbage: &RegistryGarbage) -> String {
    let RegistryGarbage { is_dry, manifests, blobs, uploads, .. } = garbage;
    let verb = if *is_dry { "Would remove" } else { "Removed" };
    format!(
        "{verb} {}, {} and {}: {}.",
        counted(*manifests, "manifest"),
        counted(*blobs, "blob"),
        counted(*uploads, "upload"),
        bytes(garbage.bytes)
    )
}

fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// Other gateways have no registry.
fn expect(
    gateway: &Gateway,
    answer: Answer,
    statuses: &[StatusCode],
    doing: &str,
) -> anyhow::Result<Answer> {
    if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        anyhow::bail!("{doing}: {} has no registry of its own", gateway.address());
    }
    gateway.expect(answer, statuses, doing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_as_a_table() {
        let tagged = RegistryImage {
            repository: "team/fn".into(),
            tag: Some("1".into()),
            digest: "sha256:0123456789abcdef".into(),
            size_bytes: 5 << 20,
            pushed_at: "2026-11-23T19:55:50Z".into(),
            ..RegistryImage::default()
        };
        let untagged = RegistryImage { tag: None, ..tagged.clone() };
        let mut out = Vec::new();
        table(&[tagged, untagged]).print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let rows: Vec<String> = text
            .lines()
            .skip(1)
            .map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            rows,
            [
                "team/fn 1 0123456789ab 5.0 MiB 2026-11-23 19:55:50",
                "team/fn - 0123456789ab 5.0 MiB 2026-11-23 19:55:50",
            ]
        );
    }

    #[test]
    fn garbage_is_said_in_a_sentence() {
        let garbage = RegistryGarbage { blobs: 2, bytes: 3 << 20, ..RegistryGarbage::default() };
        assert_eq!(said(&garbage), "Removed 0 manifests, 2 blobs and 0 uploads: 3.0 MiB.");
        let dry = RegistryGarbage { is_dry: true, uploads: 1, ..garbage };
        assert!(said(&dry).starts_with("Would remove") && said(&dry).contains("1 upload:"));
        assert!(grace("30m").is_ok() && grace("soon").is_err());
    }
}
