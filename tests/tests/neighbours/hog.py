# Uses up one thing of its sandbox, or of the host, as fast as it can and until a deadline. The test puts a line
# HOG = "NAME"; TIME = SECONDS before this. Says how far it got.
import errno, mmap, os, signal, socket, threading, time

END = time.monotonic() + TIME


def lasts():
    return time.monotonic() < END


def spin():
    while lasts():
        pass


def fork_without_end():
    """Processes that fork themselves, and spin where they cannot."""
    born, refused = 0, ""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while lasts():
        try:
            if os.fork() == 0:
                born, refused = 0, refused
            else:
                born += 1
        except OSError as error:
            refused = errno.errorcode[error.errno]
        if os.getpid() != FIRST and not lasts():
            os._exit(0)
    if os.getpid() != FIRST:
        os._exit(0)
    return f"{born} {refused}"


def processor():
    for _ in range(16):
        if os.fork() == 0:
            spin()
            os._exit(0)
    spin()
    return "16"


def memory():
    """Pages of processes that are ended for it, again and again."""
    ended = 0
    while lasts():
        pid = os.fork()
        if pid == 0:
            kept = []
            while lasts():
                page = mmap.mmap(-1, 64 << 20)
                for at in range(0, len(page), 4096):
                    page[at] = 1
                kept.append(page)
            os._exit(0)
        ended += os.waitpid(pid, 0)[1] != 0
    return str(ended)


def disk():
    written, refused = 0, ""
    block = bytes(1 << 20)
    while lasts():
        for root in ("/tmp/", "/dev/shm/"):
            try:
                with open(root + "file", "wb", buffering=0) as file:
                    while lasts():
                        written += file.write(block)
            except OSError as error:
                refused = errno.errorcode[error.errno]
            os.unlink(root + "file")
    return f"{written >> 20} {refused}"


def files():
    made, refused = 0, ""
    os.mkdir("/tmp/flood")
    while lasts():
        try:
            os.mkdir(f"/tmp/flood/{made}")
            made += 1
        except OSError as error:
            refused = errno.errorcode[error.errno]
            for name in os.listdir("/tmp/flood"):
                os.rmdir("/tmp/flood/" + name)
    return f"{made} {refused}"


def sockets():
    """Buffers of the kernel, filled and kept."""
    kept, filled, refused = [], 0, ""
    block = bytes(64 << 10)
    while lasts():
        try:
            ends = socket.socketpair()
            kept.append(ends)
            ends[0].setblocking(False)
            while lasts():
                filled += ends[0].send(block)
        except BlockingIOError:
            pass
        except OSError as error:
            refused = errno.errorcode[error.errno]
            kept.clear()
    return f"{filled >> 20} {refused}"


def renames():
    """Takes a lock that all path look-ups of the host share."""
    count = 0
    os.makedirs("/tmp/a", exist_ok=True)
    while lasts():
        os.rename("/tmp/a", "/tmp/b")
        os.rename("/tmp/b", "/tmp/a")
        count += 1
    return str(count)


def threads():
    started, refused = 0, ""
    while lasts():
        try:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
            started += 1
        except RuntimeError:
            refused = "refused"
    return f"{started} {refused}"


FIRST = os.getpid()
print(globals()[HOG](), flush=True)
os._exit(0)
