"""pretrain/prepare.py: run with `pytest tests/test_pretrain_prepare.py`."""

import errno
import gzip
import io
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tqdm

from errors import DataError, TokenizerError, UsageError
from pretrain import encoding, vocabulary
from pretrain.corpus import MARKER, read_documents
from pretrain.encoding import is_held_out
from pretrain.prepare import prepare
from pretrain.shards import SplitWriter, open_split, read_manifest
from tests.assets_dir import ROOT, require_asset
from tests.tiny import SENTENCES, train_tokenizer
from tokenizer import Tokenizer

STORIES = [f"Story {i}.\n\n{sentence}" for i in range(20) for sentence in SENTENCES]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Return a text file of a hundred stories."""
    path = tmp_path / "stories.txt"
    path.write_text("".join(f"{story}\n{MARKER}\n" for story in STORIES))
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    """Return the name and the content of every file in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def texts_in(folder: Path, split: str) -> list[str]:
    """Return the text of every document of a split."""
    manifest = read_manifest(folder)
    tokenizer = Tokenizer(tokenizer_model=folder)
    starts = [np.fromfile(folder / shard.starts_file, "<u8") for shard in manifest.splits[split].shards]
    shards = zip(open_split(folder, manifest, split), starts, strict=True)
    return [tokenizer.decode(row.tolist()) for ids, starts in shards for row in np.split(ids, starts.tolist()[1:])]


# ---------------------------------------------------------------------------------------------------- what is written


