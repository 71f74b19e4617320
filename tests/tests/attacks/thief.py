# Leaves things in its sandbox (PLANT = True) that another must not find, or looks for them. The test puts that
# line before this. Prints a line for each thing: NAME ANSWER; "found" is a theft.
import ctypes, errno, os, socket

libc = ctypes.CDLL(None, use_errno=True)
KEY, CREATE, WRITABLE = 0x70696E, 0o1000, 0o600


def must(returned):
    if returned == -1:
        raise OSError(ctypes.get_errno(), "")
    return returned


def listener():
    """A process that goes on listening when the call has ended."""
    at = socket.socket(socket.AF_UNIX)
    at.bind("\0pinnace-test-victim")
    at.listen()
    if os.fork() == 0:
        os.setsid()
        for fd in range(3):
            os.close(fd)
        while True:
            at.accept()


PLANTS = {
    "abstract socket": listener,
    "shared memory": lambda: must(libc.shmget(KEY, 4096, CREATE | 0o666)),
    "semaphores": lambda: must(libc.semget(KEY, 1, CREATE | 0o666)),
    "messages": lambda: must(libc.msgget(KEY, CREATE | 0o666)),
    "message queue": lambda: must(libc.mq_open(b"/pinnace-test", os.O_CREAT | os.O_RDWR, 0o666, None)),
    "file in /dev/shm": lambda: open("/dev/shm/pinnace-test", "w").write("x"),
    "file in /tmp": lambda: open("/tmp/pinnace-test", "w").write("x"),
}
THEFTS = {
    "abstract socket": lambda: socket.socket(socket.AF_UNIX).connect("\0pinnace-test-victim"),
    "shared memory": lambda: must(libc.shmget(KEY, 0, 0)),
    "semaphores": lambda: must(libc.semget(KEY, 0, 0)),
    "messages": lambda: must(libc.msgget(KEY, 0)),
    "message queue": lambda: must(libc.mq_open(b"/pinnace-test", os.O_RDWR)),
    "file in /dev/shm": lambda: open("/dev/shm/pinnace-test"),
    "file in /tmp": lambda: open("/tmp/pinnace-test"),
}
for name, act in (PLANTS if PLANT else THEFTS).items():
    try:
        act()
        answer = "found"
    except OSError as error:
        answer = errno.errorcode[error.errno]
    print(name, answer, sep="\t")
