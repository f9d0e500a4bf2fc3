"""What runs inside the sandbox, looked at from outside: frames, what is given up, what is removed."""

import errno
import os
import struct
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograder.sandboxed import child, lockdown, protocol, quick, tensors, worker
from autograder.sandboxed.cleaning import empty_folder, remove_folder
from autograder.sandboxed.protocol import SIZES, Array, ProtocolError, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    dtype = draw(st.sampled_from(sorted(SIZES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    size = (
        torch.empty(shape, dtype=getattr(torch, dtype)).numel()
        * torch.empty((), dtype=getattr(torch, dtype)).element_size()
    )
    return Array(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


# --- frames ---


@given(
    st.dictionaries(st.text(max_size=5), JSON, max_size=3), st.dictionaries(st.text(max_size=9), arrays(), max_size=3)
)
def test_a_frame_comes_back_as_it_was_sent(header: dict[str, Any], given_arrays: dict[str, Array]) -> None:
    assert decode(encode(header, given_arrays)) == (header, given_arrays)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_protocol_error(data: bytes) -> None:
    for bytes_ in (data, b"MLF1" + data, b"MLF1" + struct.pack("<I", len(data)) + data):
        try:
            decode(bytes_)
        except ProtocolError:
            continue


@given(JSON, st.binary(max_size=20))
def test_any_head_is_a_frame_or_a_protocol_error(head: Any, rest: bytes) -> None:
    import json

    for value in (head, {"header": {}, "arrays": head}, {"header": {}, "arrays": [["x", "float32", head, 4]]}):
        text = json.dumps(value).encode()
        try:
            _, found = decode(b"MLF1" + struct.pack("<I", len(text)) + text + rest)
        except ProtocolError:
            continue
        for array in found.values():
            tensors.to_tensor(array)


@given(st.integers(0, 200), st.integers(1, 255), arrays())
def test_a_damaged_frame_is_a_frame_or_a_protocol_error(position: int, change: int, array: Array) -> None:
    data = bytearray(encode({"status": "ok"}, {"x": array}))
    data[position % len(data)] ^= change
    try:
        _, found = decode(bytes(data))
    except ProtocolError:
        return
    for entry in found.values():
        assert list(tensors.to_tensor(entry).shape) == list(entry.shape)


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([["x", "float32", [1], 4], ["x", "float32", [1], 4]], "twice"),
        ([["x", "float32", [3], 12]], "longer than the frame"),
        ([], "longer than its arrays"),
        ([["x", "float32", [1], 5]], "does not fit"),
        ([["x", "float32", [True], 4]], "no proper shape"),
        ([["x", "float32", [1] * 17, 4]], "no proper shape"),
        ([["x", "float32", [0, 2**41], 0]], "too large"),
        ([["x", "object", [1], 8]], "dtype"),
        ([["x" * 301, "int8", [1], 1]], "name"),
        ([["x"]], "four things"),
        ([["x", "int8", [0], 0]] * 4097, "too many"),
    ],
)
def test_a_head_that_breaks_a_rule_says_which(entries: list[Any], says: str) -> None:
    import json

    head = json.dumps({"header": {}, "arrays": entries}).encode()
    with pytest.raises(ProtocolError, match=says):
        decode(b"MLF1" + struct.pack("<I", len(head)) + head + b"abcdefgh")


@pytest.mark.parametrize("head", [b"[" * 100_000, b"1" * 5000, b"[]", b"{", b"\xff", b'{"header": 1, "arrays": []}'])
def test_a_head_that_no_parser_likes_is_a_protocol_error(head: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(b"MLF1" + struct.pack("<I", len(head)) + head)


def test_a_header_that_is_no_json_is_refused_by_the_sender() -> None:
    with pytest.raises(TypeError):
        encode({"x": object()})


# --- pipes ---


def test_a_frame_goes_through_a_pipe_until_its_deadline() -> None:
    read, write = os.pipe()
    protocol.send(write, b"frame", time.monotonic() + 5)
    assert protocol.receive(read, 10, time.monotonic() + 5) == b"frame"
    with pytest.raises(TimeoutError):
        protocol.receive(read, 10, time.monotonic() + 0.01)
    with pytest.raises(TimeoutError):
        protocol.send(write, bytes(1 << 20), time.monotonic() + 0.05)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", EOFError, "closed"),
        (b"abc", ProtocolError, "length is broken off"),
        (struct.pack("<Q", 11) + b"x" * 11, ProtocolError, "longer than 10"),
        (struct.pack("<Q", 5) + b"abc", ProtocolError, "frame is broken off"),
    ],
)
def test_what_is_no_frame_on_a_pipe_says_so(data: bytes, error: type[Exception], says: str) -> None:
    read, write = os.pipe()
    os.write(write, data)
    os.close(write)
    with pytest.raises(error, match=says):
        protocol.receive(read, 10)
    os.close(read)


# --- tensors ---


@pytest.mark.parametrize("dtype", [getattr(torch, name) for name in SIZES], ids=SIZES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 3), (2, 0, 3)])
def test_a_tensor_of_every_dtype_comes_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.rand(shape) * 5).to(dtype)
    back = tensors.to_tensor(tensors.to_array(tensor))
    assert (back.dtype, back.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(back, tensor)


def test_views_are_copied_as_they_look() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    assert torch.equal(tensors.to_tensor(tensors.to_array(tensor.t())), tensor.t())
    number = torch.tensor([1 + 2j])
    assert torch.equal(tensors.to_tensor(tensors.to_array(number.conj())), number.conj().resolve_conj())


def test_what_is_not_a_number_travels_as_it_is() -> None:
    tensor = torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0])
    assert str(tensors.to_tensor(tensors.to_array(tensor))) == str(tensor)


