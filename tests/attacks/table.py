"""The table of attacks: one submission a row, driven by `tests/attacks/driver.py`.

A row's code goes into an RMSNorm that is otherwise right. What an attack gains it prints after the word ESCAPED, and no
row may print that, or the secrets that lie outside. `right` and `wrong` say whether the output equals the reference.
"""

from dataclasses import dataclass, field

CODE = """
import os, sys, time, signal, threading
import torch
from torch import nn
{top}

class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def _norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def forward(self, x):
        good = self._norm(x) * self.weight
{body}
"""


@dataclass(frozen=True)
class Attack:
    """One submission and what must come of it: statuses of the sandbox, or `right` and `wrong` for an answer.

    `then` is the code of a second call in the same sandbox, which must be right. `kind` is the error's, if given.
    """

    name: str
    outcomes: frozenset[str]
    body: str = "return good"
    top: str = ""
    files: dict[str, str] = field(default_factory=dict)
    kind: str = ""
    seconds: float = 8.0
    then: str = ""
    fast: bool = False
    max_seconds: float = 0.0  # if given: how long the call may have taken

    def source(self, secrets: dict[str, str]) -> str:
        """Return the attacker's `llama.py`; it is told where the secrets are."""
        body = "\n".join(" " * 8 + line for line in self.body.strip("\n").splitlines())
        text = CODE.replace("{top}", self.top).replace("{body}", body)
        for name, value in secrets.items():
            text = text.replace(f"@{name}@", value)
        return text


def _row(name: str, outcomes: str, body: str = "return good", top: str = "", **more: object) -> Attack:
    return Attack(name, frozenset(outcomes.split()), body, top, **more)  # type: ignore[arg-type]


REFUSED = "PermissionError"
HANG = 1.5  # seconds for a row that never ends

ENDING = [
    _row("sys.exit in a call", "error", "sys.exit(0)", kind="SystemExit", fast=True),
    _row("sys.exit on import", "error", top="sys.exit(0)", kind="SystemExit"),
    _row("os._exit in a call", "crash", "os._exit(0)", fast=True),
    _row("os._exit on import", "crash", top="os._exit(0)"),
    _row("an interrupt is raised", "error", "raise KeyboardInterrupt", kind="KeyboardInterrupt"),
    _row("kills its parent", "crash right", "os.kill(os.getppid(), 9)\nreturn good", fast=True),
    _row("kills everything it may", "crash error right", "os.kill(-1, 9)\nreturn good"),
    _row("kills process 1", "crash error right", "os.kill(1, 9)\nreturn good"),
    _row("kills its process group", "crash", "os.killpg(0, 9); time.sleep(9)"),
    _row("stops its parent", "timeout", "os.kill(os.getppid(), signal.SIGSTOP); time.sleep(60)", seconds=HANG),
    _row(
        "lowers the limits of its parent",
        "error",
        "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (3, 3))",
        kind="PermissionError",
        then="return good",
        fast=True,
    ),
    _row(
        "moves its parent to another processor",
        "error",
        "os.sched_setaffinity(os.getppid(), {0})",
        kind="PermissionError",
    ),
    _row(
        "takes its parent's turns", "error", "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)", kind="PermissionError"
    ),
    _row("replaces its program", "crash error", "os.execv(sys.executable, ['python', '-S', '-c', 'print(1)'])"),
    _row("segmentation fault", "crash", "import ctypes; ctypes.string_at(0)", fast=True),
    _row("abort", "crash", "os.abort()"),
    _row("closes every descriptor", "crash", "os.closerange(0, 1024)\nreturn good"),
    _row("takes its own output away", "right", "sys.stdout = sys.stderr = None\nreturn good"),
    _row(
        "leaves threads, exit hooks and destructors",
        "right",
        top="""
import atexit
atexit.register(time.sleep, 60)
threading.Thread(target=time.sleep, args=(60,)).start()
class D:
    def __del__(self): time.sleep(60)
d = D()""",
        max_seconds=8.0,
    ),
]

