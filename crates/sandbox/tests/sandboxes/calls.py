# Tries what a function may not do, by system call numbers of x86-64, and says what the kernel answered: a line
# each, GROUP NAME ANSWER, separated by tabs. Arguments are such that the calls change nothing where they are
# allowed: the same script run as plain root must get other answers, or it would prove nothing.
import ctypes, errno, fcntl, mmap, os, pty, signal

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def call(number, *args):
    ctypes.set_errno(0)
    returned = libc.syscall(*(ctypes.c_long(word) for word in (number, *args)))
    return errno.errorcode[ctypes.get_errno()] if returned == -1 else "done"


def attempt(act):
    try:
        act()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]


def child(act):
    pid = os.fork()
    if pid == 0:
        os._exit(act() or 0)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return signal.Signals(os.WTERMSIG(status)).name
    return {0: "done"}.get(os.WEXITSTATUS(status)) or errno.errorcode[os.WEXITSTATUS(status)]


def in_terminal(act):
    """Does it with a terminal of one's own that is the controlling one."""

    def within():
        _, terminal = pty.openpty()
        os.setsid()
        fcntl.ioctl(terminal, 0x540E, 0)  # TIOCSCTTY
        answer = attempt(lambda: act(terminal))
        return 0 if answer == "done" else getattr(errno, answer)

    return child(within)


def machine_code(code):
    """Runs instructions that return a number."""

    def within():
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        ctypes.CFUNCTYPE(ctypes.c_int)(address)()

    return child(within)


