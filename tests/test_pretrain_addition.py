"""Sums to learn addition from: python -m pytest tests/test_pretrain_addition.py"""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from checkpoint import write_directory
from errors import DataError, MinLlamaError, TokenizerError, UsageError
from llama import Llama
from pretrain import addition, vocabulary
from pretrain.__main__ import main
from pretrain.addition import Wrong, check, draw_sums, make, read_sums, write_sum
from pretrain.recipe import read_recipe
from pretrain.shards import open_split, read_manifest
from pretrain.windows import Windows
from tests.tiny import random_llama, train_tokenizer
from tests.tiny_pretrain import RECIPES
from tokenizer import Tokenizer

RECIPE = RECIPES / "addition.toml"
ALL_OF_ONE_DIGIT = [write_sum(a, b, 1) for a in range(10) for b in range(10)]


def numbers(line: str) -> tuple[int, int]:
    """Return what is added, read independently of the code under test."""
    a, b = line.split("=")[0].split("+")
    return int("".join(reversed(a))), int("".join(reversed(b)))


def char_tokenizer(folder: Path, text: str = "\n\n".join(ALL_OF_ONE_DIGIT)) -> Tokenizer:
    """Train a tokenizer of the characters of a text."""
    file = folder / "text.txt"
    file.write_text(text)
    special, space = 3, 1
    return vocabulary.train([file], "char", special + space + len(set(text) - {"\n"}), folder / "tokenizer")


def save(folder: Path, model: Llama, tokenizer: Tokenizer) -> Path:
    write_directory(folder, model.config, model.state_dict(), tokenizer.path)
    return folder


