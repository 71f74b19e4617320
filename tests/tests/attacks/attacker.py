# Tries to get out of where it runs. The test puts a line TARGET = {...} before this, which says what there is
# to be had outside. Prints a line for each attempt: NAME ANSWER, separated by a tab; "done" is a break-out.
import ctypes, errno, glob, itertools, os, resource, socket, stat, tempfile

libc = ctypes.CDLL(None, use_errno=True)


def must(returned):
    if returned == -1:
        raise OSError(ctypes.get_errno(), "")
    return returned


def first_that_works(attempts):
    """The answer of the last one, if none does."""
    answer = "nothing"
    for attempt in attempts:
        try:
            if attempt() is not False:
                return "done"
        except OSError as error:
            answer = errno.errorcode[error.errno]
    return answer


def in_a_child(act):
    def attempt():
        pid = os.fork()
        if pid == 0:
            try:
                act()
                os._exit(0)
            except OSError as error:
                os._exit(error.errno)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status != 0:
            raise OSError(status, "")

    return attempt


def read_the_hosts_file():
    path = TARGET["secret"]
    roots = ["", "/proc/1/root", "/proc/1/cwd", "/proc/self/root", "/proc/self/cwd", "/.." * 40]
    roots += [f"/proc/{os.getppid()}/{name}" for name in ("root", "cwd")]
    roots += [f"/proc/{pid}/fd/{fd}" for pid in ("self", 1, os.getppid()) for fd in range(50)]
    roots += [root + "/.." * 40 for root in roots]
    return first_that_works((lambda root=root: open(root + path).read() == "secret") for root in roots)


def list_the_state_directory():
    return first_that_works([lambda: os.listdir(TARGET["state"])])


def see_the_server():
    def seen(path):
        return TARGET["state"].encode() in open(path, "rb").read()

    return first_that_works((lambda path=path: seen(path)) for path in glob.glob("/proc/[0-9]*/cmdline"))


def reach_the_servers_ports():
    hosts = ["127.0.0.1", "::1"] + TARGET["addresses"]
    to = [(host, port) for host in hosts for port in TARGET["ports"]]
    return first_that_works((lambda at=at: socket.create_connection(at, 5)) for at in to)


def reach_an_abstract_socket():
    return first_that_works([lambda: socket.socket(socket.AF_UNIX).connect("\0" + TARGET["abstract"])])


def hold_what_is_the_parents():
    own = ("pipe:", "/dev/null", f"/proc/{os.getpid()}/fd")
    links = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            pass
    return first_that_works((lambda link=link: not link.startswith(own)) for link in links)


def overwrite_a_program_of_the_host():
    def opened_again(path):
        fd = os.open(path, os.O_PATH)
        os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)

    def linked(path):
        os.link(path, path + "-mine")

    ways = [lambda path: os.open(path, os.O_WRONLY), lambda path: os.truncate(path, 0), opened_again]
    ways += [lambda path: os.rename(path, path + "-moved"), linked, os.unlink, lambda path: os.chmod(path, 0o777)]
    return first_that_works((lambda way=way, path=path: way(path)) for path in TARGET["programs"] for way in ways)


def read_the_inits_memory():
    return first_that_works(
        [lambda: open("/proc/1/mem", "rb"), lambda: os.readlink("/proc/1/exe"), lambda: open("/proc/1/environ").read()]
    )


def set_the_kernel():
    paths = glob.glob("/proc/sys/kernel/*") + ["/proc/sys/vm/overcommit_memory", "/proc/sys/fs/suid_dumpable"]
    paths += ["/proc/sysrq-trigger", "/proc/irq/default_smp_affinity", "/sys/kernel/uevent_helper"]
    paths += ["/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"]
    paths = [path for path in paths if os.path.isfile(path)]
    assert len(paths) > 20
    return first_that_works((lambda path=path: os.open(path, os.O_WRONLY)) for path in paths)


def mount_something():
    place = tempfile.mkdtemp().encode()
    return first_that_works([lambda: must(libc.mount(b"x", place, b"tmpfs", 0, None))])


def have_the_kernel_run_a_program():
    """By a control group's release agent (CVE-2022-0492)."""
    place = tempfile.mkdtemp().encode()

    def in_new_namespaces():
        must(libc.unshare(0x10000000 | 0x20000 | 0x02000000))
        must(libc.mount(b"x", place, b"cgroup2", 0, None))

    ways = [lambda: must(libc.mount(b"x", place, b"cgroup2", 0, None)), in_a_child(in_new_namespaces)]
    ways += [lambda path=path: os.open(path, os.O_WRONLY) for path in glob.glob("/sys/fs/cgroup/**/release_agent", recursive=True)]
    return first_that_works(ways)


def change_its_own_bounds():
    def files():
        for folder, _, names in os.walk("/sys/fs/cgroup"):
            yield from (os.path.join(folder, name) for name in names)

    ways = [lambda path=path: os.open(path, os.O_WRONLY) for path in itertools.islice(files(), 1000)]
    ways += [lambda: os.mkdir("/sys/fs/cgroup/below"), lambda: must(libc.umount2(b"/sys/fs/cgroup", 2))]
    # Bound again, for writing.
    ways += [lambda: must(libc.mount(None, b"/sys/fs/cgroup", None, 0x1020, None))]
    return first_that_works(ways)


def have_other_namespaces():
    return first_that_works(in_a_child(lambda flag=flag: must(libc.unshare(flag))) for flag in (0x10000000, 0x20000, 0x40000000))


def enter_the_inits_namespaces():
    def enter(name):
        must(libc.setns(os.open(f"/proc/1/ns/{name}", os.O_RDONLY), 0))

    return first_that_works(in_a_child(lambda name=name: enter(name)) for name in ("mnt", "net", "uts"))


def have_a_device():
    def node(kind, number):
        path = tempfile.mktemp()
        os.mknod(path, kind | 0o600, os.makedev(*number))
        os.unlink(path)

    ways = [lambda: node(stat.S_IFBLK, (254, 0)), lambda: node(stat.S_IFCHR, (1, 1))]
    disks = ["/dev/kmsg", "/dev/mem", "/dev/fuse", "/dev/kvm", "/dev/loop-control"] + glob.glob("/dev/[vsn][dv]*")
    return first_that_works(ways + [lambda path=path: os.open(path, os.O_RDONLY) for path in disks])


def raise_a_limit():
    def raised():
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for most in (hard - 1, hard):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    def no_value_error():
        try:
            raised()
        except ValueError:
            raise PermissionError(errno.EPERM, "")

    return first_that_works([in_a_child(no_value_error)])


def be_somebody_else():
    path = tempfile.mktemp()
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
    ways = [lambda: os.setgroups([0]), lambda: os.setuid(1), lambda: os.setgid(1), lambda: os.chown(path, 1, 1)]
    return first_that_works(in_a_child(way) for way in ways)


def have_another_root():
    return first_that_works([in_a_child(lambda: os.chroot("/tmp"))])


ATTACKS = [
    read_the_hosts_file, list_the_state_directory, see_the_server, reach_the_servers_ports,
    reach_an_abstract_socket, hold_what_is_the_parents, overwrite_a_program_of_the_host, read_the_inits_memory,
    set_the_kernel, mount_something, have_the_kernel_run_a_program, change_its_own_bounds,
    have_other_namespaces, enter_the_inits_namespaces, have_a_device, raise_a_limit, be_somebody_else, have_another_root,
]
for attack in ATTACKS:
    print(attack.__name__, attack(), sep="\t")
