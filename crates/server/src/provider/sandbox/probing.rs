//! Asking a replica whether it is ready and healthy, as its function's annotations say.
//!
//! Each question has a task of its own, which goes with the [`Prober`]. A function that names no path has none.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pinnace_core::{
    Exit,
    probes::{Probe, Probes, Verdicts},
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::replica::Endpoint;

/// By this watchdogs know a question, which they do not log (contract section 8.3).
const USER_AGENT: &str = concat!("kube-probe/pinnace-", env!("CARGO_PKG_VERSION"));

/// Asks one replica.
pub struct Prober {
    probes: Probes,
    tasks: JoinSet<()>,
    tell: mpsc::Sender<Found>,
    found: mpsc::Receiver<Found>,
}

/// What was found out.
#[derive(Debug)]
pub enum Found {
    /// It is ready.
    Ready,
    /// It has not been ready yet; a sentence why.
    NotYet(String),
    /// It is no longer ready; a sentence why.
    Unready(String),
    /// It is not healthy.
    Unhealthy(Exit),
}

/// Which of the questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Ready,
    Healthy,
}

impl Prober {
    /// Has these questions.
    #[must_use]
    pub fn new(probes: Probes) -> Self {
        let (tell, found) = mpsc::channel(1);
        Self { probes, tasks: JoinSet::new(), tell, found }
    }

    /// Whether a replica must say itself that it is ready.
    #[must_use]
    pub fn asks_whether_ready(&self) -> bool {
        self.probes.ready.is_some()
    }

    /// Begins to ask. A replica that `runs` already gets no time to start.
    pub fn begin(&mut self, endpoint: &Endpoint, runs: bool) {
        let Probes { ready, health } = self.probes.clone();
        let questions = [(Question::Ready, ready), (Question::Healthy, health)];
        for (question, probe) in questions {
            let Some(mut probe) = probe else { continue };
            if runs {
                probe.initial_delay = Duration::ZERO;
            }
            self.tasks.spawn(ask_on(question, probe, endpoint.clone(), self.tell.clone()));
        }
    }

    /// What is found out next; waits for ever where nothing is asked.
    pub async fn next(&mut self) -> Found {
        match self.found.recv().await {
            Some(found) => found,
            // Not while this has a sender itself.
            None => std::future::pending().await,
        }
    }

    /// Asks no more.
    pub fn end(&mut self) {
        self.tasks.abort_all();
    }
}

async fn ask_on(question: Question, probe: Probe, endpoint: Endpoint, tell: mpsc::Sender<Found>) {
    let mut verdicts = Verdicts::new(&probe, question == Question::Healthy);
    let mut told = None;
    sleep(probe.initial_delay).await;
    loop {
        let answer = ask(&probe, &endpoint).await;
        let found = match (verdicts.hear(answer.is_ok()), question, answer) {
            (Some(true), Question::Ready, _) => Some(Found::Ready),
            (Some(false), Question::Ready, Err(why)) => Some(Found::Unready(why.to_string())),
            (None, Question::Ready, Err(why)) if told.is_none() => {
                told = Some(why.to_string());
                told.clone().map(Found::NotYet)
            }
            (Some(false), Question::Healthy, Err(why)) => {
                let reason = why.to_string();
                Some(Found::Unhealthy(Exit::Unhealthy { reason, times: probe.failure_threshold }))
            }
            _ => None,
        };
        if let Some(found) = found {
            told.get_or_insert_default();
            if tell.send(found).await.is_err() {
                return;
            }
        }
        sleep(probe.period).await;
    }
}

/// A no, as a sentence.
#[derive(Debug)]
struct No {
    path: String,
    why: String,
}

impl fmt::Display for No {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GET {} {}", self.path, self.why)
    }
}

async fn ask(probe: &Probe, endpoint: &Endpoint) -> Result<(), No> {
    let no = |why| No { path: probe.path.clone(), why };
    match timeout(probe.timeout, status(&probe.path, endpoint)).await {
        Ok(Ok(200..400)) => Ok(()),
        Ok(Ok(status)) => Err(no(format!("was answered {status}"))),
        Ok(Err(error)) => Err(no(format!("failed: {error}"))),
        Err(_) => Err(no(format!("was not answered within {:?}", probe.timeout))),
    }
}

async fn status(path: &str, endpoint: &Endpoint) -> anyhow::Result<u16> {
    let stream = endpoint.connect().await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request);
    tokio::pin!(answer, connection);
    tokio::select! {
        answer = &mut answer => Ok(answer?.status().as_u16()),
        ended = &mut connection => {
            ended?;
            // It may have ended with the answer.
            Ok(answer.await?.status().as_u16())
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    fn probe(path: &str) -> Probe {
        Probe {
            path: path.to_owned(),
            initial_delay: Duration::ZERO,
            period: Duration::from_millis(1),
            timeout: Duration::from_secs(10),
            failure_threshold: 2,
            success_threshold: 1,
        }
    }

    /// Answers these statuses one after the other, then the last again and again.
    async fn answering(statuses: &'static [u16]) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            for number in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 1024];
                let read = stream.read(&mut head).await.unwrap();
                assert!(head[..read].starts_with(b"GET /_/x HTTP/1.1\r\n"));
                let status = statuses[number.min(statuses.len() - 1)];
                let answer = format!("HTTP/1.1 {status} Whatever\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        Endpoint::Tcp(address)
    }

    #[tokio::test]
    async fn readiness_comes_and_goes() {
        let endpoint = answering(&[503, 503, 503, 302, 500, 500, 204]).await;
        let mut prober = Prober::new(Probes { ready: Some(probe("/_/x")), health: None });
        assert!(prober.asks_whether_ready());
        prober.begin(&endpoint, false);
        let Found::NotYet(why) = prober.next().await else { panic!("it was not ready") };
        assert_eq!(why, "GET /_/x was answered 503");
        assert!(matches!(prober.next().await, Found::Ready));
        let Found::Unready(why) = prober.next().await else { panic!("it is not ready") };
        assert_eq!(why, "GET /_/x was answered 500");
        assert!(matches!(prober.next().await, Found::Ready));
    }

    #[tokio::test]
    async fn health_is_lost_after_its_threshold() {
        let endpoint = answering(&[200, 500, 200, 500, 500]).await;
        let mut prober = Prober::new(Probes { ready: None, health: Some(probe("/_/x")) });
        prober.begin(&endpoint, true);
        let Found::Unhealthy(exit) = prober.next().await else { panic!("it is not healthy") };
        assert!(exit.to_string().contains("GET /_/x was answered 500, 2 times in a row"), "{exit}");
    }

    #[tokio::test]
    async fn nobody_who_listens_is_a_no() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(listener.local_addr().unwrap());
        drop(listener);
        let why = ask(&probe("/"), &endpoint).await.unwrap_err().to_string();
        assert!(why.starts_with("GET / failed: "), "{why}");
    }
}
