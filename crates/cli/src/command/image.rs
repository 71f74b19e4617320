//! `pinnace image`: the server's own store of images, over its API.

use std::{
    io::{self, BufRead, IsTerminal, Read, Write},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use pinnace_core::{
    image::check_form,
    limits,
    wire::{ImageSummary, LoadEvent, Pruned, PullRequest},
};
use ureq::http::{Method, StatusCode};

use super::remove_each;
use crate::{
    args::{AskArgs, OutputArgs},
    failure::usage,
    gateway::{Answer, Gateway, Lines, Patience, query},
    image::{Kind, Upload},
    output::{self, Columns, bytes, printable},
};

/// Bytes that are read of the answer to a question.
const ANSWER_BYTES: u64 = 16;

/// Commands about images.
#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Bring an image into the server's store
    Load(LoadArgs),
    /// Pull an image from its registry into the server's store
    Pull(PullArgs),
    /// List images
    #[command(alias = "list")]
    Ls(LsArgs),
    /// Remove images
    #[command(alias = "remove")]
    Rm(RmArgs),
    /// Remove all images that no function names
    Prune(PruneArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  docker save hello:1 | pinnace image load -
  pinnace image load hello.tar
  pinnace image load ./oci-layout-dir --name hello:1
  pinnace image load /srv/debian-root --name debian:local      a root directory

A directory with a file oci-layout is an OCI layout; any other is taken as a root filesystem. Run as a
user who may read all of it.")]
struct LoadArgs {
    /// Archive (docker save, OCI layout), directory, or - for standard input
    path: PathBuf,
    /// Reference to load it under [default: the archive's own]
    #[arg(long, value_name = "REF")]
    name: Option<String>,
    #[command(flatten)]
    common: AskArgs,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pinnace image pull alpine:3.20
  pinnace image pull ghcr.io/me/web:1

The server pulls, with the logins of Docker's configuration file of the user that it runs as. What has come
of a pull that breaks off is kept, and the next one goes on from there.")]
struct PullArgs {
    /// The image
    #[arg(value_name = "REF")]
    reference: String,
    #[command(flatten)]
    common: AskArgs,
}

#[derive(Args, Debug)]
struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    common: AskArgs,
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
struct RmArgs {
    /// The images
    #[arg(required = true, value_name = "REF")]
    references: Vec<String>,
    #[command(flatten)]
    common: AskArgs,
}

/// Runs one of them.
pub fn run(args: &ImageArgs) -> anyhow::Result<()> {
    match &args.command {
        ImageCommand::Load(args) => load(args),
        ImageCommand::Pull(args) => pull(args),
        ImageCommand::Ls(args) => ls(args),
        ImageCommand::Rm(args) => rm(args),
        ImageCommand::Prune(args) => prune(args),
    }
}

fn load(args: &LoadArgs) -> anyhow::Result<()> {
    check_reference(args.name.as_deref())?;
    if args.path == Path::new("-") && io::stdin().is_terminal() {
        return Err(usage("standard input is a terminal; give a file, or pipe an archive into it"));
    }
    let upload = Upload::open(&args.path)?;
    let path = args.path.display();
    if upload.kind == Kind::RootDir && args.name.is_none() {
        return Err(usage(format!(
            "{path} is a root directory and has no name of its own; give one with --name REF"
        )));
    }
    let doing = format!("loading {path}");
    let gateway = args.common.open()?;
    let pairs = [("reference", args.name.as_deref()), ("kind", Some(upload.kind.word()))];
    let target = format!("/system/images{}", query(&pairs));
    let mut progress = Progress::new(upload.bytes);
    progress.message("sending");
    let body = progress.counting(upload.body);
    let answer = gateway.upload(&target, "application/x-tar", body, &doing);
    let loaded = answer
        .and_then(|answer| follow(&gateway, answer, &mut |news| progress.step(news.step), &doing));
    progress.end();
    let loaded = loaded?;
    if let Some(said) = upload.left_out.sentence() {
        output::warn(&said);
    }
    show("Loaded", &loaded, &args.common.output)
}

fn pull(args: &PullArgs) -> anyhow::Result<()> {
    check_reference(Some(&args.reference))?;
    let doing = format!("pulling {}", args.reference);
    let gateway = args.common.open()?;
    let request = PullRequest { reference: args.reference.clone() };
    let target = "/system/images/pull";
    let mut progress = Progress::new(None);
    let answer = gateway.tell(Method::POST, target, &request, Patience::Stream, &doing);
    let pulled = answer
        .and_then(|answer| follow(&gateway, answer, &mut |news| progress.fetched(&news), &doing));
    progress.end();
    show("Pulled", &pulled?, &args.common.output)
}

fn show(done: &str, images: &[ImageSummary], output: &OutputArgs) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if output.is_json() {
        return output::json(&mut out, &images);
    }
    for image in images {
        let ImageSummary { reference, layers, size_bytes, .. } = image;
        let size = bytes(*size_bytes);
        let plural = if *layers == 1 { "" } else { "s" };
        writeln!(out, "{done} {} ({layers} layer{plural}, {size}).", printable(reference))?;
    }
    Ok(())
}

fn prune(args: &PruneArgs) -> anyhow::Result<()> {
    let doing = "removing unused images";
    let gateway = args.common.open()?;
    if !args.yes && !is_confirmed(&gateway)? {
        output::remark("Nothing was removed.");
        return Ok(());
    }
    let target = "/system/images/prune";
    let patience = Patience::Within(limits::CLIENT_LOAD_IDLE_MAX);
    let answer = gateway.ask(Method::POST, target, patience, doing)?;
    let answer = expect(&gateway, answer, &[StatusCode::OK], doing)?;
    let pruned: Pruned = gateway.read(answer, doing)?;
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &pruned);
    }
    for reference in &pruned.references {
        writeln!(out, "Removed {}.", printable(reference))?;
    }
    writeln!(out, "{} are free again.", bytes(pruned.bytes))?;
    Ok(())
}