NEWNS, NEWUSER, FS, VM, SIGCHLD = 0x20000, 0x10000000, 0x200, 0x100, 17
REFUSED = {
    # Mounts.
    "mount": (165, 0, 0, 0, 0, 0), "umount2": (166, 0, 0), "pivot_root": (155, 0, 0), "chroot": (161, 0),
    "open_tree": (428, -1, 0, 0), "move_mount": (429, -1, 0, -1, 0, 0), "fsopen": (430, 0, 0),
    "fsconfig": (431, -1, 0, 0, 0, 0), "fsmount": (432, -1, 0, 0), "fspick": (433, -1, 0, 0),
    "mount_setattr": (442, -1, 0, 0, 0, 0),
    # Namespaces. The last two make none even where they may.
    "unshare": (272, NEWNS), "setns": (308, -1, 0), "clone newns": (56, NEWNS | FS | SIGCHLD, 0, 0, 0, 0),
    "clone newuser": (56, NEWUSER | FS | SIGCHLD, 0, 0, 0, 0),
    # The kernel itself.
    "init_module": (175, 0, 0, 0), "finit_module": (313, -1, 0, 0), "delete_module": (176, 0, 0),
    "kexec_load": (246, 0, 0, 0, 0xFFFF), "kexec_file_load": (320, -1, -1, 0, 0, 0xFFFF),
    "bpf": (321, 0, 0, 0), "perf_event_open": (298, 0, 0, 0, 0, 0), "syslog": (103, 10, 0, 0),
    "iopl": (172, 0), "ioperm": (173, 0, 0, 0), "modify_ldt": (154, 0, 0, 0), "reboot": (169, 0, 0, 0, 0),
    "acct": (163, 1), "swapon": (167, 0, 0), "swapoff": (168, 0), "quotactl": (179, 0, 0, 0, 0),
    "quotactl_fd": (443, -1, 0, 0, 0), "uselib": (134, 0), "ustat": (136, 0, 0), "sysfs": (139, 3, 0, 0),
    "_sysctl": (156, 0), "nfsservctl": (180, 0, 0, 0), "lookup_dcookie": (212, 0, 0, 0),
    # The clock and names.
    "settimeofday": (164, 1, 0), "clock_settime": (227, 0, 0), "adjtimex": (159, 0),
    "clock_adjtime": (305, 0, 0), "sethostname": (170, 0, -1), "setdomainname": (171, 0, -1),
    # Keys, other processes, and what has a record of holes.
    "add_key": (248, 0, 0, 0, 0, 0), "request_key": (249, 0, 0, 0, 0), "keyctl": (250, 0, -3, 0, 0, 0),
    "io_uring_setup": (425, 1, 0), "io_uring_enter": (426, -1, 0, 0, 0, 0),
    "io_uring_register": (427, -1, 0, 0, 0), "userfaultfd": (323, 1), "ptrace": (101, 2, 0, 0, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 1), "process_vm_writev": (311, 1, 0, 0, 0, 1),
    "process_madvise": (440, -1, 0, 0, 0, 0), "kcmp": (312, 1, 1, 99, 0, 0), "pidfd_getfd": (438, -1, 0, 0),
    "open_by_handle_at": (304, -1, 0, 0), "name_to_handle_at": (303, -1, 0, 0, 0, 0),
    "fanotify_init": (300, 0, 0), "fanotify_mark": (301, -1, 0, 0, 0, 0), "move_pages": (279, 0, 0, 0, 0, 0, 0),
    "migrate_pages": (256, 0, 0, 0, 0), "mbind": (237, 0, 0, 0, 0, 0, 0), "set_mempolicy": (238, 0, 0, 0),
    "get_mempolicy": (239, 0, 0, 0, 0, 0), "prctl mce_kill": (157, 33, 0, 0, 0, 0),
    "prctl set_mm": (157, 35, 0, 0, 0, 1), "prctl sched_core": (157, 62, 0, 0, 0, 0),
}
UNKNOWN = {
    "clone3": (435, 0, 0), "personality": (135, 0x0040000), "sync": (162,), "syncfs": (306, 0),
    "vmsplice": (278, -1, 0, 0, 0), "remap_file_pages": (216, 0, 0, 0, 0, 0),
}
SOCKETS = {
    "packet": (17, 3, 0), "packet by its old name": (2, 10, 0x300), "generic netlink": (16, 3, 16),
    "kobject netlink": (16, 3, 15), "mptcp": (2, 1, 262), "mptcp6": (10, 1, 262), "raw of 255": (2, 3, 255),
    "icmp": (2, 3, 1),
}
# Not in every kernel, and there no less refused.
RARE_SOCKETS = {
    "alg": (38, 5, 0), "vsock": (40, 1, 0), "xdp": (44, 3, 0), "tipc": (30, 2, 0), "key": (15, 3, 2),
    "can": (29, 3, 1), "rds": (21, 5, 0), "sctp": (2, 1, 132), "dccp": (2, 6, 33), "udplite": (2, 2, 136),
    "bluetooth": (31, 3, 1), "vhci": (31, 3, 0),
}
ALLOWED_SOCKETS = {
    "unix": (1, 1, 0), "unix datagrams": (1, 2, 0), "tcp": (2, 1, 0), "tcp by name": (2, 1, 6),
    "udp": (2, 2, 17), "tcp6": (10, 1, 6), "udp6": (10, 2, 0), "routes": (16, 3, 0),
}

def say(group, name, answer):
    print(group, name, answer, sep="\t")


for name, words in REFUSED.items():
    say("refused", name, call(*words))
for name, words in UNKNOWN.items():
    say("unknown", name, call(*words))
for group, sockets in (("unknown", SOCKETS), ("rare", RARE_SOCKETS), ("allowed", ALLOWED_SOCKETS)):
    for name, words in sockets.items():
        say(group, "socket " + name, call(41, *words))
say("unknown", "pair of inet sockets", call(53, 2, 1, 0, 0))
say("refused", "type into a terminal", in_terminal(lambda terminal: fcntl.ioctl(terminal, 0x5412, b"x")))
say("refused", "discipline of a terminal", in_terminal(lambda terminal: fcntl.ioctl(terminal, 0x5423, bytes(4))))
say("allowed", "size of a terminal", in_terminal(lambda terminal: fcntl.ioctl(terminal, 0x5413, bytes(8))))
# mov eax, 20 (getpid of i386); int 0x80; ret
say("fatal", "32-bit getpid", machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"))
# mov eax, 39 (getpid); syscall; ret
say("allowed", "64-bit getpid", machine_code(b"\xb8\x27\x00\x00\x00\x0f\x05\xc3"))
say("rare", "x32 getpid", call(0x40000000 + 39))
say("rare", "call of the future", call(9999))
say("allowed", "fork", child(lambda: 0))
