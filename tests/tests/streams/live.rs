//! Answers that go on: each piece arrives before the next is made.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    process::{Command, Stdio},
};

use pinnace_tests::{Function, Gateway, clients::python};

use crate::{SPOKEN, platform};

/// A WebSocket server of the standard library alone: it sends every message back.
const ECHO: &str = r#"
import base64, hashlib, socketserver, struct
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        key = None
        while (line := self.rfile.readline().strip()):
            name, _, value = line.partition(b": ")
            if name.lower() == b"sec-websocket-key":
                key = value
        if key is None:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            return
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n")
        while True:
            first, second = self.rfile.read(2)
            size = second & 127
            if size == 126: size, = struct.unpack(">H", self.rfile.read(2))
            elif size == 127: size, = struct.unpack(">Q", self.rfile.read(8))
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[at % 4] for at, byte in enumerate(self.rfile.read(size)))
            head = bytes([first, size]) if size < 126 else bytes([first, 126]) + struct.pack(">H", size)
            self.wfile.write(head + data)
            if first & 15 == 8: return
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer(("127.0.0.1", 3000), Echo).serve_forever()
"#;

const WEBSOCKET: &str = r#"
import sys
from websockets.sync.client import connect
with connect(sys.argv[1]) as socket:
    for message in ["one", b"two", "x" * 60000]:
        socket.send(message)
        assert socket.recv(timeout=30) == message
print("echoed")
"#;

#[test]
fn a_websocket_goes_through() {
    let gateway = Gateway::start();
    let command = "python3 -c exec(__import__('os').environ['CODE'])";
    let function = Function::host("ws", command).env("CODE", ECHO).env("mode", "http");
    gateway.deploy(&function.env("upstream_url", "http://127.0.0.1:3000"));
    let url = format!("ws://{}/function/ws/", gateway.address());
    assert_eq!(python(WEBSOCKET, &[&url]), "echoed\n");
}

#[test]
fn an_event_arrives_before_the_next_is_made() {
    let gateway = platform();
    for spoken in SPOKEN {
        for function in ["one", "two"] {
            let of = |path: &str| format!("{}/function/{function}/{path}", gateway.url());
            let mut command = Command::new("curl");
            command.args(["--silent", "--no-buffer", "--max-time", "60", spoken]);
            let accept = ["--header", "Accept: text/event-stream"];
            let mut caller =
                command.args(accept).arg(of("events")).stdout(Stdio::piped()).spawn().unwrap();
            let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines();
            for number in 0..3 {
                assert_eq!(lines.next().unwrap().unwrap(), format!("data: {number}"), "{spoken}");
                assert_eq!(lines.next().unwrap().unwrap(), "");
                gateway.call(&format!("{function}/next"), b"").expect(200);
            }
            caller.kill().unwrap();
            caller.wait().unwrap();
        }
    }
}

#[test]
fn each_line_of_json_comes_back_before_the_next_is_sent() {
    let gateway = platform();
    for function in ["one", "two"] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
        let head = format!(
            "POST /function/{function}/echo HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-ndjson\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
        for number in 0..3 {
            let line = format!("{{\"number\":{number}}}\n");
            write!(stream, "{:x}\r\n{line}\r\n", line.len()).unwrap();
            assert!(lines.any(|found| found == line.trim_end()), "{function}");
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
        assert!(lines.any(|line| line == "0"), "the answer ends when the request does");
    }
}
