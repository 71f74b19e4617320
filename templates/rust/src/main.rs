//! Serves `function::handle` for the watchdog, on 127.0.0.1:5000: HTTP/1.1, a thread for each connection.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    panic, thread,
};

use function::http::{Body, Request, Response};

fn main() -> io::Result<()> {
    let port = std::env::var("http_port").unwrap_or_else(|_| "5000".into());
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            // A watchdog that leaves is none of the handler's business.
            let _ = serve(stream);
        });
    }
    Ok(())
}

fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = io::BufWriter::new(stream);
    while let Some(request) = read(&mut reader)? {
        let is_head = request.method == "HEAD";
        let answered = panic::catch_unwind(panic::AssertUnwindSafe(|| function::handle(request)));
        let response = answered.unwrap_or_else(|_| {
            Response::text("the handler failed; its log says why\n").with_status(500)
        });
        write(&mut writer, response, is_head)?;
    }
    Ok(())
}

/// The next request; `None` at the end of the connection.
fn read(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (path, query) = (path.to_owned(), query.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.trim().to_owned())),
            None => break,
        }
    }
    let mut request = Request { method, path, query, headers, body: Vec::new() };
    request.body = if request.header("transfer-encoding").map_or(false, |value| value.contains("chunked")) {
        read_chunks(reader)?
    } else {
        let length = request.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        body
    };
    Ok(Some(request))
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size > 0 {
            reader.take(size).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            continue;
        }
        // Trailers, up to an empty line.
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
                return Ok(body);
            }
        }
    }
}

fn write(writer: &mut impl Write, response: Response, is_head: bool) -> io::Result<()> {
    write!(writer, "HTTP/1.1 {} -\r\n", response.status)?;
    for (name, value) in &response.headers {
        write!(writer, "{name}: {value}\r\n")?;
    }
    let has_no_body = matches!(response.status, 204 | 304);
    match response.body {
        Body::Whole(_) if has_no_body => write!(writer, "\r\n")?,
        Body::Whole(bytes) => {
            write!(writer, "Content-Length: {}\r\n\r\n", bytes.len())?;
            if !is_head {
                writer.write_all(&bytes)?;
            }
        }
        Body::Pieces(pieces) => {
            write!(writer, "Transfer-Encoding: chunked\r\n\r\n")?;
            for piece in pieces.filter(|piece| !piece.is_empty()) {
                write!(writer, "{:x}\r\n", piece.len())?;
                writer.write_all(&piece)?;
                writer.write_all(b"\r\n")?;
                writer.flush()?;
            }
            writer.write_all(b"0\r\n\r\n")?;
        }
    }
    writer.flush()
}