def test_a_bool_of_another_byte_becomes_a_sound_one() -> None:
    assert tensors.to_tensor(Array("bool", (3,), b"\x00\x02\xff")).tolist() == [False, True, True]


def test_only_plain_tensors_are_sent() -> None:
    class Sub(torch.Tensor):
        pass

    plain = torch.ones(2)
    values: dict[str, object] = {
        "plain": plain,
        "parameter": torch.nn.Parameter(plain),
        "subclass": plain.as_subclass(Sub),
        "list": [1.0],
        "none": None,
        "sparse": plain.to_sparse(),
        "meta": plain.to("meta"),
        "dtype": plain.to(torch.float8_e5m2),
        "huge": torch.ones(1).expand(1 << 40),
    }
    sent, others = tensors.pack(values, 1000)
    assert set(sent) == {"plain", "parameter"}
    assert {name: text.split()[0] for name, text in others.items()} == {
        "subclass": "Sub", "list": "list", "none": "NoneType", "sparse": "Tensor", "meta": "Tensor",
        "dtype": "Tensor", "huge": "Tensor",
    }  # fmt: skip


@given(st.text(max_size=300), st.integers(2, 100))
def test_a_text_comes_out_printable_and_short(text: str, most: int) -> None:
    cleaned = protocol.clean(text, most)
    assert len(cleaned) <= most + 60
    assert all(c in "\n\t" or c.isprintable() for c in cleaned)


def test_what_is_no_text_is_an_empty_one() -> None:
    assert protocol.clean(5, 10) == ""
    assert protocol.clean("\ud800\x1b[0m", 10) == "?\N{REPLACEMENT CHARACTER}[0m"


# --- giving up ---


def judged(program: bytes, audit: int, number: int, first: int = 0, second: int = 0) -> int:
    """Return what the kernel would: a machine for the few instructions that the filter is made of."""
    steps = list(struct.iter_unpack("<HBBI", program))
    data = {0: number, 4: audit, 16: first & 0xFFFFFFFF, 24: second & 0xFFFFFFFF}
    accumulator = position = 0
    while True:
        code, if_true, if_false, value = steps[position]
        position += 1
        if code == 0x20:
            accumulator = data[value]
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            position += if_true if holds else if_false


REFUSED, ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