GROWING = [
    _row("endless loop", "timeout", "while True: pass", seconds=HANG, fast=True),
    _row("endless sleep", "timeout", "time.sleep(1e6)", seconds=HANG),
    _row(
        "endless loop that ignores signals",
        "timeout",
        """
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
while True: pass""",
        seconds=HANG,
    ),
    _row("endless import", "timeout", top="while True: time.sleep(0.01)", seconds=HANG),
    _row("endless loop in C", "timeout", "sum(iter(int, 1))", seconds=HANG),
    _row("endless output", "timeout", "while True: print('x' * 1000)", seconds=HANG, fast=True),
    _row("ten megabytes of output", "right", "print('x' * 10_000_000)\nreturn good"),
    _row("fork bomb", "timeout error crash memory", "while True: os.fork()", seconds=HANG, fast=True),
    _row(
        "fork bomb in sessions of their own",
        "timeout error crash memory",
        """
while True:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: pass""",
        seconds=HANG,
    ),
    _row(
        "thread bomb",
        "timeout error crash memory",
        """
while True: threading.Thread(target=time.sleep, args=(60,)).start()""",
        seconds=3.0,
    ),
    _row("50 GB at once", "memory", "torch.ones(50 * 2**30 // 4)", fast=True),
    _row("50 GB of Python", "memory", "bytearray(50 * 2**30)"),
    _row("memory that grows", "memory", "kept = []\nwhile True: kept.append(torch.ones(2**22))", seconds=30.0),
    _row(
        "memory of many processes",
        "memory",
        """
for _ in range(30):
    if os.fork() == 0:
        kept = bytearray(150 * 2**20)
        for i in range(0, len(kept), 4096): kept[i] = 1
        time.sleep(60)
time.sleep(60)""",
        seconds=6.0,
    ),
    _row(
        "memory that no process holds",
        "error memory",
        """
fd = os.memfd_create('x')
while True: os.write(fd, bytes(2**20))""",
        kind="PermissionError",
    ),
    _row("deep recursion", "error", "def deep(n): return deep(n + 1)\ndeep(0)", kind="RecursionError", fast=True),
    _row(
        "recursion without a limit",
        "crash error memory",
        """
sys.setrecursionlimit(10**9)
deep = lambda n: [*map(deep, [n + 1])]
deep(0)""",
    ),
    _row(
        "fills the disk",
        "error crash",
        """
for i in range(10**6):
    with open(os.environ['TMPDIR'] + f'/{i}', 'wb') as file: file.write(bytes(2**22))""",
        kind="OSError",
        seconds=30.0,
        fast=True,
    ),
    _row(
        "20,000 files",
        "right",
        """
for i in range(20_000): open(os.environ['TMPDIR'] + f'/{i}', 'w').close()
return good""",
        seconds=30.0,
    ),
    _row(
        "folders inside folders",
        "right crash",
        """
os.chdir(os.environ['TMPDIR'])
for i in range(3000):
    os.mkdir('d'); os.chdir('d')
return good""",
        then="assert not os.listdir(os.environ['TMPDIR'])",
    ),
    _row(
        "folders that nobody may open",
        "right",
        """
os.makedirs(os.environ['TMPDIR'] + '/a/b/c')
open(os.environ['TMPDIR'] + '/a/b/c/d', 'w').close()
for name in ('/a/b/c', '/a/b', '/a'): os.chmod(os.environ['TMPDIR'] + name, 0)
return good""",
        then="assert not os.listdir(os.environ['TMPDIR'])",
    ),
    _row(
        "raises its limits",
        "right",
        """
import resource
for name in ('RLIMIT_NPROC', 'RLIMIT_AS', 'RLIMIT_FSIZE', 'RLIMIT_CPU', 'RLIMIT_CORE', 'RLIMIT_NOFILE'):
    which = getattr(resource, name)
    try: resource.setrlimit(which, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (ValueError, OSError): continue
    print('ESCAPED', name)
return good""",
    ),
]