def test_a_text_becomes_shards(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    manifest = prepare([text], tokenizer_model, tmp_path / "new" / "data", validation=0.2)
    out = tmp_path / "new" / "data"
    assert read_manifest(out) == manifest
    assert sorted(files_in(out)) == [
        *("manifest.json", "tokenizer.model", "train-00000.bin", "train-00000.starts.bin"),
        *("validation-00000.bin", "validation-00000.starts.bin"),
    ]
    assert texts_in(out, "validation") == [story for story in STORIES if is_held_out(story.encode(), 0.2)]
    assert texts_in(out, "train") == [story for story in STORIES if not is_held_out(story.encode(), 0.2)]
    assert manifest.tokenizer.vocab_size == 400
    assert (out / "tokenizer.model").read_bytes() == tokenizer_model.read_bytes()
    assert [source.name for source in manifest.sources] == ["stories.txt"]


def test_several_files_of_several_kinds_follow_one_another(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl.gz"
    more.write_bytes(gzip.compress(b"".join(b'{"text": "More %d."}\n' % i for i in range(50))))
    prepare([text, more], tokenizer_model, tmp_path / "data", validation=0.2)
    assert texts_in(tmp_path / "data", "train")[-1].startswith("More 4")
    prepare([more, text], tokenizer_model, tmp_path / "other", validation=0.2)
    assert texts_in(tmp_path / "other", "train")[0].startswith("More ")


def test_the_same_files_come_from_any_number_of_processes(
    text: Path, tokenizer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "BATCH", 500)
    prepare([text], tokenizer_model, tmp_path / "1", validation=0.2, shard_tokens=1000, jobs=1)
    prepare([text], tokenizer_model, tmp_path / "2", validation=0.2, shard_tokens=1000, jobs=2)
    assert len(files_in(tmp_path / "1")) > 8
    assert files_in(tmp_path / "2") == files_in(tmp_path / "1")


def test_small_corpora_take_one_process_and_large_ones_all_cores(
    text: Path, tokenizer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(documents: Any, tokenizer: Path, validation: float, jobs: int) -> Any:
        seen.append(jobs)
        return ENCODED(documents, tokenizer, validation, 1)

    monkeypatch.setattr("pretrain.prepare.encoded", noted)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    prepare([text], tokenizer_model, tmp_path / "1", validation=0.2)
    monkeypatch.setattr("pretrain.prepare.ALONE", text.stat().st_size)
    prepare([text], tokenizer_model, tmp_path / "2", validation=0.2)
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    prepare([text], tokenizer_model, tmp_path / "3", validation=0.2)
    assert seen == [1, 3, 7]


ENCODED = encoding.encoded


def test_a_byte_level_tokenizer_goes_along_with_what_names_its_tokens(text: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="skipped: needs tokenizers")
    folder = tmp_path / "tokenizer"
    vocabulary.train([text], "byte-bpe", 280, folder)
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    manifest = prepare([text], folder, tmp_path / "data", validation=0.2)
    assert manifest.tokenizer.file == "tokenizer.json"
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "data" / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(texts_in(tmp_path / "data", "train") + texts_in(tmp_path / "data", "validation")) == sorted(STORIES)


def test_a_tokenizer_of_llama2c_becomes_a_sentencepiece_model(
    text: Path, tokenizer_model: Path, tmp_path: Path
) -> None:
    Tokenizer(tokenizer_model=tokenizer_model).export(tmp_path / "tok400.bin")
    prepare([text], tmp_path / "tok400.bin", tmp_path / "data", validation=0.2)
    prepare([text], tokenizer_model, tmp_path / "other", validation=0.2)
    ours, theirs = files_in(tmp_path / "data"), files_in(tmp_path / "other")
    assert ours["train-00000.bin"] == theirs["train-00000.bin"]
    assert texts_in(tmp_path / "data", "train") == texts_in(tmp_path / "other", "train")


def test_a_large_vocabulary_takes_four_bytes_an_id(text: Path, tmp_path: Path) -> None:
    from sentencepiece import sentencepiece_model_pb2 as model_pb2

    path = train_tokenizer(tmp_path / "large.model", 330, model_type="unigram")
    model = model_pb2.ModelProto.FromString(path.read_bytes())
    for i in range(2**16):
        model.pieces.add(piece=f"filler{i}", score=-100)
    model.pieces.add(piece="\u2581Story", score=0)  # how every story begins
    path.write_bytes(model.SerializeToString())
    manifest = prepare([text], path, tmp_path / "data", validation=0.2)
    assert manifest.dtype == "uint32"
    assert texts_in(tmp_path / "data", "train") == [story for story in STORIES if not is_held_out(story.encode(), 0.2)]
    [ids] = open_split(tmp_path / "data", manifest, "train")
    assert ids.dtype == np.uint32
    assert ids[1] == ids.max() == 330 + 2**16


def test_a_text_that_occurs_twice_is_in_one_split(tokenizer_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text("\n\n".join([f"Story {i}." for i in range(60)] * 2))
    prepare([path], tokenizer_model, tmp_path / "data", validation=0.3)
    assert not set(texts_in(tmp_path / "data", "train")) & set(texts_in(tmp_path / "data", "validation"))


def test_cleaning_is_an_option(tokenizer_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.txt"
    path.write_text("\n\n".join(f"Story {i}{'é' * (i % 2)}." for i in range(60)), encoding="utf-8")
    count = {}
    for clean in (False, True):
        manifest = prepare([path], tokenizer_model, tmp_path / f"{clean}", validation=0.3, clean=clean)
        assert manifest.settings.clean is clean
        count[clean] = sum(split.documents for split in manifest.splits.values())
    assert count == {False: 60, True: 30}


def test_a_bar_shows_how_much_of_the_files_is_done(
    text: Path, tokenizer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, file = Terminal(), io.StringIO()
    monkeypatch.setattr(tqdm, "tqdm", partial(tqdm.tqdm, mininterval=0))
    other = Path(shutil.copy(text, tmp_path / "other.txt"))
    monkeypatch.setattr(sys, "stderr", screen)
    prepare([text, other], tokenizer_model, tmp_path / "data", validation=0.2)
    for share in ("  0%", " 50%", "100%"):
        assert f"prepare: {share}" in screen.getvalue()
    monkeypatch.setattr(sys, "stderr", file)
    prepare([text], tokenizer_model, tmp_path / "quiet", validation=0.2)
    assert file.getvalue() == ""


def test_the_projects_own_corpus_gives_the_known_shards(tmp_path: Path) -> None:
    corpus, tokenizer = require_asset("corpus/storybook.txt.gz"), require_asset("tokenizer.model")
    manifest = prepare([corpus], tokenizer, tmp_path / "data", jobs=2)
    train, validation = manifest.splits["train"], manifest.splits["validation"]
    assert (train.documents, train.tokens, train.text_bytes) == (5994, 1_389_233, 5_299_005)
    assert (validation.documents, validation.tokens, validation.text_bytes) == (56, 13_053, 49_718)
    assert train.shards[0].sha256 == "152909b8a3608d065e2e7335a9fc34d1604a8191a76b576b8c736330d916bfde"
    assert sum(1 for _ in read_documents(corpus)) == 6050


# ---------------------------------------------------------------------------------------------------- what was there


def test_what_is_prepared_already_is_left_as_it_is(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    first = prepare([text], tokenizer_model, out, validation=0.2)
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert prepare([text], tokenizer_model, out, validation=0.2, jobs=2) == first
    assert prepare([text], out, out, validation=0.2) == first  # its own tokenizer
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_what_was_prepared_of_other_input_is_not_overwritten(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    prepare([text], tokenizer_model, out, validation=0.2)
    before = files_in(out)
    other_text = tmp_path / "other.txt"
    other_text.write_text(text.read_text() + "One more.")
    other_tokenizer = train_tokenizer(tmp_path / "other.model", vocab_size=390)
    calls: list[tuple[Path, Path, dict[str, Any]]] = [
        (other_text, tokenizer_model, {}),
        (text, other_tokenizer, {}),
        (text, tokenizer_model, {"validation": 0.3}),
        (text, tokenizer_model, {"shard_tokens": 100}),
        (text, tokenizer_model, {"clean": True}),
    ]
    for source, tokenizer, options in calls:
        with pytest.raises(UsageError, match=f"^{out} holds shards that were made from other texts"):
            prepare([source], tokenizer, out, **{"validation": 0.2, **options})
    assert files_in(out) == before


@pytest.mark.parametrize("name", ["train-00000.bin", "validation-00000.starts.bin", "tokenizer.model"])
@pytest.mark.parametrize("damage", ["missing", "cut short", "changed"])
def test_what_was_damaged_since_is_made_again(
    text: Path, tokenizer_model: Path, tmp_path: Path, name: str, damage: str
) -> None:
    out = tmp_path / "data"
    prepare([text], tokenizer_model, out, validation=0.2)
    before = files_in(out)
    content = before[name]
    if damage == "missing":
        (out / name).unlink()
    elif damage == "cut short":
        (out / name).write_bytes(content[:-3])
    elif not name.endswith(".starts.bin"):  # whose content has no checksum
        (out / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    prepare([text], tokenizer_model, out, validation=0.2)
    assert files_in(out) == before


def test_left_overs_of_an_unfinished_preparation_go_and_other_files_stay(
    text: Path, tokenizer_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "data"
    out.mkdir()
    for name in (
        "train-00000.bin",
        "train-00007.bin",
        "train-00007.starts.bin",
        "validation-00003.bin",
        ".manifest.json.x.tmp",
        ".preparing",
    ):
        (out / name).write_bytes(b"old")
    kept = {"notes.txt": b"mine", "train.bin": b"mine", "train-1.bin": b"mine"}
    for name, content in kept.items():
        (out / name).write_bytes(content)
    prepare([text], tokenizer_model, out, validation=0.2)
    prepare([text], tokenizer_model, tmp_path / "fresh", validation=0.2)
    assert files_in(out) == files_in(tmp_path / "fresh") | kept


@pytest.mark.parametrize("name", ["train-00000.bin", "validation-00003.starts.bin"])
def test_somebody_elses_shards_are_not_deleted(text: Path, tokenizer_model: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / name).write_bytes(b"theirs")
    with pytest.raises(UsageError, match=f"^{out / name} was written by something else.*another folder with --out"):
        prepare([text], tokenizer_model, out, validation=0.2)
    assert files_in(out) == {name: b"theirs"}


def test_a_preparation_killed_between_its_last_two_steps_is_complete(
    text: Path, tokenizer_model: Path, tmp_path: Path
) -> None:
    manifest = prepare([text], tokenizer_model, tmp_path / "data", validation=0.2)
    before = files_in(tmp_path / "data")
    (tmp_path / "data" / ".preparing").touch()
    assert prepare([text], tokenizer_model, tmp_path / "data", validation=0.2) == manifest
    assert files_in(tmp_path / "data") == before


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json"])
def test_somebody_elses_tokenizer_is_not_overwritten(
    text: Path, tokenizer_model: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "data"
    out.mkdir()
    (out / name).write_bytes(b"another")
    with pytest.raises(UsageError, match=f"^{out / name} is another tokenizer: name another folder"):
        prepare([text], tokenizer_model, out, validation=0.2)
    assert files_in(out) == {name: b"another"}


def test_the_tokenizers_own_folder_may_take_the_shards(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    out.mkdir()
    shutil.copy(tokenizer_model, out / "tokenizer.model")
    assert prepare([text], out, out, validation=0.2) == read_manifest(out)


def test_a_manifest_of_something_else_is_not_overwritten(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(DataError, match="'format' is None, and only 1 is known here"):
        prepare([text], tokenizer_model, tmp_path, validation=0.2)
    assert (tmp_path / "manifest.json").read_text() == '{"name": "a web page"}'


# ---------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"validation": 0.0}, "must lie between 0 and 1, got 0.0: change --validation"),
        ({"validation": 1.0}, "must lie between 0 and 1"),
        ({"validation": float("nan")}, "must lie between 0 and 1"),
        ({"jobs": 0}, "the number of processes must be at least 1, got 0: change --jobs"),
        ({"shard_tokens": 0}, "room for at least 1 token, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    text: Path, tokenizer_model: Path, tmp_path: Path, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(UsageError, match=rule):
        prepare([text], tokenizer_model, tmp_path / "data", **options)
    assert not (tmp_path / "data").exists()


def test_files_that_are_not_there_are_named(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    with pytest.raises(UsageError, match="no text files to prepare"):
        prepare([], tokenizer_model, out)
    with pytest.raises(DataError, match=f"^{tmp_path}/no.txt: no such file: check the path"):
        prepare([text, tmp_path / "no.txt"], tokenizer_model, out)
    with pytest.raises(DataError, match=f"^{tmp_path}: no regular file: check the path"):
        prepare([tmp_path], tokenizer_model, out)
    with pytest.raises(TokenizerError, match="no.model does not exist"):
        prepare([text], tmp_path / "no.model", out)
    with pytest.raises(TokenizerError, match="holds no tokenizer"):
        prepare([text], tmp_path, out)
    with pytest.raises(UsageError, match=f"^{text} is no folder: name another with --out"):
        prepare([text], tokenizer_model, text)
    assert not out.exists()


def test_a_text_that_nobody_may_read_is_named(
    text: Path, tokenizer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("pretrain.prepare.sha256_of", refuse)
    with pytest.raises(DataError, match=f"^{text}: cannot be read .Permission denied.: check its permissions"):
        prepare([text], tokenizer_model, tmp_path / "data")


@pytest.mark.parametrize("content", ["", "\n\n \n", f"{MARKER}\n{MARKER}\n"])
def test_a_corpus_without_documents_is_refused(tokenizer_model: Path, tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.txt"
    path.write_text(content)
    with pytest.raises(DataError, match=f"^{path}: no document: a corpus needs text"):
        prepare([path], tokenizer_model, tmp_path / "data")
    assert files_in(tmp_path / "data") == {}


def test_a_corpus_of_which_cleaning_leaves_nothing_is_refused(tokenizer_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "french.txt"
    path.write_text("Ça va ?\n\nÉté.", encoding="utf-8")
    with pytest.raises(DataError, match="no document that --clean keeps"):
        prepare([path], tokenizer_model, tmp_path / "data", clean=True)


@pytest.mark.parametrize(("share", "split"), [(0.0001, "validation"), (0.9999, "training")])
def test_a_corpus_too_small_for_both_splits_is_refused(
    text: Path, tokenizer_model: Path, tmp_path: Path, share: float, split: str
) -> None:
    rule = f"^{text}: no document out of 100 is left for {split} with --validation {share}: change that share, add text"
    with pytest.raises(DataError, match=rule):
        prepare([text], tokenizer_model, tmp_path / "data", validation=share)
    assert files_in(tmp_path / "data") == {}


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_error_in_a_text_leaves_no_shards(
    text: Path, tokenizer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr(encoding, "BATCH", 100)
    bad = tmp_path / "bad.txt"
    bad.write_bytes(b"One.\n\nTwo \xff.\n")
    with pytest.raises(DataError, match=f"^{bad}:3: byte 0xff is not UTF-8"):
        prepare([text, bad], tokenizer_model, tmp_path / "data", validation=0.2, jobs=jobs)
    assert files_in(tmp_path / "data") == {}


def test_a_failed_second_preparation_leaves_nothing_of_the_first_that_looks_complete(
    text: Path, tokenizer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "data"
    prepare([text], tokenizer_model, out, validation=0.2)
    (out / "train-00000.bin").unlink()  # so that it is made again

    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SplitWriter, "finish", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare([text], tokenizer_model, out, validation=0.2)
    assert list(files_in(out)) == ["tokenizer.model"]
    with pytest.raises(DataError, match="has no manifest.json"):
        read_manifest(out)


# ---------------------------------------------------------------------------------------------------- full disks, kills


def test_a_full_disk_is_an_error_that_leaves_nothing(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    # The limit on the size of a file stands in for the disk: the system refuses the bytes that are too many.
    out = tmp_path / "data"
    result = in_a_process(
        f"""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then writing fails, instead of ending the process
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            prepare([Path({str(text)!r})], Path({str(tokenizer_model)!r}), Path({str(out)!r}), validation=0.2)
        except DataError as error:
            print(error)
        """
    )
    assert result.stdout == f"{out} cannot be written (File too large): make room, or name another folder with --out\n"
    assert files_in(out) == {}
    prepare([text], tokenizer_model, out, validation=0.2)
    assert read_manifest(out).splits["train"].documents > 60


@pytest.mark.parametrize("name", ["train-00000.bin", "validation-00000.starts.bin", "tokenizer.model", "manifest.json"])
def test_no_file_may_find_the_disk_full(
    text: Path, tokenizer_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    out = tmp_path / "data"
    real_fsync = os.fsync

    def fsync(number: int) -> None:
        written = Path(f"/proc/self/fd/{number}").readlink().name
        if written == name or written.startswith(f".{name}."):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_fsync(number)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match=f"^{out} cannot be written .No space left on device.: make room"):
        prepare([text], tokenizer_model, out, validation=0.2)
    assert set(files_in(out)) <= {"tokenizer.model"}  # which is whole, and wanted when there is room


def test_a_folder_that_cannot_be_made_is_named(text: Path, tokenizer_model: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data cannot be written .Not a directory."):
        prepare([text], tokenizer_model, text / "data", validation=0.2)


@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_at_any_point_it_can_be_run_again(text: Path, tokenizer_model: Path, tmp_path: Path, jobs: int) -> None:
    prepare([text], tokenizer_model, tmp_path / "unbroken", validation=0.2, shard_tokens=1000)
    out = tmp_path / "data"
    # The output is read until the last process that holds it is gone: none of those that encode may be left behind.
    result = in_a_process(
        f"""
        import os, signal
        from pretrain import encoding, shards
        encoding.BATCH = 300
        add = shards.SplitWriter.add
        def add_or_die(self, ids, text_bytes):
            if len(self.shards) == 2 and self._tokens:
                for file in self._files:
                    file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            add(self, ids, text_bytes)
        shards.SplitWriter.add = add_or_die
        if __name__ == "__main__":
            texts, tokenizer, out = [Path({str(text)!r})], Path({str(tokenizer_model)!r}), Path({str(out)!r})
            prepare(texts, tokenizer, out, validation=0.2, shard_tokens=1000, jobs={jobs})
        """,
        folder=tmp_path,
    )
    assert result.returncode == -9
    assert "train-00002.bin" in files_in(out)  # half-written, and so it is not complete:
    with pytest.raises(DataError, match="has no manifest.json"):
        read_manifest(out)
    prepare([text], tokenizer_model, out, validation=0.2, shard_tokens=1000)
    assert files_in(out) == files_in(tmp_path / "unbroken")


def test_a_file_larger_than_the_memory_is_prepared(tmp_path: Path) -> None:
    """The process may take 16 MiB more than it has at its start; the text has 48, the part that is encoded 12."""
    story = "Once upon a time, there was a little girl named Lily. " * 20
    path, small = tmp_path / "large.txt.gz", tmp_path / "small.txt"
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as file:
        for i in range(48 * 2**20 // len(story)):
            file.write(f"{i} {'é' if i % 4 else ''}{story}\n{MARKER}\n")
    small.write_text("\n\n".join(f"Story {i}." for i in range(99)))
    tokenizer = train_tokenizer(tmp_path / "tokenizer.model", 330, model_type="unigram")
    result = in_a_process(
        f"""
        import resource
        tokenizer, out = Path({str(tokenizer)!r}), Path({str(tmp_path / "data")!r})
        prepare([Path({str(small)!r})], tokenizer, out.with_name("small"))  # whatever is loaded late is loaded now
        used = next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]
        limit = int(used) * 1024 + 16 * 2**20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        try:
            bytes(17 * 2**20)
        except MemoryError:
            print("the limit holds")
        prepare([Path({str(path)!r})], tokenizer, out, jobs=1, clean=True)
        """
    )
    assert result.stdout == "the limit holds\n"
    assert result.stderr == ""
    assert read_manifest(tmp_path / "data").splits["train"].text_bytes > 11 * 2**20


def in_a_process(code: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run code that uses `prepare` in a process of its own, from a file, as processes that it starts will read it."""
    lines = code.strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    program = "\n".join(
        ["from pathlib import Path", "from errors import DataError", "from pretrain.prepare import prepare"]
    )
    program += "\n" + "\n".join(line[indent:] for line in lines) + "\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    if folder == ROOT:
        command = [sys.executable, "-c", program]
    else:
        (folder / "program.py").write_text(program)
        command = [sys.executable, str(folder / "program.py")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
