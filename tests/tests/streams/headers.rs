//! What the gateway adds, strips and keeps (contract sections 6.1 and 6.2).

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use pinnace_tests::{Function, Gateway, clients::curled, http};

use crate::{SPOKEN, platform, speaks_h2c};

#[test]
fn headers_keep_the_contract_over_either_protocol() {
    let gateway = platform();
    let (url, host) = (gateway.url(), gateway.address().to_string());
    for spoken in SPOKEN {
        for function in ["one", "two"] {
            let of = format!("{url}/function/{function}/request");
            let all = |headers: &[&str]| {
                let mut words = vec![spoken, "--include", "--data", "x", &of];
                headers.iter().for_each(|header| words.extend(["--header", header]));
                curled(&words).replace("\r\n", "\n").to_lowercase()
            };
            let (answer, seen) = split(&all(&["content-type: a/b", "user-agent:"]));
            assert!(answer.contains("content-type: a/b\n"), "the request's is echoed: {answer}");
            let made = value(&answer, "x-call-id").expect("the id that was made is told");
            assert_eq!(value(&seen, "x-call-id"), Some(made));
            assert_eq!(value(&answer, "x-start-time"), value(&seen, "x-start-time"));
            assert!(value(&answer, "x-served-by").unwrap().starts_with("pinnace/"));
            assert!(value(&seen, "x-forwarded-for").unwrap().starts_with("127.0.0.1:"));
            assert_eq!(value(&seen, "x-forwarded-host"), Some(host.as_str()));
            assert!(value(&seen, "user-agent").unwrap().starts_with("pinnace/"), "{seen}");
            assert!(value(&seen, "x-forwarded-proto").is_none(), "it is not made up");

            let (answer, seen) = split(&all(&[
                "x-call-id: mine",
                "x-start-time: 1",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: example.com",
                "x-forwarded-proto: https",
                "authorization: Bearer t",
                "cookie: a=b; c=d",
                "proxy-authorization: gone",
                "content-type;",
            ]));
            assert!(value(&answer, "x-call-id").is_none(), "the caller knows its own: {answer}");
            assert_eq!(seen.matches("x-start-time: ").count(), 2, "a second value is added");
            for kept in [
                "x-call-id: mine",
                "x-forwarded-for: 192.0.2.1",
                "x-forwarded-host: example.com",
                "x-forwarded-proto: https",
                "authorization: bearer t",
                "cookie: a=b; c=d",
            ] {
                assert!(seen.contains(&format!("{kept}\n")), "{spoken} {function}: {kept}: {seen}");
            }
            assert!(!seen.contains("proxy-authorization"), "{seen}");
        }
    }
}

#[test]
fn what_belongs_to_the_connection_stays_there() {
    let gateway = platform();
    let address = gateway.address().to_string();
    for function in ["one", "two"] {
        let request = format!(
            "GET http://right.example/function/{function}/request HTTP/1.1\r\nHost: wrong\r\n\
             Connection: close, X-Named\r\nX-Named: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\n\
             TE: gzip\r\nTrailer: a\r\nUpgrade: h2c\r\n\r\n"
        );
        let answer = http::send_raw(&address, request.as_bytes()).unwrap().to_lowercase();
        let (_, seen) = split(&answer.replace("\r\n", "\n"));
        for gone in ["x-named", "keep-alive", "proxy-connection", "te: gzip", "trailer:", "upgrade"]
        {
            assert!(!seen.contains(gone), "{function}: {gone}: {seen}");
        }
        assert_eq!(value(&seen, "x-forwarded-host"), Some("right.example"), "{seen}");
    }
}

#[test]
fn failures_have_their_status_and_say_why() {
    let gateway = Gateway::start_with(&["--timeout", "1s"]);
    crate::deploy(&gateway);
    gateway.deploy(&Function::new("raw", "hello:test").env("HELLO_AT_START", "raw"));
    gateway.deploy(&speaks_h2c("exits"));
    for spoken in SPOKEN {
        let failed = |method: &str, path: &str, status: u16, word: &str, internal: bool| {
            let of = format!("{}{path}", gateway.url());
            let answer = curled(&[spoken, "--include", "--request", method, &of]);
            let (head, body) = split(&answer.replace("\r\n", "\n"));
            let said = head.split(' ').nth(1);
            assert_eq!(said, Some(status.to_string().as_str()), "{spoken} {path}: {answer}");
            assert!(body.contains(word), "{spoken} {path}: {body}");
            let is_marked = head.to_lowercase().contains("x-openfaas-internal: proxy");
            assert_eq!(is_marked, internal, "{spoken} {path}: {answer}");
        };
        failed("GET", "/function/", 400, "Provide function name", true);
        failed("GET", "/function/.openfaas-fn", 404, "error finding function", false);
        failed("POST", "/function/nobody", 404, "error finding function nobody.openfaas-fn", false);
        failed("TRACE", "/function/one", 405, "TRACE", false);
        failed("GET", "/function/one/wait/60000", 504, "--timeout", true);
        failed("GET", "/function/two/wait/60000", 504, "--timeout", true);
        failed("GET", "/function/raw/garbage", 502, "function raw.openfaas-fn", true);
        failed("GET", "/function/raw/half-head", 502, "function raw.openfaas-fn", true);
        failed("GET", "/function/exits/exit/3", 502, "function exits.openfaas-fn", true);
    }
}

#[test]
fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    let gateway = Gateway::start();
    crate::deploy(&gateway);
    for function in ["one", "two"] {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        let request = format!("GET /function/{function}/hold HTTP/1.0\r\nHost: h\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut begin = [0; 1];
        stream.read_exact(&mut begin).unwrap();
        gateway.call(&format!("{function}/exit/0"), b"");
        let mut rest = Vec::new();
        let error = stream.read_to_end(&mut rest).expect_err("it did not end by itself");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{function}");
        gateway.until(function, "it serves again", |status| {
            status["availableReplicas"].as_u64() >= Some(1)
        });
    }
}

/// Head and body.
fn split(answer: &str) -> (String, String) {
    let (head, body) = answer.split_once("\n\n").unwrap_or((answer, ""));
    (format!("{head}\n"), body.to_owned())
}

/// A header's last value.
fn value<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let mut found = lines.lines().filter_map(|line| line.split_once(": "));
    found.rfind(|(known, _)| *known == name).map(|(_, value)| value)
}
