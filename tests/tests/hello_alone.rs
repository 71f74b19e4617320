//! The function that the other tests call, without the platform.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    io::{Read, Write},
    net::Shutdown,
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::{Child, Command, Stdio},
};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_on_the_socket_it_is_given_and_says_when() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fn.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // The shell puts what it has as standard input and output where a sandbox puts them.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" 3<&0 4>&1", env!("CARGO_BIN_EXE_hello")]);
    command.env("LISTEN_FDS", "2").stdin(Stdio::from(OwnedFd::from(listener)));
    let (mut heard, said) = UnixStream::pair().unwrap();
    let _running = Running(command.stdout(Stdio::from(OwnedFd::from(said))).spawn().unwrap());

    heard.read_exact(&mut [0; 1]).unwrap();
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let _ = stream.shutdown(Shutdown::Both);
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("hello\n"), "{answer}");
}
