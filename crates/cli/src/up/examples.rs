//! `pinnace up --examples`: what a newcomer sees first.
//!
//! They are deployed over the API like anybody's functions, once the server answers; then each is shown
//! with a line that can be pasted.

use std::{
    io::{self, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Instant,
};

use anyhow::Context;
use pinnace_core::limits;
use pinnace_server::Settings;
use ureq::http::{Method, StatusCode};

use crate::{
    command::{
        deploy::{Rollout, settle, take},
        image::follow,
    },
    credentials, embed,
    gateway::{Address, Gateway, Patience, query},
    output, pause,
};

/// Deploys the examples in a thread of its own, which the server's end ends too.
pub fn deploy_when_ready(settings: &Settings) {
    let settings = settings.clone();
    std::thread::spawn(move || {
        if let Err(error) = deploy_all(&settings) {
            output::complain(&format!("the examples are not deployed: {error:#}"));
        }
    });
}

fn deploy_all(settings: &Settings) -> anyhow::Result<()> {
    let listen = settings.listen.first().context("no address is served")?;
    // The certificate is this server's own, for whatever name others know it by.
    let has_tls = settings.certificate.is_some();
    let scheme = if has_tls { "https" } else { "http" };
    let url = format!("{scheme}://{}", reachable(*listen));
    let address = Address::choose(Some(&url), None, |_| None)?;
    await_health(&Gateway::new(address.clone(), None, has_tls))?;
    // The password is there once the server is.
    let of_server = || credentials::of_state_dir(&settings.state_dir);
    let credential = if settings.auth { of_server() } else { None };
    let gateway = Gateway::new(address, credential, has_tls);
    let examples = embed::examples(&url)?;
    for example in &examples {
        if let Some(image) = &example.image {
            load(&gateway, image)?;
        }
        take(&gateway, &example.deployment)?;
    }
    for example in &examples {
        match settle(&gateway, &example.name, None, limits::ROLLOUT_WAIT_DEFAULT)? {
            Rollout::Failed(why) => output::warn(&format!("example {}: {why}", example.name)),
            Rollout::Ready(_) | Rollout::Unknown => {}
        }
    }
    let mut out = io::stdout().lock();
    writeln!(out, "\nExample functions. Paste a line:")?;
    for example in &examples {
        writeln!(out, "\n  {}: {}\n  {}", example.name, example.about, example.curl)?;
    }
    out.flush()?;
    Ok(())
}

fn load(gateway: &Gateway, image: &embed::Archive) -> anyhow::Result<()> {
    let doing = format!("loading image {}", image.reference);
    let target = format!("/system/images{}", query(&[("reference", Some(&image.reference))]));
    let body = io::Cursor::new(image.bytes.clone());
    let answer = gateway.upload(&target, "application/x-tar", body, &doing)?;
    follow(gateway, answer, &mut |_| {}, &doing).map(drop)
}

fn await_health(gateway: &Gateway) -> anyhow::Result<()> {
    let until = Instant::now() + limits::HEALTH_WAIT_MAX;
    loop {
        let answer =
            gateway.ask(Method::GET, "/healthz", Patience::Request, "waiting for the server");
        match answer {
            Ok(answer) if answer.status() == StatusCode::OK => return Ok(()),
            Ok(answer) if Instant::now() >= until => {
                anyhow::bail!("the server's /healthz answers {}", answer.status().as_u16());
            }
            Err(error) if Instant::now() >= until => return Err(error),
            _ => pause::briefly(),
        }
    }
}

/// An address of this host that reaches a listener, which may listen on all of them.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_on_all_addresses_is_reached_on_this_host() {
        for (listen, expected) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
