//! HTTP/1.1 and HTTP/2 on either side, gRPC, trailers.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::Duration,
};

use pinnace_tests::{
    clients::{curl, curled, python},
    eventually,
};

use crate::{SPOKEN, platform};

#[test]
fn callers_and_functions_meet_whatever_each_speaks() {
    let gateway = platform();
    let url = gateway.url();
    for spoken in SPOKEN {
        for function in ["one", "two"] {
            let of = |path: &str| format!("{url}/function/{function}{path}");
            let seen = curled(&[spoken, "--data", "body", &of("/request/%2F/..//x%3Fy?q=%20&r")]);
            let line = seen.lines().next().unwrap();
            assert!(line.starts_with("POST ") && line.ends_with("/request/%2F/..//x%3Fy?q=%20&r"));
            assert!(seen.contains("content-length: 4\n"), "{spoken} {function}: {seen}");
            assert_eq!(curled(&[spoken, "--data", "come back", &of("/echo")]), "come back");
            let head = curled(&[spoken, "--head", &of("/")]).to_lowercase();
            assert!(head.contains("content-length: 6"), "{spoken} {function}: {head}");
            for method in ["PUT", "PATCH", "DELETE", "OPTIONS"] {
                let seen = curled(&[spoken, "--request", method, &of("/request")]);
                assert!(seen.starts_with(&format!("{method} ")), "{spoken} {function}: {seen}");
            }
            let answer = curled(&[spoken, "--include", &of("/redirect")]).to_lowercase();
            assert!(answer.contains(" 302"), "no redirect is followed: {answer}");
            assert!(answer.contains("location: http://example.com/a%2fb"), "{answer}");
        }
    }
}

#[test]
fn the_control_plane_answers_over_http2_too() {
    let gateway = platform();
    let url = gateway.url();
    let password = format!("admin:{}", gateway.password());
    let h2 = SPOKEN[1];
    assert_eq!(curled(&[h2, &format!("{url}/healthz")]), "OK");
    let listed = format!("{url}/system/functions");
    assert!(curled(&[h2, "--user", &password, &listed]).contains("\"one\""));
    let refused = curled(&[h2, "--include", &listed]);
    assert!(refused.starts_with("HTTP/2 401"), "{refused}");
    let unknown = curled(&[h2, "--include", &format!("{url}/function/nobody")]);
    assert!(unknown.starts_with("HTTP/2 404") && unknown.contains("nobody.openfaas-fn"));
}

#[test]
fn trailers_pass_both_ways() {
    let gateway = platform();
    let url = gateway.url();
    for function in ["one", "two"] {
        let of = format!("{url}/function/{function}/trailers");
        for spoken in SPOKEN {
            let answer = curled(&[spoken, "--include", "--header", "TE: trailers", "-dx", &of]);
            assert!(answer.contains("end\nx-sum: 42"), "{spoken} {function}: {answer}");
        }
        let address = gateway.address().to_string();
        let mut stream = TcpStream::connect(&address).unwrap();
        let request = format!(
            "POST /function/{function}/trailers HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\
             Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Own: 7\r\nContent-Length: 9\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains("x-own: 7\nend\n"), "{function}: {answer}");
    }
}

/// One call, then five messages that each wait for their echo, then an unknown function.
const GRPC: &str = r#"
import grpc, queue, sys
channel = grpc.insecure_channel(sys.argv[1])
same = lambda message: message
path = "/function/" + sys.argv[2] + "/test.Echo/"
one = channel.unary_unary(path + "One", request_serializer=same, response_deserializer=same)
for number in range(200):
    assert one(b"message %d" % number, timeout=30) == b"message %d" % number
many = channel.stream_stream(path + "Many", request_serializer=same, response_deserializer=same)
messages = queue.Queue()
call = many(iter(messages.get, None), timeout=30)
for number in range(5):
    messages.put(b"message %d" % number)
    assert next(call) == b"message %d" % number
messages.put(None)
assert list(call) == [] and call.code() == grpc.StatusCode.OK
large = b"x" * 3_000_000
assert one(large, timeout=30) == large
try:
    channel.unary_unary("/function/nobody/x", same, same)(b"", timeout=30)
    sys.exit("nobody answered")
except grpc.RpcError as error:
    print(error.code())
"#;

#[test]
fn calls_of_grpc_reach_their_function() {
    let gateway = platform();
    let address = gateway.address().to_string();
    assert_eq!(python(GRPC, &[&address, "two"]), "StatusCode.UNIMPLEMENTED\n");
    // The content type alone says what the function speaks.
    let function = pinnace_tests::Function::new("three", "hello:test");
    gateway.deploy(&function.env("HELLO_PROTOCOL", "h2c"));
    assert_eq!(python(GRPC, &[&address, "three"]), "StatusCode.UNIMPLEMENTED\n");
}

#[test]
fn a_function_that_does_not_speak_http2_is_told_as_that() {
    let gateway = platform();
    let kind = "content-type: application/grpc";
    let of = format!("{}/function/one/", gateway.url());
    let answer = curled(&[SPOKEN[1], "--include", "--header", kind, "--data", "", &of]);
    assert!(answer.starts_with("HTTP/2 502"), "{answer}");
    assert!(answer.contains("x-openfaas-internal: proxy"), "{answer}");
    assert!(answer.contains("as HTTP/2"), "{answer}");
}

#[test]
fn a_gibibyte_passes_over_http2_in_little_memory() {
    let gateway = platform();
    let peak = || {
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
    };
    let before = peak();
    for function in ["one", "two"] {
        let of = format!("{}/function/{function}/zeros/1024", gateway.url());
        let size =
            ["--max-time", "120", "--output", "/dev/null", "--write-out", "%{size_download}"];
        assert_eq!(curled(&[&[SPOKEN[1], &of], &size[..]].concat()), (1 << 30).to_string());
    }
    let grown = peak() - before;
    assert!(grown < 48, "it took {grown} MiB of memory");
}

#[test]
fn a_caller_that_leaves_ends_its_call_at_the_function() {
    let gateway = platform();
    for spoken in SPOKEN {
        for function in ["one", "two"] {
            let left = || gateway.logs(function).matches("caller left").count();
            let before = left();
            let of = format!("{}/function/{function}/hold", gateway.url());
            let output = curl(&[spoken, "--max-time", "1", "--no-buffer", &of]);
            assert_eq!(String::from_utf8_lossy(&output.stdout), "held\n", "{spoken} {function}");
            let what = format!("{function} hears that its caller ({spoken}) has left");
            eventually(&what, Duration::from_secs(20), || (left() > before).then_some(()));
        }
    }
}

#[test]
fn a_server_that_ends_finishes_its_calls_over_http2() {
    let mut gateway = platform();
    let of = format!("{}/function/one/ticks/50", gateway.url());
    let mut command = Command::new("curl");
    command.args(["--silent", "--no-buffer", "--max-time", "30", SPOKEN[1], &of]);
    let mut caller = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(caller.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "tick 0");
    gateway.stop();
    assert_eq!(lines.count(), 49, "the answer is whole");
    assert!(caller.wait().unwrap().success());
}

#[test]
fn a_caller_may_wait_for_leave_to_send_its_body() {
    let gateway = platform();
    let of = format!("{}/function/one/echo", gateway.url());
    for spoken in SPOKEN {
        let expect = ["--header", "Expect: 100-continue", "--expect100-timeout", "20", "--verbose"];
        let output = curl(&[&[spoken, "--data", "body", &of], &expect[..]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.stdout, b"body", "{said}");
        assert!(said.contains(" 100"), "{spoken}: {said}");
    }
}
