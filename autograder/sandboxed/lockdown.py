"""What does a process give up before it runs a stranger's code? Privileges, system calls, and room to grow.

All of it holds for the process and for whatever it starts, and none of it can be taken back.
"""

import ctypes
import os
import platform
import resource
import struct

PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 22, 36, 38
SECCOMP_MODE_FILTER = 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000  # | errno
EPERM, ENOSYS = 1, 38

# The machine's name -> (the architecture as the kernel's audit calls it, column of DENIED, of CLONE and so on).
MACHINES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
# Numbers on x86_64 and aarch64; a library that is refused one of these says "operation not permitted".
DENIED = {
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440),
    # keys, and large and often broken parts of the kernel
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "vmsplice": (278, 75),
    "modify_ldt": (154, None),
    "personality": (135, 92),
    "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18),
    # mounts and namespaces
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    # memory that belongs to no process, so that no limit of a process counts it
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # the network, and sockets of other programs
    "socket": (41, 198),
    # the machine
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "iopl": (172, None),
    "ioperm": (173, None),
}
# The first argument is a process, and has to be 0, the caller: limits and turns of the worker are not a submission's.
ONLY_ITSELF = {
    "prlimit64": (302, 261),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
}
CLONE, CLONE3, IOCTL = (56, 220), (435, 435), (16, 29)
X32 = 0x40000000  # numbers from here on are x86_64's second interface
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW*: user, pid, net, mount, cgroup, uts, ipc
TERMINAL_INPUT = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX: typing into the terminal of whoever started us

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST, _SECOND = 0, 4, 16, 24  # offsets in struct seccomp_data


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """Return one instruction: a `struct sock_filter`."""
    return struct.pack("<HBBI", code, if_true, if_false, value)


def seccomp_program(machine: str) -> bytes:
    """Return the filter for a machine, as the kernel takes it. Raises KeyError for one that MACHINES does not know."""
    audit, column = MACHINES[machine]
    refuse, absent, allow = (_step(_RETURN, value) for value in (REFUSE | EPERM, REFUSE | ENOSYS, ALLOW))
    steps = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, audit, 1, 0), refuse, _step(_LOAD, _NUMBER)]
    if machine == "x86_64":
        steps += [_step(_AT_LEAST, X32, 0, 1), refuse]
    for numbers in DENIED.values():
        number = numbers[column]
        if number is not None:
            steps += [_step(_EQUAL, number, 0, 1), refuse]
    for numbers in ONLY_ITSELF.values():
        steps += [_step(_EQUAL, numbers[column], 0, 4), _step(_LOAD, _FIRST), _step(_EQUAL, 0, 0, 1), allow, refuse]
    # its flags lie in memory, where a filter cannot look; without it, libraries use clone
    steps += [_step(_EQUAL, CLONE3[column], 0, 1), absent]
    steps += [_step(_EQUAL, CLONE[column], 0, 4), _step(_LOAD, _FIRST), _step(_ANY_BIT, NEW_NAMESPACES, 0, 1)]
    steps += [refuse, allow]
    steps += [_step(_EQUAL, IOCTL[column], 0, 4), _step(_LOAD, _SECOND)]
    steps += [_step(_EQUAL, TERMINAL_INPUT[0], 1, 0), _step(_EQUAL, TERMINAL_INPUT[1], 0, 1), refuse, allow]
    return b"".join(steps)


def _prctl(option: int, *values: int | ctypes.c_void_p) -> None:
    """Call prctl. Raises OSError if the kernel refuses."""
    library = ctypes.CDLL(None, use_errno=True)
    arguments = [value if isinstance(value, ctypes.c_void_p) else ctypes.c_ulong(value) for value in values]
    arguments += [ctypes.c_ulong(0)] * (4 - len(arguments))
    if library.prctl(option, *arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def drop_privileges() -> None:
    """Make it impossible to gain a privilege by starting a program, and for others to look into this process."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1)
    _prctl(PR_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent has ended, so that none is lost sight of."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def filter_system_calls() -> bool:
    """Refuse the system calls of DENIED from now on. Return whether this machine and its kernel can."""
    if platform.machine() not in MACHINES:
        return False
    code = seccomp_program(platform.machine())
    program = _Program(len(code) // 8, code)
    try:
        _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.cast(ctypes.byref(program), ctypes.c_void_p))
    except OSError:  # a kernel without it, or a container that forbids it
        return False
    return True


def limit(what: int, value: int) -> None:
    """Lower a limit, soft and hard; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (most, most))


def limit_resources(file_bytes: int, processes: int | None) -> None:
    """Limit what a process may write to one file, how many processes there are, and what costs memory unseen.

    `processes` counts those of the user: None where the user is somebody's own.
    """
    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, file_bytes)
    limit(resource.RLIMIT_NOFILE, 512)
    limit(resource.RLIMIT_MEMLOCK, 0)
    limit(resource.RLIMIT_MSGQUEUE, 0)
    if processes is not None:
        limit(resource.RLIMIT_NPROC, processes)


def limit_time_and_memory(seconds: float, memory_bytes: int) -> None:
    """Limit the processor time of this process, and its address space to what it has now and `memory_bytes` more."""
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib is not imported here
        pages = int(file.read().split()[0])
    limit(resource.RLIMIT_AS, pages * resource.getpagesize() + memory_bytes)
    whole = int(seconds) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    hard = whole + 1 if hard == resource.RLIM_INFINITY else min(hard, whole + 1)
    resource.setrlimit(resource.RLIMIT_CPU, (min(whole, hard), hard))
