"""Calls function/handler.py for each request. It listens for the watchdog on 127.0.0.1:5000.

What is imported here, and by the handler, is there before the first call.
"""

import json
import os
import signal
import sys
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from function import handler

PORT = int(os.environ.get("http_port", "5000"))


class Event:
    """One call."""

    def __init__(self, method, target, headers, body):
        parts = urlsplit(target)
        self.method = method
        self.path = parts.path
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.headers = headers
        self.body = body


class Context:
    """Where the function runs."""

    hostname = os.environ.get("HOSTNAME", "localhost")


class Answer:
    """What a handler returned, as HTTP: a status, headers, and bytes or an iterator of them."""

    def __init__(self, returned):
        self.status, self.headers, body = 200, {}, returned
        if isinstance(returned, dict) and ("statusCode" in returned or "body" in returned):
            self.status = returned.get("statusCode", 200)
            self.headers = dict(returned.get("headers") or {})
            body = returned.get("body")
        kind = None
        if body is None:
            self.body = b""
        elif isinstance(body, (bytes, bytearray, memoryview)):
            self.body, kind = bytes(body), "application/octet-stream"
        elif isinstance(body, str):
            self.body, kind = body.encode(), "text/plain; charset=utf-8"
        elif hasattr(body, "__next__"):
            self.body, kind = body, "text/plain; charset=utf-8"
        else:
            self.body, kind = json.dumps(body).encode(), "application/json"
        if kind and not any(name.lower() == "content-type" for name in self.headers):
            self.headers["Content-Type"] = kind


class Server(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body of an answer are two writes; the second must not wait for the first's acknowledgement.
    disable_nagle_algorithm = True

    def answer(self):
        try:
            event = Event(self.command, self.path, self.headers, self.read_body())
            answer = Answer(handler.handle(event, Context()))
        except Exception:
            traceback.print_exc()
            answer = Answer({"statusCode": 500, "body": "the handler failed; its log says why\n"})
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, str(value))
        if isinstance(answer.body, bytes):
            if answer.status >= 200 and answer.status not in (204, 304):
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
        else:
            self.stream(answer.body)

    def stream(self, pieces):
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for piece in pieces:
                piece = piece.encode() if isinstance(piece, str) else bytes(piece)
                if piece:
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        except Exception:
            # The status is sent: only a connection that breaks off says that the answer is not whole.
            traceback.print_exc()
            self.close_connection = True

    def read_body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = bytearray()
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return bytes(body)

    def log_message(self, *_):
        """The watchdog logs requests."""

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer


class Listener(ThreadingHTTPServer):
    request_queue_size = 1024


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Listener(("127.0.0.1", PORT), Server).serve_forever()