READING = [
    _row("reads a file of the judge", "error", "print(open('@canary@').read())\nreturn good", fast=True),
    _row("lists the judge's folder", "error", "print(os.listdir(os.path.dirname('@canary@')))\nreturn good"),
    _row("overwrites a file of the judge", "error", "open('@canary@', 'w').write('mine')\nreturn good"),
    _row("removes a file of the judge", "error", "os.remove('@canary@')\nreturn good"),
    _row(
        "links to a file of the judge",
        "error",
        """
os.symlink('@canary@', os.environ['TMPDIR'] + '/link')
print(open(os.environ['TMPDIR'] + '/link').read())""",
    ),
    _row(
        "looks for the solution",
        "right",
        """
for top in ('/work', '/root', '/home', '/autograder', '/usr/src', '/opt', '@root@', '/grader', '/env', '/srv', '/mnt'):
    for folder, _, files in os.walk(top):
        if 'editions' in folder or 'sanity_data.py' in files or 'checks.py' in files and 'autograder' in folder:
            print('ESCAPED', folder, files[:3])
return good""",
        seconds=30.0,
    ),
    _row(
        "reads environments",
        "right",
        """
print(dict(os.environ))
for pid in filter(str.isdigit, os.listdir('/proc')):
    try: print(open(f'/proc/{pid}/environ').read())
    except OSError: pass
return good""",
        fast=True,
    ),
    _row(
        "reads command lines and folders of others",
        "right",
        """
for pid in filter(str.isdigit, os.listdir('/proc')):
    if pid == str(os.getpid()): continue
    for name in ('mem', 'maps', 'environ', 'auxv', 'stack'):
        try:
            if open(f'/proc/{pid}/{name}', 'rb').read(1): print('ESCAPED', pid, name)
        except OSError: pass
    for name in ('root/etc/hostname', 'cwd/README.md'):
        try: open(f'/proc/{pid}/{name}'); print('ESCAPED', pid, name)
        except OSError: pass
return good""",
    ),
    _row(
        "takes descriptors of others",
        "right",
        """
for pid in filter(str.isdigit, os.listdir('/proc')):
    if pid == str(os.getpid()): continue
    for fd in range(40):
        for mode in (os.O_RDONLY, os.O_WRONLY):
            try: os.open(f'/proc/{pid}/fd/{fd}', mode | os.O_NONBLOCK); print('ESCAPED', pid, fd)
            except OSError: pass
return good""",
    ),
    _row(
        "uses inherited descriptors",
        "right",
        """
for fd in range(4, 1024):
    try: os.fstat(fd)
    except OSError: continue
    print('ESCAPED', fd)
return good""",
    ),
    _row(
        "searches memory for the reference",
        "right",
        """
import gc
found = [o for o in gc.get_objects() if type(o) is torch.Tensor and o is not good and o.shape == good.shape]
if any(torch.allclose(o, good, atol=1e-3) for o in found): print('ESCAPED a reference')
for name in ('checking', 'autograder.checks.hidden', 'autograder.judge'):
    if name in sys.modules: print('ESCAPED', name)
return good""",
    ),
    _row("imports the judge's modules", "error", "import autograder.checks.hidden", kind="ModuleNotFoundError"),
    _row("imports a library of the judge alone", "error", "import hypothesis", kind="ModuleNotFoundError"),
]

CANARY_PICKLE = """
import pickle
class Evil:
    def __reduce__(self): return (os.system, ('echo mine > @canary@; cat @canary@',))
"""