@pytest.mark.parametrize("machine", lockdown.MACHINES)
def test_the_filter_refuses_what_the_table_says_and_nothing_else(machine: str) -> None:
    program = lockdown.seccomp_program(machine)
    audit, column = lockdown.MACHINES[machine]
    denied = {numbers[column] for numbers in lockdown.DENIED.values() if numbers[column] is not None}
    special = {lockdown.CLONE3[column]: ABSENT}
    for number in range(460):
        wanted = REFUSED if number in denied else special.get(number, lockdown.ALLOW)
        assert judged(program, audit, number) == wanted, number
    assert judged(program, 0x40000003, 0) == REFUSED  # another architecture, such as 32-bit x86
    clone, ioctl = lockdown.CLONE[column], lockdown.IOCTL[column]
    assert judged(program, audit, clone, first=0x003D0F00) == lockdown.ALLOW  # a thread
    for flag in (0x10000000, 0x20000000, 0x40000000, 0x00020000, 0x02000000, 0x04000000, 0x08000000):
        assert judged(program, audit, clone, first=flag | 17) == REFUSED
    assert judged(program, audit, ioctl, second=0x5412) == judged(program, audit, ioctl, second=0x541C) == REFUSED
    assert judged(program, audit, ioctl, second=0x5401) == lockdown.ALLOW
    if machine == "x86_64":
        assert judged(program, audit, 0x40000000 + 1) == REFUSED


def test_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.sandboxed.lockdown.platform.machine", lambda: "mips")
    assert lockdown.filter_system_calls() is False


def test_a_kernel_that_forbids_the_filter_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(lockdown, "_prctl", refuse)
    assert lockdown.filter_system_calls() is False


def test_a_prctl_that_is_refused_is_an_error() -> None:
    with pytest.raises(OSError, match="prctl"):
        lockdown._prctl(-1)


def test_an_optimizer_is_made_without_the_compiler() -> None:
    import subprocess

    code = (
        "import sys, torch; from autograder.sandboxed.quick import skip_compiler; skip_compiler();"
        "torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1).zero_grad();"
        "torch.nn.Embedding(2, 2, device='meta');"
        "print('torch._dynamo' in sys.modules)"
    )
    root = Path(quick.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def after_import(code: str) -> str:
    """Return what a process prints that has imported torch as a sandbox does."""
    import subprocess

    start = "import sys; from autograder.sandboxed import quick; quick.import_torch(); import torch\n"
    root = Path(quick.__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_only_compilers_need_comes_when_it_is_asked_for() -> None:
    code = (
        "here = lambda: 'torch._refs' in sys.modules\n"
        "a = here(), torch.ones(2).softmax(0).tolist()\n"
        "b = torch.vmap(lambda x: x.softmax(-1))(torch.ones(2, 2)).sum().item(), here()\n"
        "print(a, b, torch._prims.__name__, torch._refs.__spec__.loader is not None)"
    )
    assert after_import(code) == "(False, [0.5, 0.5]) (2.0, True) torch._prims True\n"


def test_the_first_further_part_of_torch_brings_all_with_it_and_one_that_is_not_there_does_not() -> None:
    code = (
        "import importlib.util\n"
        "print(importlib.util.find_spec('torch.nothing'), 'torch._prims' in sys.modules)\n"
        "import torch.utils._content_store as store\n"
        "print(store.__name__, 'torch._prims' in sys.modules)"
    )
    assert after_import(code) == "None False\ntorch.utils._content_store True\n"


def test_optimizers_and_checkpoints_do_without_the_rest() -> None:
    code = (
        "import io; quick.skip_compiler(); x = torch.nn.Parameter(torch.ones(2)); x.grad = torch.ones(2)\n"
        "from optimizer import AdamW; AdamW([x]).step(); file = io.BytesIO()\n"
        "torch.save(x, file); file.seek(0); torch.load(file)\n"
        "torch.nn.Linear(2, 2)(x).sum().backward(); print('torch._prims' in sys.modules)"
    )
    assert after_import(code) == "False\n"


def test_the_device_without_data_works_after_the_rest_was_imported() -> None:
    code = (
        "quick.import_rest(); x = torch.empty(1, 1, 3, 3, device='meta')\n"
        "print(torch.nn.functional.scaled_dot_product_attention(x, x, x).device)"
    )
    assert after_import(code) == "meta\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('torch.empty(2, device="meta")', True),
        ("x.to('meta')", True),
        ('torch.device("meta:0")', True),
        ("nn.utils.skip_init(nn.Linear, 2, 2)", True),
        ('metadata = {"metadata": 1}', False),
        ("# meta", False),
    ],
)
def test_a_file_that_names_the_device_without_data_is_found(source: str, expected: bool, tmp_path: Path) -> None:
    (tmp_path / "llama.py").write_text(f"import torch\n{source}\n")
    assert quick.needs_rest(tmp_path.glob("*.py")) is expected