fn is_confirmed(gateway: &Gateway) -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        return Err(usage(
            "this removes all images that no function names; add --yes if that is meant",
        ));
    }
    let mut stderr = io::stderr();
    write!(stderr, "Remove all images of {} that no function names? [y/N] ", gateway.address())?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().lock().take(ANSWER_BYTES).read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn check_reference(reference: Option<&str>) -> anyhow::Result<()> {
    reference.map_or(Ok(()), check_form).map_err(|error| usage(error.to_string()))
}

/// How far the server is.
pub struct News<'a> {
    step: &'a str,
    bytes: u64,
    total: Option<u64>,
}

/// Reads the server's events up to the end of its answer; `show` is told how far it is.
///
/// # Errors
/// The archive was refused, or the server cannot be heard.
pub fn follow(
    gateway: &Gateway,
    answer: Answer,
    show: &mut dyn FnMut(News<'_>),
    doing: &str,
) -> anyhow::Result<Vec<ImageSummary>> {
    let answer = expect(gateway, answer, &[StatusCode::OK], doing)?;
    let mut events = Lines::<_, LoadEvent>::new(answer.into_body().into_reader());
    let mut loaded = Vec::new();
    while let Some(event) = events.next().map_err(|error| anyhow::anyhow!("{doing}: {error}"))? {
        match event {
            LoadEvent::Progress { step, bytes, total } => {
                show(News { step: &printable(&step), bytes, total });
            }
            LoadEvent::Loaded { image } => loaded.push(image),
            LoadEvent::Failed { error } => anyhow::bail!("{doing}: {}", printable(&error)),
        }
    }
    if loaded.is_empty() {
        anyhow::bail!(
            "{doing}: the answer of {} ended before an image was there",
            gateway.address()
        );
    }
    Ok(loaded)
}

fn ls(args: &LsArgs) -> anyhow::Result<()> {
    let doing = "listing images";
    let gateway = args.common.open()?;
    let answer = gateway.ask(Method::GET, "/system/images", Patience::Request, doing)?;
    let answer = expect(&gateway, answer, &[StatusCode::OK], doing)?;
    let mut images: Vec<ImageSummary> = gateway.read(answer, doing)?;
    images.sort_by(|a, b| a.reference.cmp(&b.reference));
    let mut out = io::stdout().lock();
    if args.common.output.is_json() {
        return output::json(&mut out, &images);
    }
    if args.quiet {
        for image in &images {
            writeln!(out, "{}", printable(&image.reference))?;
        }
        return Ok(());
    }
    table(&images).print(&mut out)?;
    if images.is_empty() {
        output::remark(
            "There are no images yet; bring one with `pinnace image pull REF` or `pinnace image load FILE`.",
        );
    }
    Ok(())
}

fn table(images: &[ImageSummary]) -> Columns {
    let mut table = Columns::new(&[
        ("Image", false),
        ("Digest", false),
        ("Layers", true),
        ("Size", true),
        ("Loaded", false),
        ("Functions", false),
    ]);
    for image in images {
        let digest = image.digest.strip_prefix("sha256:").unwrap_or(&image.digest);
        let loaded = image.loaded_at.get(..19).unwrap_or(&image.loaded_at).replace('T', " ");
        table.row(&[
            image.reference.clone(),
            digest.chars().take(12).collect(),
            image.layers.to_string(),
            bytes(image.size_bytes),
            loaded,
            image.functions.join(", "),
        ]);
    }
    table
}

fn rm(args: &RmArgs) -> anyhow::Result<()> {
    args.references.iter().try_for_each(|reference| check_reference(Some(reference)))?;
    let gateway = args.common.open()?;
    remove_each(&args.references, args.common.output.is_json(), |reference| {
        remove(&gateway, reference)
    })
}

fn remove(gateway: &Gateway, reference: &str) -> anyhow::Result<()> {
    let doing = format!("removing image {reference}");
    let target = format!("/system/images{}", query(&[("reference", Some(reference))]));
    let answer = gateway.ask(Method::DELETE, &target, Patience::Request, &doing)?;
    if answer.status() == StatusCode::NOT_FOUND {
        anyhow::bail!(
            "{doing}: {} has no such image; `pinnace image ls` shows them",
            gateway.address()
        );
    }
    let taken = [StatusCode::OK, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
    gateway.expect(answer, &taken, &doing)?;
    Ok(())
}

/// Other gateways have no store of images.
fn expect(
    gateway: &Gateway,
    answer: Answer,
    statuses: &[StatusCode],
    doing: &str,
) -> anyhow::Result<Answer> {
    if matches!(answer.status(), StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
        anyhow::bail!("{doing}: {} keeps no images; it is no Pinnace server", gateway.address());
    }
    gateway.expect(answer, statuses, doing)
}

/// A bar on a terminal, lines elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    shown: String,
}

/// How the bar looks when it is known how much is to come, and when it is not.
const FORM_OF_KNOWN: &str = "{spinner} {bar:30} {binary_bytes}/{binary_total_bytes} {msg}";
const FORM_OF_UNKNOWN: &str = "{spinner} {binary_bytes} {msg}";

fn style(form: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(form);
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ ")
}

impl Progress {
    fn new(total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            bar.set_style(style(if total.is_some() { FORM_OF_KNOWN } else { FORM_OF_UNKNOWN }));
            bar.enable_steady_tick(limits::SPINNER_TICK);
            bar
        });
        Self { bar, shown: String::new() }
    }

    fn counting(&self, body: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        match &self.bar {
            Some(bar) => Box::new(bar.wrap_read(body)),
            None => body,
        }
    }

    /// Says something beside the bar, if there is one.
    fn message(&self, message: &'static str) {
        if let Some(bar) = &self.bar {
            bar.set_message(message);
        }
    }

    fn step(&mut self, step: &str) {
        if step == self.shown {
            return;
        }
        self.shown = step.to_owned();
        match &self.bar {
            Some(bar) => bar.set_message(step.to_owned()),
            None => output::remark(step),
        }
    }

    /// Shows the step of a pull, and on a terminal how many bytes have come.
    fn fetched(&mut self, news: &News<'_>) {
        if let (Some(bar), Some(total)) = (&self.bar, news.total.filter(|total| *total > 0)) {
            if bar.length().is_none() {
                bar.set_style(style(FORM_OF_KNOWN));
            }
            bar.set_length(total);
            bar.set_position(news.bytes);
        }
        self.step(news.step);
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_as_a_table() {
        let image = ImageSummary {
            reference: "hello:1".into(),
            digest: "sha256:0123456789abcdef".into(),
            size_bytes: 5 << 20,
            layers: 2,
            loaded_at: "2026-11-23T19:55:50.5Z".into(),
            functions: vec!["a.openfaas-fn".into(), "b.dev".into()],
        };
        let mut out = Vec::new();
        table(&[image]).print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let row = text.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(row, "hello:1 0123456789ab 2 5.0 MiB 2026-11-23 19:55:50 a.openfaas-fn, b.dev");
    }

    #[test]
    fn references_are_checked_before_anything_is_sent() {
        assert!(check_reference(None).is_ok());
        assert!(check_reference(Some("a/b:1")).is_ok());
        let refused = check_reference(Some("a b")).unwrap_err().to_string();
        assert!(refused.contains("' ' in it") && refused.contains("/app:1.0"), "{refused}");
    }
}