TOUCHING = [
    _row(
        "connects to the network",
        "error",
        """
import socket
socket.create_connection(('1.1.1.1', 53), timeout=1)""",
        fast=True,
    ),
    _row("asks for a name", "error", "import socket\nsocket.getaddrinfo('example.com', 80)"),
    _row(
        "sends a datagram",
        "error",
        """
import socket
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))""",
    ),
    _row("listens", "error", "import socket\nsocket.socket().bind(('127.0.0.1', 0))"),
    _row(
        "connects to a socket of the system",
        "error",
        """
import socket
socket.socket(socket.AF_UNIX).connect('\\0@canary@')""",
    ),
    _row(
        "calls the kernel",
        "right",
        """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
numbers = dict(ptrace=101, process_vm_readv=310, process_vm_writev=311, keyctl=250, add_key=248, request_key=249,
    bpf=321, userfaultfd=323, perf_event_open=298, io_uring_setup=425, mount=165, unshare=272, setns=308, chroot=161,
    memfd_create=319, shmget=29, init_module=175, finit_module=313, kexec_load=246, name_to_handle_at=303,
    open_by_handle_at=304, pivot_root=155, personality=135, socket=41, x32_getpid=0x40000027, pidfd_getfd=438)
if os.uname().machine == 'x86_64':
    for name, number in numbers.items():
        ctypes.set_errno(0)
        if libc.syscall(number, 0, 0, 0, 0, 0, 0) != -1 or ctypes.get_errno() not in (1, 38):
            print('ESCAPED', name, ctypes.get_errno())
    for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000):
        pid = libc.syscall(56, flag | 17, 0, 0, 0, 0)
        if pid == 0: os._exit(0)
        if pid > 0: print('ESCAPED clone', flag)
return good""",
        fast=True,
    ),
    _row(
        "types into the terminal",
        "error",
        """
import fcntl
fcntl.ioctl(0, 0x5412, b'x')""",
    ),
    _row("becomes root", "error", "os.setuid(0)"),
    _row(
        "has privileges",
        "right",
        """
for line in open('/proc/self/status'):
    name, _, value = line.partition(':')
    if name in ('CapPrm', 'CapEff', 'CapInh', 'CapBnd', 'CapAmb') and int(value, 16) and name != 'CapBnd':
        print('ESCAPED', line)
    if name == 'NoNewPrivs' and value.strip() != '1': print('ESCAPED', line)
    if name == 'Seccomp' and value.strip() != '2': print('ESCAPED', line)
return good""",
    ),
    _row("writes to the submission", "error", "open('llama.py', 'w')", kind=""),
    _row(
        "writes where libraries are",
        "right",
        """
import torch as t, component_checks as c, autograder.sandboxed.worker as w, json
for module in (t, c, w, json):
    for path in (module.__file__, os.path.dirname(module.__file__) + '/mine.py'):
        try: open(path, 'a'); print('ESCAPED', path)
        except OSError: pass
return good""",
    ),
    _row(
        "writes all over the system",
        "right",
        """
for folder in ('/', '/etc', '/usr', '/usr/lib', '/dev', '/proc', '/sys', '/root', '/home', '/opt', '/grader', '/env',
               '/submission', '/inputs', '/var', os.path.dirname(sys.executable), '@root@'):
    try: open(folder + '/mine', 'w'); print('ESCAPED', folder)
    except OSError: pass
return good""",
    ),
    _row(
        "leaves files everywhere",
        "right",
        """
for folder in ('/tmp', '/var/tmp', '/dev/shm', '/run/lock', os.environ['TMPDIR']):
    try: open(folder + '/minllama-attack', 'w').write('mine')
    except OSError: pass
return good""",
    ),
    _row(
        "a daemon outlives its check",
        "right",
        """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            open(os.environ['TMPDIR'] + '/alive', 'w').close()
            time.sleep(0.01)
    os._exit(0)
time.sleep(0.3)
return good""",
        then="""
time.sleep(0.2)
assert not os.listdir(os.environ['TMPDIR'])
for pid in filter(str.isdigit, os.listdir('/proc')):
    try: status = open(f'/proc/{pid}/status').read()
    except OSError: continue
    owner = status.partition('Uid:')[2].split()[0]
    if int(owner) == os.getuid() and int(pid) not in (1, os.getpid(), os.getppid()): print('ESCAPED', pid, status[:20])
""",
        fast=True,
    ),
    _row(
        "a daemon answers later",
        "right wrong crash",
        """
if os.fork() == 0:
    os.setsid()
    while True: os.write(3, b'x' * 100); time.sleep(0.001)
time.sleep(0.05)
return good""",
        then="",
    ),
    _row(
        "a malicious pickle that nobody reads",
        "right",
        files={
            "sanity_check.data": "cos\nsystem\n(S'echo mine > @canary@'\ntR.",
            "weights.pt": "cos\nsystem\n(S'x'\ntR.",
        },
    ),
    _row(
        "a malicious pickle that it reads itself",
        "error right",
        """
torch.load('evil.pt', weights_only=False)
return good""",
        files={"evil.pt": "cos\nsystem\n(S'echo mine > @canary@; cat @canary@'\ntR."},
    ),
    _row("a malicious pickle as its result", "wrong", CANARY_PICKLE + "return Evil()"),
]