def test_a_module_that_torch_needs_after_all_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = quick._Absent("wave")
    monkeypatch.setitem(sys.modules, "wave", absent)
    assert not hasattr(absent, "__file__")
    assert sys.modules["wave"] is absent
    assert absent.open is sys.modules["wave"].open
    assert sys.modules["wave"] is not absent


def test_a_seed_gives_the_same_numbers_though_no_other_device_is_told() -> None:
    code = "a = torch.manual_seed(3) and torch.rand(3); quick.forget_seeds(); torch.manual_seed(3)\n"
    assert after_import(code + "print(torch.equal(a, torch.rand(3)))") == "True\n"


# --- cleaning up ---


def test_a_folder_is_emptied_however_deep_it_is(tmp_path: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (outside / "kept.txt").write_text("kept")
    (folder / "link").symlink_to(outside)
    (folder / ".removing-0").mkdir()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)
    assert empty_folder(folder)
    assert not list(folder.iterdir())
    assert (outside / "kept.txt").read_text() == "kept"


def test_a_folder_that_forbids_it_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_text("x")
    (folder / "a/b").chmod(0)
    (folder / "a").chmod(0)
    assert remove_folder(folder)
    assert not folder.exists()


def test_a_folder_that_is_not_there_cannot_be_emptied(tmp_path: Path) -> None:
    assert not empty_folder(tmp_path / "none")
    assert not remove_folder(tmp_path / "none")


def test_the_head_and_the_tail_of_a_stream_are_kept() -> None:
    kept = worker._HeadAndTail(10)
    for part in (b"abc", b"defgh", b"ijklmnopq", b"rstuvwxyz"):
        kept.add(part)
    assert kept.bytes() == b"abcde\n[... 16 bytes left out ...]\nvwxyz"
    short = worker._HeadAndTail(10)
    short.add(b"abcdefghij")
    assert short.bytes() == b"abcdefghij"


def test_a_file_is_read_plainly_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.txt").write_text("abc")
    (tmp_path / "link.txt").symlink_to("sub/a.txt")
    (tmp_path / "folder").symlink_to("sub")
    os.mkfifo(tmp_path / "pipe")
    assert worker.read_plainly(tmp_path, "sub/a.txt", 3) == b"abc"
    for name in ("link.txt", "folder/a.txt", "pipe", "sub", "none"):
        assert worker.read_plainly(tmp_path, name, 100) is None
    assert worker.read_plainly(tmp_path, "sub/a.txt", 2) is None


# --- errors of the student's code ---


def raised_by(source: str, folder: Path) -> protocol.Failure:
    (folder / "student.py").write_text(source)
    try:
        exec(compile(source, str(folder / "student.py"), "exec"), {"__name__": "student"})
    except BaseException as error:
        return child.describe(error, folder)
    raise AssertionError("nothing was raised")


def test_an_error_is_described_by_its_last_line_in_the_folder(tmp_path: Path) -> None:
    found = raised_by("import json\ndef f():\n    json.loads('{')\nf()\n", tmp_path)
    assert (found.kind, found.file, found.line, found.function) == ("JSONDecodeError", "student.py", 3, "f")
    assert not found.raised and found.importing


def test_an_error_whose_text_fails_is_described_without(tmp_path: Path) -> None:
    found = raised_by("class E(Exception):\n    def __str__(self): raise SystemExit\nraise E\n", tmp_path)
    assert (found.kind, found.message, found.raised) == ("E", "", True)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (RuntimeError("shapes"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_a_lack_of_memory_is_told_apart(error: Exception, is_memory: bool) -> None:
    assert child._is_memory(error) is is_memory


def test_the_sizes_of_elements_are_torchs() -> None:
    assert {name: torch.empty((), dtype=getattr(torch, name)).element_size() for name in SIZES} == SIZES
