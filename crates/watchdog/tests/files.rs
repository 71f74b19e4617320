//! Mode static, over both ways in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harness;

use std::{fs, os::unix::fs::symlink};

use harness::{ROUTES, Route, Watchdog};

fn start(route: Route) -> Watchdog {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("public");
    fs::create_dir_all(root.join("sub")).unwrap();
    for (name, text) in [
        ("index.html", "<html>home</html>\n"),
        ("page.html", "<html>page</html>\n"),
        ("app.js", "let a\n"),
        ("noext", "plain words\n"),
        ("sub/a.txt", "text\n"),
    ] {
        fs::write(root.join(name), text).unwrap();
    }
    fs::write(dir.path().join("secret.txt"), "s").unwrap();
    symlink("../secret.txt", root.join("out")).unwrap();
    symlink("sub/a.txt", root.join("within")).unwrap();
    fs::write(root.join("large"), "0123456789".repeat(100_000)).unwrap();
    Watchdog::start_in(dir, route, &[("mode", "static"), ("static_path", "DIR/public")])
}

fn asked(watchdog: &Watchdog, target: &str, header: &str) -> harness::Reply {
    watchdog.call(&format!("GET {target} HTTP/1.1\r\nHost: w\r\n{header}\r\n\r\n"))
}

#[test]
fn files_have_the_types_of_their_names_or_of_their_first_bytes() {
    for route in ROUTES {
        let mut watchdog = start(route);
        if route == Route::Unix {
            watchdog.wait_ready();
        }
        for (target, name, text) in [
            ("/", "text/html; charset=utf-8", "<html>home</html>\n"),
            ("/page.html", "text/html; charset=utf-8", "<html>page</html>\n"),
            ("/app.js", "text/javascript; charset=utf-8", "let a\n"),
            ("/noext", "text/plain; charset=utf-8", "plain words\n"),
            ("/sub/%61.txt?q", "text/plain; charset=utf-8", "text\n"),
            ("/within", "text/plain; charset=utf-8", "text\n"),
        ] {
            let reply = watchdog.get(target);
            assert_eq!((reply.status, reply.body.as_str()), (200, text), "{target}");
            assert_eq!(reply.header("content-type"), Some(name), "{target}");
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        }
        assert_eq!(watchdog.get("/large").body.len(), 1_000_000);
    }
}

#[test]
fn nothing_outside_of_the_directory_is_there() {
    let watchdog = start(Route::Tcp);
    for target in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/sub/..%2f..%2fsecret.txt",
        "/out",
        "/page.html/x",
        "/a%00b",
    ] {
        assert_eq!(watchdog.get(target).status, 404, "{target}");
    }
}

#[test]
fn directories_redirect_and_are_listed() {
    let watchdog = start(Route::Unix);
    for (target, to) in
        [("/sub?x=1", "sub/?x=1"), ("/index.html", "./"), ("/page.html/", "../page.html")]
    {
        let reply = watchdog.get(target);
        assert_eq!((reply.status, reply.header("location")), (301, Some(to)), "{target}");
    }
    assert!(watchdog.get("/sub/").body.contains("<a href=\"a.txt\">a.txt</a>"));
}

#[test]
fn parts_dates_and_heads() {
    let watchdog = start(Route::Unix);
    let reply = asked(&watchdog, "/page.html", "Range: bytes=1-4");
    assert_eq!((reply.status, reply.body.as_str()), (206, "html"));
    assert_eq!(reply.header("content-range"), Some("bytes 1-4/18"));
    let reply = asked(&watchdog, "/page.html", "Range: bytes=100-");
    assert_eq!((reply.status, reply.header("content-range")), (416, Some("bytes */18")));
    let reply = asked(&watchdog, "/page.html", "Range: bytes=0-0,2-3");
    assert_eq!(reply.status, 206);
    assert!(reply.body.contains("Content-Range: bytes 2-3/18"), "{}", reply.body);
    let reply = watchdog.call("HEAD /page.html HTTP/1.1\r\nHost: w\r\n\r\n");
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("18")));
    let date = reply.header("last-modified").unwrap();
    let reply = asked(&watchdog, "/page.html", &format!("If-Modified-Since: {date}"));
    assert_eq!((reply.status, reply.body.as_str()), (304, ""));
    let old = "If-Range: Tue, 14 Nov 2023 22:13:20 GMT\r\nRange: bytes=1-4";
    assert_eq!(asked(&watchdog, "/page.html", old).status, 200);
}
