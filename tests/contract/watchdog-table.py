#!/usr/bin/env python3
"""Replays the cases of the watchdog table against a watchdog and compares what is seen from outside.

The two commands may be one; "env NAME=VALUE PROGRAM" gives it a variable to tell the two roles apart. A case runs in a
fresh directory {dir}, with the watchdog on a free port {port} and a free port {up} for the function's own server;
{upstream} is a command that serves the case's scripted replies there. Each worker has a network of its own where the
system allows it, since the watchdogs' metrics port is fixed. Strings in cases stand for bytes, one character a byte.
The format of a case is in README.md. The last line is 'N passed, N failed'.
"""
import argparse, contextlib, ctypes, fcntl, hashlib, http.client, json, multiprocessing, os, re, select, shlex
import signal, socket, struct, subprocess, sys, tempfile, threading, time
from collections import Counter
from pathlib import Path

METRICS_PORT = 8081
PATIENCE_S = 12.0  # longest wait for one response
LINGER_S = 0.15  # how long a connection is watched for its end after a response
STREAMED_S = 0.25  # a body whose first byte comes so long before its end was streamed
TEXT_LIMIT = 3000  # longer bodies are held as a hash
RECORD_RUNS = 3  # a case is recorded when so many runs agree
DROPPED_CAPABILITIES = (1, 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: without them root meets file modes as users do
HEADER_MARKS = [(r"^(Date: )\w{3}, \d\d \w{3} \d{4} [\d:]{8} GMT$", r"\1<date>"),
                (r"^(X-Duration-Seconds: )\d+\.\d{6}$", r"\1<seconds>")]


def pieces(parts):
    """Yields the bytes of a string, of a repeat, or of a list of them, and the pauses in it as seconds."""
    for part in parts if isinstance(parts, list) else [parts]:
        if isinstance(part, str):
            yield part.encode("latin-1")
        else:
            yield part["repeat"].encode("latin-1") * part["times"] if isinstance(part, dict) else part / 1000


def request_parts(step):
    """What to send for a step: its 'raw', or a request built from method, target, headers and body."""
    if "raw" in step:
        return step["raw"]
    body, method = step.get("body", ""), step.get("method", "GET")
    head = [f"{method} {step.get('target', '/')} HTTP/1.1", "Host: watchdog.test", *step.get("headers", [])]
    if body or method in ("POST", "PUT", "PATCH"):
        head.append(f"Content-Length: {sum(map(len, pieces(body)))}")
    return ["\r\n".join(head) + "\r\n\r\n", body]


class Connection:
    """A client connection that several requests may use."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.stream = self.socket.makefile("rb")

    def send(self, parts):
        with contextlib.suppress(OSError):  # the peer may stop listening; its answer is still to be read
            for piece in pieces(parts):
                time.sleep(piece) if isinstance(piece, float) else self.socket.sendall(piece)

    def observe(self, method, read):
        """The next response as an observation, that is the keys of 'expect', and the time its body began."""
        seen, body_at = {}, None
        try:
            version, status, fields = self.read_head()
            while status in (100, 102, 103):
                seen.setdefault("interim", []).append(status)
                version, status, fields = self.read_head()
            seen |= {"status": status, "headers": [f"{name}: {value}" for name, value in fields.items()],
                     "chunked": fields.get("Transfer-Encoding") == "chunked", "body": b""}
            seen |= {"version": "1.0"} if version == b"1.0" else {}
            if method != "HEAD" and status not in (204, 304) and fields.get("Content-Length") != "0":
                body_at = time.monotonic() if self.stream.peek(1) else None
                self.read_body(int(fields.get("Content-Length", -1)), read, seen)
        except (EOFError, OSError, ValueError) as error:
            fault = "timeout" if isinstance(error, TimeoutError) else "closed"
            seen["truncated" if "status" in seen else "no_response"] = fault
        return seen, body_at

    def read_head(self):
        if not (match := re.match(rb"HTTP/(1\.[01]) (\d{3})", self.stream.readline())):
            raise EOFError
        return match[1], int(match[2]), http.client.parse_headers(self.stream)

    def read_body(self, length, read, seen):
        while seen["chunked"] and (size := int(self.stream.readline().strip() or b"none", 16)):
            seen["body"] += self.stream.read(size)
            self.stream.readline()
            if read == "first_chunk":
                return
        if seen["chunked"]:
            trailers = [f"{name}: {value}" for name, value in http.client.parse_headers(self.stream).items()]
            seen |= {"trailers": sorted(trailers)} if trailers else {}
        else:
            seen["body"] = self.stream.read1(1 << 16) if read == "first_chunk" else self.stream.read(length)
            if len(seen["body"]) < length and read != "first_chunk":
                raise EOFError

    def ended(self):
        """Whether the peer closes the connection now."""
        with contextlib.suppress(ConnectionResetError):
            return bool(select.select([self.socket], [], [], LINGER_S)[0]) and not self.socket.recv(1, socket.MSG_PEEK)
        return True


def exchange(step, port, connection):
    """Sends a step's request; returns the observation and the connection."""
    sent_at, parts = time.monotonic(), request_parts(step)
    try:
        connection = connection if step.get("reuse") else Connection(port)
    except OSError:
        return {"no_response": "refused"}, None
    sender = threading.Thread(target=connection.send, args=(parts,), daemon=True)
    sender.start()
    if step.get("read") == "none":  # the client goes away once it has sent
        sender.join()
        connection.stream.close(), connection.socket.close()
        return {}, None
    method = step.get("method") or next(pieces(parts)).split(b" ")[0].decode()
    seen, body_at = connection.observe(method, step.get("read"))
    if "took_ms" in step:
        took_ms = round((time.monotonic() - sent_at) * 1000)
        seen["in_time"] = step["took_ms"][0] <= took_ms <= step["took_ms"][1] or f"{took_ms} ms"
        seen["first_byte_before_end"] = body_at is not None and time.monotonic() - body_at > STREAMED_S
    return seen | ({"connection_closed": connection.ended()} if "status" in seen else {}), connection


def normalise(seen, step, names):
    """Puts placeholders for what differs between runs, applies the step's sub and keep, hashes a long body."""
    marks = [(re.escape(names["dir"]), "{dir}"), *((f":{names[n]}(?!\\d)", f":{{{n}}}") for n in ("port", "up"))]
    header_marks = marks + HEADER_MARKS
    if "body" in seen:
        body = sent = seen.pop("body").decode("latin-1")
        for pattern, mark in marks + step.get("sub", []):
            body = re.sub(pattern, mark, body, flags=re.M)
        header_marks += [(r"^(Content-Length: )\d+$", r"\1<length>")] if body != sent else []
        if "keep" in step:
            body = "\n".join(sorted(line for line in body.split("\n") if re.search(step["keep"], line)))
        digest = hashlib.sha256(body.encode("latin-1")).hexdigest()
        seen |= {"body": body} if len(body) <= TEXT_LIMIT else {"body_sha256": digest, "body_bytes": len(body)}
    for pattern, mark in header_marks if "headers" in seen else ():
        seen["headers"] = sorted(re.sub(pattern, mark, line) for line in seen["headers"])
    return seen


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)


