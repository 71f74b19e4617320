"""CSV in, statistics of each column out, as JSON.

Only the standard library is used. The watchdog starts this program once and forwards every call to it
(mode http), so a warm call costs no interpreter start. A column whose every value is a number gets count,
missing, mean, min, max, median and stdev; any other gets count, missing, distinct and its top values.
"""
import collections
import csv
import http.server
import io
import json
import math
import signal
import statistics
import threading

BODY_BYTES_MAX = 8 << 20
COLUMNS_MAX = 1000
TOP_VALUES = 3
IDLE_SECONDS_MAX = 30


class Refusal(Exception):
    """What is answered instead: a status and a sentence."""


def number(text):
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def describe(values):
    given = [value.strip() for value in values if value.strip()]
    summary = {"count": len(given), "missing": len(values) - len(given)}
    numbers = [number(value) for value in given]
    if given and None not in numbers:
        summary.update(
            type="number",
            mean=statistics.fmean(numbers),
            min=min(numbers),
            max=max(numbers),
            median=statistics.median(numbers),
            stdev=statistics.stdev(numbers) if len(numbers) > 1 else None,
        )
    else:
        counted = collections.Counter(given).most_common()
        top = [{"value": value, "count": count} for value, count in counted[:TOP_VALUES]]
        summary.update(type="text", distinct=len(counted), top=top)
    return summary


def statistics_of(text):
    first_line = text.partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter, strict=True) if row]
    except csv.Error as error:
        raise Refusal(400, f"the body is no CSV: {error}") from None
    if not rows:
        raise Refusal(400, "the body is empty; send a CSV file whose first line names the columns")
    names, *rows = rows
    if len(names) > COLUMNS_MAX:
        raise Refusal(413, f"{len(names)} columns, at most {COLUMNS_MAX}")
    if len(set(names)) < len(names):
        raise Refusal(400, "two columns have the same name")
    for position, row in enumerate(rows, start=1):
        if len(row) != len(names):
            raise Refusal(400, f"row {position} has {len(row)} fields, the first line {len(names)}")
    columns = zip(*rows) if rows else [()] * len(names)
    return {"rows": len(rows), "columns": dict(zip(names, map(describe, columns)))}


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = IDLE_SECONDS_MAX

    def do_POST(self):
        try:
            text = self.body().decode("utf-8-sig")
            self.answer(200, json.dumps(statistics_of(text), ensure_ascii=False, indent=2))
        except Refusal as refusal:
            status, sentence = refusal.args
            self.answer(status, json.dumps({"error": sentence}, ensure_ascii=False))
        except UnicodeDecodeError as error:
            self.answer(400, json.dumps({"error": f"the body is no UTF-8 text: {error}"}))

    def do_GET(self):
        self.answer(405, json.dumps({"error": "POST a CSV file whose first line names the columns"}))

    def body(self):
        kept = bytearray()
        size = 0
        for chunk in self.chunks():
            size += len(chunk)
            if size <= BODY_BYTES_MAX:  # the rest is read, so that the answer arrives, and dropped
                kept += chunk
        if size > BODY_BYTES_MAX:
            raise Refusal(413, f"the body has {size} bytes, at most {BODY_BYTES_MAX}")
        return kept

    def chunks(self):
        """The body's pieces: a watchdog may send it chunked, whatever the caller did."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while (size := self.chunk_size()) > 0:
                yield from self.pieces(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass  # trailers
        else:
            yield from self.pieces(int(self.headers.get("Content-Length") or 0))

    def chunk_size(self):
        try:
            return int(self.rfile.readline(1024).partition(b";")[0], 16)
        except ValueError:
            raise Refusal(400, "the body's chunks are broken") from None

    def pieces(self, size):
        while size > 0:
            piece = self.rfile.read(min(size, 64 << 10))
            if not piece:
                raise Refusal(400, "the body ended early")
            size -= len(piece)
            yield piece

    def answer(self, status, text):
        body = (text + "\n").encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *arguments):
        pass  # the watchdog logs each call


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # calls under way are finished before the end
    request_queue_size = 128


def main(port=5000):
    with Server(("127.0.0.1", port), Handler) as server:
        stop = threading.Thread(target=server.shutdown)
        signal.signal(signal.SIGTERM, lambda *_: stop.start())
        server.serve_forever(poll_interval=0.1)


main()