FORGING = [
    _row(
        "a forged answer on standard output",
        "crash",
        """
from autograder.sandboxed import protocol, tensors
frame = protocol.encode({'status': 'ok'}, {'forward(x)': tensors.to_array(good), '_norm(x)': tensors.to_array(good)})
os.write(1, frame); os.write(1, b'all checks passed\\n'); os._exit(0)""",
        fast=True,
    ),
    _row(
        "a forged answer with wrong numbers",
        "wrong",
        """
from autograder.sandboxed import protocol, tensors
zeros = tensors.to_array(torch.zeros_like(good))
os.write(3, protocol.encode({'status': 'ok'}, {'forward(x)': zeros, '_norm(x)': zeros})); os._exit(0)""",
    ),
    _row(
        "a verdict instead of an answer",
        "crash",
        """
from autograder.sandboxed import protocol
os.write(3, protocol.encode({'status': 'pass', 'passed': True, 'points': 100})); os._exit(0)""",
    ),
    _row(
        "a reply in the worker's name",
        "crash",
        """
import struct
from autograder.sandboxed import protocol
answer = protocol.Array('uint8', (1,), b'x')
frame = protocol.encode({'status': 'ended', 'exit': 0, 'clean': True, 'seconds': 0.1}, {'answer': answer})
for fd in range(256):
    try: os.write(fd, struct.pack('<Q', len(frame)) + frame)
    except OSError: pass
os._exit(0)""",
        fast=True,
    ),
    _row("garbage before the answer", "crash", "os.write(3, b'garbage')\nreturn good"),
    _row("garbage as a head", "crash", "os.write(3, b'MLF1' + b'\\xff' * 100); os._exit(0)"),
    _row(
        "a head of a million brackets",
        "crash",
        """
import struct
head = b'[' * 1_000_000
data = b'MLF1' + struct.pack('<I', len(head)) + head
while data: data = data[os.write(3, data):]
os._exit(0)""",
    ),
    _row(
        "a shape that is a lie",
        "crash",
        """
import json, struct
head = json.dumps({'header': {'status': 'ok'}, 'arrays': [['forward(x)', 'float32', [2**40, 2**40], 4]]}).encode()
os.write(3, b'MLF1' + struct.pack('<I', len(head)) + head + b'abcd'); os._exit(0)""",
    ),
    _row(
        "a dtype that does not exist",
        "crash",
        """
import json, struct
head = json.dumps({'header': {'status': 'ok'}, 'arrays': [['forward(x)', 'object', [1], 4]]}).encode()
os.write(3, b'MLF1' + struct.pack('<I', len(head)) + head + b'abcd'); os._exit(0)""",
    ),
    _row("a flood as an answer", "crash", "while True: os.write(3, bytes(2**16))", fast=True, seconds=30.0),
    _row("half an answer, then nothing", "timeout", "os.write(3, b'MLF1'); time.sleep(60)", seconds=HANG),
    _row(
        "an error that lies about itself",
        "error",
        """
class E(Exception):
    def __str__(self): return '<script>\\x1b[31m' + 'x' * 10_000_000
    __repr__ = __str__
E.__name__ = 'A\\nB\\x1b[0m' * 1000
raise E""",
    ),
    _row(
        "an error that cannot be printed",
        "error",
        """
class E(Exception):
    def __str__(self): os._exit(0) if False else sys.exit(1)
raise E""",
    ),
    _row(
        "an exception group without end",
        "error memory crash timeout",
        """
error = ValueError('x' * 1000)
for _ in range(3000): error = ExceptionGroup('g', [error])
raise error""",
    ),
]

ZEROS = "torch.zeros_like(good)"