def accepts(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", int(port))) == 0


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return str(probe.getsockname()[1])


def private_network():
    """Moves this process into a network of its own with a loopback device; False where that is not allowed."""
    new_network, set_flags, up = 0x40000000, 0x8914, 0x1
    if ctypes.CDLL(None).unshare(new_network):
        return False
    with socket.socket() as device:
        fcntl.ioctl(device, set_flags, struct.pack("16sh22x", b"lo", up))
    return True


class Run:
    """One case, run once."""

    def __init__(self, case, upstream, command, base):
        self.home, self.base, self.connection, self.started = base / "case", base, None, []
        self.names = {"dir": str(self.home), "port": case.get("port") or free_port(), "up": free_port()}
        self.names["server"] = f"{sys.executable} {upstream}"
        self.names["upstream"] = f"{self.names['server']} {self.home}/upstream.json {self.names['up']}"
        text = json.dumps(case)
        for name, value in self.names.items():
            text = text.replace("{" + name + "}", value)
        self.case = json.loads(text)
        self.command = [*command, *case.get("args", [])]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "TMPDIR": str(self.home), "port": self.names["port"]}
        self.env = {name: value for name, value in (env | self.case.get("env", {})).items() if value is not None}

    def play(self):
        self.home.mkdir()
        servers = {f"{name}.json": json.dumps(self.case.get(name, {})) for name in ("upstream", "issuer")}
        for name, spec in (servers | self.case.get("files", {})).items():
            self.write_file(self.home / name, spec if isinstance(spec, dict) else {"text": spec})
        try:
            for other in self.case.get("beside", []):
                self.start(shlex.split(other["command"]))
                wait_until(lambda: accepts(other["port"]), 5)
            self.process = self.start(self.command, env=self.env, preexec_fn=lambda: [
                ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) for capability in DROPPED_CAPABILITIES])
            self.await_start()
            seen = self.steps(self.case["requests"])
            code = self.await_exit(self.case.get("exit_within_ms", 0))
            wait_until(lambda: not self.log_fault(), 2)
            return {"expect": seen, "exit": code, "log_fault": self.log_fault()}
        finally:
            for process in self.started:  # each leads a group of its own
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def write_file(self, path, spec):
        path.parent.mkdir(parents=True, exist_ok=True)
        text = spec["text"] if isinstance(spec["text"], str) else "".join(line + "\n" for line in spec["text"])
        path.write_text(text, encoding="latin-1")
        path.chmod(int(spec.get("mode", "644"), 8))
        for changed in path, path.parent:
            os.utime(changed, (1_700_000_000, 1_700_000_000))

    def start(self, command, **settings):
        with open(self.base / "stdout", "ab") as out, open(self.base / "stderr", "ab") as err:
            self.started.append(subprocess.Popen(command, cwd=self.home, start_new_session=True, umask=0o022,
                                                 stdin=subprocess.DEVNULL, stdout=out, stderr=err, **settings))
        return self.started[-1]

    def await_start(self):
        conditions = {"port": lambda: accepts(self.names["port"]), "upstream": lambda: accepts(self.names["up"]),
                      "metrics": lambda: accepts(METRICS_PORT), "lock": Path(self.env["TMPDIR"], ".lock").exists}
        default = ["port", "metrics"] + ["lock"] * ("suppress_lock" not in self.env)
        default += ["upstream"] * (self.names["upstream"] in self.env.get("fprocess", ""))
        for name in self.case.get("await", default):
            wait_until(lambda: self.process.poll() is not None or conditions[name](), 5)
        time.sleep(0.02)

    def await_exit(self, limit_ms):
        wait_until(lambda: self.process.poll() is not None, limit_ms / 1000)
        return self.process.poll()

    def steps(self, steps):
        seen, threads = [{} for _ in steps], []
        for index, step in enumerate(steps):
            time.sleep(step.get("delay_ms", 0) / 1000)
            threads.append(threading.Thread(target=lambda i=index, s=step: seen[i].update(self.step(s))))
            threads[-1].start()
            None if step.get("background") else threads[-1].join()
        for thread in threads:
            thread.join()
        return seen

    def step(self, step):
        if "signal" in step:
            return {"sent": self.process.send_signal(getattr(signal, "SIG" + step["signal"]))}
        if "connect" in step:
            return {"connect": "accepted" if accepts(self.names["port"]) else "refused"}
        if "wait_exit_ms" in step:
            return {"exit": self.await_exit(step["wait_exit_ms"])}
        if "sh" in step:
            return {"exit": subprocess.call(step["sh"], shell=True, cwd=self.home)}
        if "stat" in step:
            wait_until(Path(step["stat"]).exists, step.get("within_ms", 0) / 1000)
            found = Path(step["stat"]).exists() and os.stat(step["stat"])
            return {"size": found.st_size, "mode": f"{found.st_mode & 0o777:o}"} if found else {"exists": False}
        port = METRICS_PORT if step.get("to") == "metrics" else int(self.names["port"])
        seen, connection = exchange(step, port, self.connection)
        self.connection = self.connection if step.get("background") else connection
        return normalise(seen, step, self.names)

    def log_fault(self):
        """The first of the case's rules about its output that does not hold, as a sentence."""
        for stream, kind in ("stdout", "lines"), ("stdout", "none"), ("stderr", "lines"), ("stderr", "none"):
            lines = (self.base / stream).read_text(encoding="latin-1").split("\n")
            for rule in self.case.get(f"{stream}_{kind}", []):
                hits = [line for line in lines if re.search(rule, line)]
                if bool(hits) != (kind == "lines"):
                    return f"{stream}: {hits[:1] or 'no line'} matches {rule!r}"


