//! Makes thumbnails over HTTP: an image in, a smaller one out.
//!
//! A function needs no framework. This is a plain HTTP server in one static binary; its image holds that
//! file and nothing else. It listens on port 8080, or on `PORT`, and ends at SIGTERM when the calls under
//! way are answered.

#![forbid(unsafe_code)]

mod answer;
mod thumbnail;

use std::{
    convert::Infallible,
    env, io,
    net::{Ipv4Addr, SocketAddr},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::answer::Answerer;

/// How long calls under way may take once the server is asked to end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How long a client may take to send a request's head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    match port().and_then(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thumbnail: {error}");
            ExitCode::FAILURE
        }
    }
}

fn port() -> io::Result<u16> {
    match env::var("PORT") {
        Err(_) => Ok(8080),
        Ok(text) => text.parse().map_err(|_| {
            io::Error::other(format!("PORT={text} is no port; use a number up to 65535"))
        }),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn serve(port: u16) -> io::Result<()> {
    // Handlers first: a signal that comes right after the start must not end the process the hard way.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::other(format!("cannot listen on {address}: {error}")))?;
    println!("listening on {}", listener.local_addr()?);

    let answerer = Arc::new(Answerer::default());
    let connections = GracefulShutdown::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let connection = connection(TokioIo::new(stream), answerer.clone());
                    let connection = connections.watch(connection);
                    // A client that leaves in the middle is its own business.
                    tokio::spawn(async move { drop(connection.await) });
                }
                Err(error) => eprintln!("thumbnail: cannot accept a connection: {error}"),
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_MAX, connections.shutdown()).await.is_err() {
        eprintln!("thumbnail: ended with calls under way after {} s", DRAIN_MAX.as_secs());
    }
    Ok(())
}

fn connection(
    stream: TokioIo<tokio::net::TcpStream>,
    answerer: Arc<Answerer>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let service = service_fn(move |request| {
        let answerer = answerer.clone();
        async move { Ok::<_, Infallible>(answerer.answer(request).await) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .half_close(true)
        .serve_connection(stream, service)
}