def learn_by_heart(model: Llama, tokenizer: Tokenizer, lines: list[str]) -> None:
    """Train until each line is the likeliest continuation of its question."""
    rows = torch.tensor([tokenizer.encode(line, bos=True, eos=True) for line in lines])
    answers = rows[:, -3:]  # two digits and the end
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(300):
        logits = model(rows[:, :-1], rows[:, 1:])[0][:, -3:]
        if (logits.argmax(-1) == answers).all():
            return
        F.cross_entropy(logits.flatten(0, 1), answers.flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    raise AssertionError("the model did not learn the table by heart")


# ---------------------------------------------------------------------------------------------------- the sums


@pytest.mark.parametrize(
    ("a", "b", "digits", "line"),
    [
        (1234, 5678, 4, "4321+8765=21960"),
        (0, 0, 4, "0000+0000=00000"),
        (9999, 9999, 4, "9999+9999=89991"),
        (9, 1, 1, "9+1=01"),
        (7, 80, 2, "70+08=780"),
    ],
)
def test_a_sum_is_written_lowest_digit_first_with_all_places(a: int, b: int, digits: int, line: str) -> None:
    assert write_sum(a, b, digits) == line


@given(st.integers(1, 9), st.integers(0, 20), st.integers())
def test_every_sum_is_right_and_no_two_have_the_same_numbers(digits: int, count: int, seed: int) -> None:
    lines = list(draw_sums(digits, count, seed))
    for line in lines:
        a, b = numbers(line)
        assert re.fullmatch(rf"\d{{{digits}}}\+\d{{{digits}}}=\d{{{digits + 1}}}", line)
        assert int(line.split("=")[1][::-1]) == a + b
    assert len({frozenset(numbers(line)) for line in lines}) == count


def test_all_pairs_can_be_drawn_in_both_orders() -> None:
    lines = [line for seed in range(8) for line in draw_sums(1, 55, seed)]
    assert {frozenset(numbers(line)) for line in lines[:55]} == {
        frozenset((a, b)) for a in range(10) for b in range(10)
    }
    assert len(set(lines)) > 95  # of 100: the order is drawn, not sorted


def test_every_pair_has_its_number_however_large() -> None:
    assert [addition._pair(i) for i in range(6)] == [(0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2)]
    largest = 10**addition.MAX_DIGITS - 1
    pairs = (largest + 1) * (largest + 2) // 2
    assert addition._pair(pairs - 1) == (largest, largest)
    assert addition._pair(pairs - 1 - largest) == (0, largest)


# -------------------------------------------------------------------------------------------------------- make


def test_held_out_sums_are_not_among_those_to_train_on_in_either_order(tmp_path: Path) -> None:
    training_file, held_out_file = make(tmp_path, digits=2, count=4000, held_out=1050)
    training = [numbers(line) for line in training_file.read_text().split("\n\n")]
    held_out = [numbers(line) for line in held_out_file.read_text().splitlines()]
    assert (len(training), len(held_out)) == (4000, 1050)
    assert not {frozenset(pair) for pair in training} & {frozenset(pair) for pair in held_out}


def test_the_same_seed_gives_the_same_files_and_another_gives_others(tmp_path: Path) -> None:
    one, same, other = (
        [file.read_bytes() for file in make(tmp_path / str(i), count=300, held_out=50, seed=seed)]
        for i, seed in enumerate((5, 5, 6))
    )
    assert one == same
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_the_files_are_made_anew_in_the_same_folder(tmp_path: Path) -> None:
    make(tmp_path, count=300, held_out=50, seed=1)
    make(tmp_path, count=30, held_out=5, seed=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["held-out.txt", "sums.txt"]
    assert len(read_sums(tmp_path / "held-out.txt")) == 5


def test_a_write_that_fails_leaves_no_held_out_sums_of_another_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, count=300, held_out=50, seed=1)

    def full(self: Path, *args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match=r"cannot be written \(No space left on device\): make room"):
        make(tmp_path, count=300, held_out=50, seed=2)
    assert [path.name for path in tmp_path.iterdir()] == ["sums.txt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--digits", "1"], "310,000 sums were asked for, and there are only 55 of numbers with 1 digit"),
        (["--digits", "1", "--count", "50", "--held-out", "6"], "only 55 of numbers with 1 digit.*: lower --count"),
        (["--digits", "0"], "--digits 0: choose 1 to 9"),
        (["--digits", "10"], "--digits 10: choose 1 to 9"),
        (["--count", "0"], "--count 0: at least one"),
        (["--held-out", "0"], "--held-out 0: at least one"),
    ],
)
def test_sums_that_cannot_be_drawn_are_an_error(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["make-addition", "-o", str(tmp_path / "sums"), *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "sums").exists()


def test_a_file_where_the_folder_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file cannot be written .*: make room, or name another folder with -o"):
        make(tmp_path / "file", count=3, held_out=3)


# -------------------------------------------------------------------------------------------------------- check


def test_wrong_answers_are_counted_and_shown_with_what_was_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model that has learnt a table with three mistakes makes these three, and no other."""
    tokenizer = char_tokenizer(tmp_path)
    table = [write_sum(a, a, 1) for a in range(10)]
    mistakes = {"2+2=40": "2+2=50", "9+9=81": "9+9=80", "0+0=00": "0+0=01"}
    model = random_llama(vocab_size=tokenizer.n_words, max_seq_len=10)
    learn_by_heart(model, tokenizer, [mistakes.get(line, line) for line in table])
    checkpoint = save(tmp_path / "model", model, tokenizer)
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("\n".join(table) + "\n")

    result = check(checkpoint, held_out)
    assert (result.asked, result.right) == (10, 7)
    assert set(result.wrong) == {Wrong(line, written) for line, written in mistakes.items()}

    assert main(["check-addition", str(checkpoint), str(held_out)]) == 1
    output = capsys.readouterr().out
    assert "7 of 10 sums are right (70.00%)" in output
    assert "wrong: 2+2=50 instead of 2+2=40" in output

    held_out.write_text("\n".join(line for line in table if line not in mistakes) + "\n")
    assert main(["check-addition", str(checkpoint), str(held_out)]) == 0
    assert capsys.readouterr().out == "7 of 7 sums are right (100.00%)\n"


def test_an_answer_that_goes_on_after_its_last_digit_is_wrong(tmp_path: Path) -> None:
    tokenizer = char_tokenizer(tmp_path)
    model = random_llama(vocab_size=tokenizer.n_words, max_seq_len=10)
    learn_by_heart(model, tokenizer, ["1+1=20"])
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("1+1=20\n")
    assert not check(save(tmp_path / "model", model, tokenizer), held_out).wrong

    three = tokenizer.encode("3", bos=False, eos=False)[-1]
    with torch.no_grad():  # where the end was the likeliest, it is now a 3
        model.tok_embeddings.weight[[tokenizer.eos_id, three]] = model.tok_embeddings.weight[[three, tokenizer.eos_id]]
    assert check(save(tmp_path / "other", model, tokenizer), held_out).wrong == (Wrong("1+1=20", "1+1=203"),)


def test_only_a_few_wrong_answers_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenizer = char_tokenizer(tmp_path)
    checkpoint = save(tmp_path / "model", random_llama(vocab_size=tokenizer.n_words), tokenizer)
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("\n".join(ALL_OF_ONE_DIGIT) + "\n")
    assert main(["check-addition", str(checkpoint), str(held_out)]) == 1
    wrong = len(check(checkpoint, held_out).wrong)
    assert wrong > 50  # its weights are random
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[-1] == f"  and {wrong - 5} more"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("11+11=220\n11+11=\n", r"held-out.txt:2: '11\+11=' is no sum: write 1234 \+ 5678 = 6912 as 4321\+8765=21960"),
        ("11+11=220\n\n", "held-out.txt:2: '' is no sum"),
        ("11+11=22\n", "held-out.txt:1: .* is no sum"),
        (f"{'1' * 10}+{'1' * 10}={'2' * 10}0\n", "held-out.txt:1: .* is no sum"),
        (f"{'1' * 5000}+{'1' * 5000}={'2' * 5000}0\n", "held-out.txt:1: .* is no sum"),  # more than int() takes
        ("11+1=210\n", "held-out.txt:1: .* is no sum"),
        ("11 + 11 = 220\n", "held-out.txt:1: .* is no sum"),
        ("1１+11=220\n", "held-out.txt:1: .* is no sum"),
        ("11+11=220\n1+1=20\n", "held-out.txt:2: .* has more or fewer places than the sum on line 1"),
        ("11+11=220\n11+12=220\n", r"held-out.txt:2: .* is wrong, it should be '11\+12=230'"),
        ("", "held-out.txt:1: the file is empty: make it again"),
    ],
)
def test_a_broken_line_is_an_error_that_names_it(content: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "held-out.txt"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_sums(file)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.txt: cannot be read \(No such file.*: name the held-out.txt"):
        read_sums(tmp_path / "none.txt")
    (tmp_path / "latin.txt").write_bytes(b"11+11=220\n\xe9\n")
    with pytest.raises(DataError, match=r"latin.txt:2: .* is no sum"):
        read_sums(tmp_path / "latin.txt")


def without_a_plus(folder: Path) -> Path:
    tokenizer = char_tokenizer(folder, "0123456789=")
    return save(folder / "model", random_llama(vocab_size=tokenizer.n_words), tokenizer)


def with_a_short_context(folder: Path) -> Path:
    tokenizer = char_tokenizer(folder)
    return save(folder / "model", random_llama(vocab_size=tokenizer.n_words, max_seq_len=10), tokenizer)


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (without_a_plus, TokenizerError, r"tokenizer.model cannot write all of 0123456789\+=: .*model was not trained"),
        (with_a_short_context, UsageError, "model reads 10 tokens at once, and a sum of this file has 17: .* shorter"),
    ],
)
def test_a_checkpoint_that_cannot_add_is_refused_with_the_reason(
    spoil: Callable[[Path], Path], kind: type[MinLlamaError], message: str, tmp_path: Path
) -> None:
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("4321+8765=21960\n")
    with pytest.raises(kind, match=message):
        check(spoil(tmp_path), held_out)


def test_a_tokenizer_of_another_kind_can_write_sums(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=train_tokenizer(tmp_path / "tokenizer.model"))
    checkpoint = save(tmp_path / "model", random_llama(vocab_size=tokenizer.n_words), tokenizer)
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("1+1=20\n")
    assert len(check(checkpoint, held_out).wrong) == 1


# -------------------------------------------------------------------------------------------------------- the recipe


def prepare(folder: Path, digits: int, count: int, held_out: int) -> None:
    """Run the verbs up to `prepare`, as the recipe says."""
    sizes = ["--digits", str(digits), "--count", str(count), "--held-out", str(held_out)]
    assert main(["make-addition", "-o", str(folder), *sizes]) == 0
    text, tokenizer = str(folder / "sums.txt"), str(folder / "tokenizer")
    assert main(["train-tokenizer", text, "--vocab-size", "16", "--type", "char", "--out", tokenizer]) == 0
    assert main(["prepare", text, "--tokenizer", tokenizer, "--out", str(folder / "data"), "--jobs", "1"]) == 0


def test_each_window_of_the_recipe_is_exactly_one_sum(tmp_path: Path) -> None:
    prepare(tmp_path, digits=4, count=1000, held_out=10)
    recipe = read_recipe(RECIPE)
    context = recipe.model.max_seq_len
    assert recipe.train.stride is None
    manifest = read_manifest(tmp_path / "data")
    tokenizer = Tokenizer(tokenizer_model=tmp_path / "data" / manifest.tokenizer.file)
    training = set((tmp_path / "sums.txt").read_text().split())
    for split in ("train", "validation"):
        windows = Windows(open_split(tmp_path / "data", manifest, split), context, context)
        # the last document of a shard has no token after it that its end could be asked to foresee
        assert len(windows) == manifest.splits[split].documents - 1
        inputs, targets = windows.batch(range(len(windows)))
        assert (inputs[:, 0] == tokenizer.bos_id).all()
        assert (inputs[:, -1] == tokenizer.eos_id).all()
        assert (targets[:, -1] == tokenizer.bos_id).all()
        assert {tokenizer.decode(row) for row in inputs.tolist()} <= training


def test_from_nothing_to_a_count_in_the_five_commands_of_the_recipe(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path, digits=2, count=600, held_out=40)
    settings = [
        *(f"data={tmp_path / 'data'}", f"out={tmp_path}", "model.max_seq_len=12", "model.dim=16", "train.device=cpu"),
        *(
            "train.steps=20",
            "optimizer.warmup_steps=5",
            "train.batch_size=16",
            "report.evaluate_every=10",
            "report.save_every=10",
        ),
    ]
    assert main(["train", "--config", str(RECIPE), *(word for text in settings for word in ("--set", text))]) == 0
    capsys.readouterr()
    status = main(["check-addition", str(tmp_path / "last"), str(tmp_path / "held-out.txt")])
    match = re.match(r"(\d+) of 40 sums are right", capsys.readouterr().out)
    assert match
    assert status == (0 if match[1] == "40" else 1)


@pytest.mark.slow
def test_the_recipe_gets_all_of_ten_thousand_sums_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(tmp_path, addition.DIGITS, addition.COUNT, addition.HELD_OUT)
    settings = [f"data={tmp_path / 'data'}", f"out={tmp_path}", "train.device=cpu"]
    assert main(["train", "--config", str(RECIPE), *(word for text in settings for word in ("--set", text))]) == 0
    assert main(["check-addition", str(tmp_path / "last"), str(tmp_path / "held-out.txt")]) == 0
    assert "10,000 of 10,000 sums are right (100.00%)" in capsys.readouterr().out