def difference(case, expect, code, seen, any_framing):
    """The first difference between what a case expects and what was seen, as a sentence; None if there is none."""
    for index, (step, want, got) in enumerate(zip(case["requests"], expect, seen["expect"])):
        free = set(case.get("volatile", []))
        if any_framing:
            free |= {f"{index}.{key}" for key in ("chunked", "headers.Content-Length", "headers.Transfer-Encoding")}
        for key in [*want, *(got.keys() - want)]:
            a, b = want.get(key), got.get(key)
            if key == "headers" and a and b:
                a, b = (Counter(line for line in lines if f"{index}.headers.{line.split(': ')[0]}" not in free)
                        for lines in (a, b))
                a, b = sorted((a - b).elements()), sorted((b - a).elements())
            if a != b and f"{index}.{key}" not in free:
                about = repr(step.get("raw") or f"{step.get('method', 'GET')} {step.get('target', '')}")
                return f"request {index} {about:.60} {key}: expected {a!r:.300}, got {b!r:.300}"
    return f"exit: expected {code}, got {seen['exit']}" if code != seen["exit"] else seen["log_fault"]


def judge(job):
    """Compares one case, or records it when its runs agree; returns the fault, if any, and the case."""
    case, upstream, args = job
    fault, expect, code = None, case.get("expect"), case.get("exit")
    try:
        for run in range(RECORD_RUNS if args.record else 1):
            with tempfile.TemporaryDirectory(prefix="watchdog-", ignore_cleanup_errors=True) as base:
                seen = Run(case, upstream, getattr(args, case["watchdog"]), Path(base)).play()
            if args.record and run == 0:
                expect, code = seen["expect"], seen["exit"]
            fault = fault or difference(case, expect, code, seen, args.any_framing)
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    return fault, case | {"expect": expect, "exit": code}


