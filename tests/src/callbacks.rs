//! A server that callbacks go to, and what came.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crate::wait::eventually;

/// One that came.
#[derive(Clone, Debug, Default)]
pub struct Callback {
    /// Method and path.
    pub target: String,
    /// Header names in lower case, with their values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Callback {
    /// A header's only value.
    ///
    /// # Panics
    /// It has several.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let values: Vec<_> = self.headers.iter().filter(|(known, _)| known == name).collect();
        assert!(values.len() < 2, "{values:?}");
        values.first().map(|(_, value)| value.as_str())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The server. It answers with a list of statuses, one after the other, then with 200.
#[derive(Debug)]
pub struct Callbacks {
    address: SocketAddr,
    came: Arc<Mutex<Vec<Callback>>>,
}

impl Callbacks {
    /// Starts it.
    ///
    /// # Panics
    /// No port is free.
    #[must_use]
    pub fn start(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let came = Arc::<Mutex<Vec<Callback>>>::default();
        let (coming, statuses) = (came.clone(), statuses.to_vec());
        // It ends with the test.
        thread::spawn(move || {
            let mut statuses = statuses.into_iter();
            for stream in listener.incoming().flatten() {
                let status = statuses.next().unwrap_or(200);
                if let Ok(callback) = take(&stream, status) {
                    coming.lock().unwrap_or_else(PoisonError::into_inner).push(callback);
                }
            }
        });
        Self { address, came }
    }

    /// A URL of it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// All that came so far.
    #[must_use]
    pub fn all(&self) -> Vec<Callback> {
        self.came.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the next one, which is taken out.
    ///
    /// # Panics
    /// None comes in time.
    #[must_use]
    pub fn next(&self, time_max: Duration) -> Callback {
        eventually("a callback comes", time_max, || {
            let mut came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
            (!came.is_empty()).then(|| came.remove(0))
        })
    }
}

fn take(mut stream: &TcpStream, status: u16) -> io::Result<Callback> {
    let mut reader = BufReader::new(stream);
    let mut callback = Callback::default();
    let mut line = String::new();
    reader.read_line(&mut line)?;
    callback.target = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        callback.headers.push((name.to_lowercase(), value.to_owned()));
    }
    let length = callback.header("content-length").and_then(|length| length.parse().ok());
    callback.body = vec![0; length.unwrap_or(0)];
    reader.read_exact(&mut callback.body)?;
    write!(stream, "HTTP/1.1 {status} Told\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    Ok(callback)
}