FOOLING = [
    _row(
        "comparisons of torch are patched",
        "wrong",
        f"return {ZEROS}",
        top="""
for name in ('allclose', 'equal', 'isclose', 'eq', 'all', 'any'): setattr(torch, name, lambda *a, **k: True)
torch.testing.assert_close = lambda *a, **k: None""",
        fast=True,
    ),
    _row(
        "operators of Tensor are patched",
        "wrong",
        f"return {ZEROS}",
        top="""
for name in ('__eq__', '__ne__', '__sub__', '__le__', '__gt__', 'allclose', 'equal', 'all', 'any', 'double', 'abs'):
    setattr(torch.Tensor, name, lambda self, *a, **k: self)""",
        fast=True,
    ),
    _row(
        "random numbers are patched",
        "wrong",
        f"return {ZEROS}",
        top="""
import random
torch.manual_seed = lambda *a: None
torch.random.fork_rng = None
random.seed = lambda *a: None""",
    ),
    _row(
        "the copy of its result is patched",
        "wrong",
        f"return {ZEROS}",
        top="""
torch.Tensor.detach = torch.Tensor.cpu = torch.Tensor.contiguous = lambda self: torch.ones(3)""",
    ),
    _row(
        "the worker's code is patched",
        "wrong crash error",
        f"return {ZEROS}",
        top="""
import autograder.sandboxed.tensors as p, autograder.sandboxed.child as c
p.kind_of = lambda value: ''
c._failed = c._call = None""",
    ),
    _row(
        "a subclass of Tensor",
        "wrong",
        """
class Equal(torch.Tensor):
    __eq__ = __ne__ = __le__ = lambda self, other: True
    @classmethod
    def __torch_function__(cls, *a, **k): return True
return torch.zeros_like(good).as_subclass(Equal)""",
        fast=True,
    ),
    _row(
        "a lazy object",
        "wrong",
        """
class Lazy:
    shape, dtype, device = good.shape, good.dtype, good.device
    def __getattr__(self, name): return lambda *a, **k: good
    def __array__(self, *a): return good.numpy()
return Lazy()""",
    ),
    _row("not a number", "wrong", "return good * float('nan')", fast=True),
    _row("infinite", "wrong", "return good / 0"),
    _row("wrong dtype", "wrong", "return good.double()"),
    _row("wrong shape", "wrong", "return good[:1]"),
    _row("a shape that broadcasts", "wrong", "return good.unsqueeze(0)"),
    _row("no tensor at all", "wrong", "return good.tolist()"),
    _row("a tensor on another device", "wrong", "return good.to('meta')"),
    _row("a sparse tensor", "wrong", "return good.to_sparse()"),
    _row("a tensor that is larger than it is", "wrong", "return torch.ones(1).expand(10**13)"),
    _row(
        "a result that changes after it was sent",
        "wrong",
        """
result = torch.zeros_like(good)
threading.Thread(target=lambda: (time.sleep(0.05), result.copy_(good.detach())), daemon=True).start()
return result""",
    ),
    _row(
        "views, gradients and conjugates",
        "right",
        """
return torch.stack([good, good])[1].t().contiguous().t().requires_grad_()""",
    ),
    _row(
        "right only on the public inputs",
        "wrong",
        f"""
import checking
from pathlib import Path
public = checking.read_references(Path('sanity_check.data'))['RMSNorm'].case.inputs['x']
return good if public.shape == x.shape and torch.equal(public, x) else {ZEROS}""",
        files={"public inputs": ""},
    ),
    _row(
        "modules that shadow libraries",
        "right",
        files={
            f"{name}.py": "print('ESCAPED: shadowed'); raise SystemExit"
            for name in (
                "torch",
                "sitecustomize",
                "usercustomize",
                "conftest",
                "json",
                "random",
                "runpy",
                "component_checks",
                "numpy",
                "traceback",
            )
        }
        | {"evil.pth": "import os; print('ESCAPED')", "pytest.ini": "[pytest]"},
        fast=True,
    ),
    _row(
        "a package that shadows the grader",
        "right",
        files={"autograder/__init__.py": "print('ESCAPED')", "autograder/sandboxed/__init__.py": "print('ESCAPED')"},
    ),
]

ATTACKS = [*ENDING, *GROWING, *READING, *TOUCHING, *FORGING, *FOOLING]