def pretty(value, indent="\n"):
    """JSON with every value that fits on one line."""
    text, inner = json.dumps(value), indent + " "
    if len(text) + len(indent) <= 118 or not isinstance(value, (list, dict)):
        return text
    items = [pretty(item, inner) for item in value] if isinstance(value, list) else \
        [f"{json.dumps(key)}: {pretty(item, inner)}" for key, item in value.items()]
    return text[0] + ",".join(inner + item for item in items) + indent + text[-1]


def inherit(tables):
    """Completes the cases that only loosen the recorded one they name; returns the recorded ones that are replaced."""
    recorded = {f"{file.stem}/{case['name']}": (file, case) for file, table in tables.items()
                for case in table["cases"] if "instead" not in case}
    replaced = set()
    for table in tables.values():
        for index, case in enumerate(table["cases"]):
            if "instead" in case:
                file, old = recorded[case["instead"]]
                replaced.add((file, old["name"]))
                if "requests" not in case:
                    case["volatile"] += old.get("volatile", [])
                    table["cases"][index] = old | case
    return replaced


def play(chosen, jobs, tables, workers):
    """Judges cases; returns the index and the fault of each that failed."""
    faults = []
    with multiprocessing.Pool(workers, private_network) as pool:
        for index, ((file, at), (fault, case)) in enumerate(zip(chosen, pool.imap(judge, jobs))):
            tables[file]["cases"][at] = case
            faults += [(index, fault)] if fault else []
    return faults


def main():
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's job in the background has it ignored, and so would the watchdogs
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--of", required=True, type=shlex.split, metavar="COMMAND")
    options.add_argument("--classic", required=True, type=shlex.split, metavar="COMMAND")
    options.add_argument("--record", action="store_true", help="write what is seen into the cases")
    options.add_argument("--only", default="", metavar="REGEX", help="run the cases whose 'file/name' matches")
    options.add_argument("--skip-bugs", action="store_true", help="leave out cases marked upstream_bug")
    options.add_argument("--any-framing", action="store_true", help="accept any framing of a response's body")
    options.add_argument("--jobs", type=int, default=2, help="cases run at once (2)")
    options.add_argument("paths", nargs="+", type=Path, metavar="DIR")
    options.add_argument("--better", type=Path, metavar="DIR", help="take the cases of these files instead of, or beside, "
                         "the recorded ones")
    options.add_argument("--again", action="store_true", help="play failed cases once more, one at a time: a busy machine "
                         "breaks bounds of time")
    args = options.parse_args()
    files = [file for path in args.paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    files += sorted(args.better.glob("*.json")) if args.better else []
    tables = {file: json.loads(file.read_text()) for file in files}
    replaced = inherit(tables) if args.better else set()
    chosen = [(file, index) for file in files for index, case in enumerate(tables[file]["cases"])
              if re.search(args.only, f"{file.stem}/{case['name']}") and not (args.skip_bugs and "bug" in case)
              and (file, case["name"]) not in replaced]
    upstream = Path(__file__).resolve().parent / "watchdog/upstream.py"
    jobs = [(tables[file]["cases"][index], upstream, args) for file, index in chosen]
    with multiprocessing.Pool(1) as probe:
        workers = args.jobs if probe.apply(private_network) else 1
    faults = play(chosen, jobs, tables, workers)
    if args.again and faults:
        again = [index for index, _ in faults]
        faults = [(again[at], fault) for at, fault in
                  play([chosen[i] for i in again], [jobs[i] for i in again], tables, 1)]
    for index, fault in faults:
        file, at = chosen[index]
        print(f"{file.parent.name}/{file.stem}/{tables[file]['cases'][at]['name']}: {fault}", flush=True)
    failed = len(faults)
    for file, table in tables.items() if args.record else ():
        file.write_text(pretty(table) + "\n")
    print(f"{len(chosen) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
