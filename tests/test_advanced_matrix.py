"""The matrix of runs, and the tables made of it: run with `pytest tests/test_advanced_matrix.py`."""

import math
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advanced import matrix, report
from advanced.catalogue import METHODS
from advanced.matrix import missing, read_plan, run_all, title
from advanced.report import (
    DECODING_MARKS,
    METHODS_MARKS,
    RESULTS_MARKS,
    decoding_table,
    methods_table,
    tables,
    update,
)
from advanced.rows import ROWS, TUNING, Row, add_row, identity, read_rows
from advanced.runner import Run, checksum
from advanced.task import SCORED, Part
from advanced.training import Recipe
from errors import DataError, TrainingError

PLAN = """
[checkpoints]
toy = "somewhere/toy.pt"

[[block]]
task = "demo"
checkpoint = "toy"
seeds = [1, 2]
lr = 1e-3
precision = "bfloat16"
dropout = 0.1
runs = [{ methods = ["plain"] }, { methods = ["cosine", "lora"], lr = 3e-3, lora = { rank = 4 } }]

[[block]]
task = "sst"
seeds = [1]
runs = [{ methods = ["tfidf-svm"] }]
"""


def written(path: Path, text: str = PLAN) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_run_of_a_plan_takes_its_settings_from_itself_then_from_its_block(tmp_path: Path) -> None:
    runs = read_plan(written(tmp_path / "plan.toml"))
    identities = [run.identity() for run in runs]
    assert [(one["methods"], one["seed"]) for one in identities] == [
        (["plain"], 1),
        (["plain"], 2),
        (["lora", "cosine"], 1),
        (["lora", "cosine"], 2),
        (["tfidf-svm"], 1),
    ]
    plain, lora, svm = identities[0], identities[2], identities[4]
    assert (plain["recipe"]["lr"], lora["recipe"]["lr"]) == (1e-3, 3e-3)
    assert (lora["recipe"]["precision"], lora["options"], lora["dropout"]) == ("bfloat16", {"lora": {"rank": 4}}, 0.1)
    assert (plain["checkpoint"], svm["checkpoint"]) == ("toy", "none")
    assert runs[0].checkpoint == matrix.ROOT / "somewhere/toy.pt"


def test_other_seeds_take_the_place_of_the_plan_s(tmp_path: Path) -> None:
    runs = read_plan(written(tmp_path / "plan.toml"), seeds=[7])
    assert [run.recipe.seed for run in runs] == [7, 7, 7]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[checkpoints]", "[checkpoints", "no TOML"),
        ('checkpoint = "toy"', 'checkpoint = "none such"', "none such"),
        ('"plain"', '"plane"', "there is no method plane"),
        ('task = "demo"', 'task = "imdb"', "there is no task 'imdb'"),
        ("dropout = 0.1", "drop_out = 0.1", "nothing is called 'drop_out'"),
        ('"bfloat16"', '"half"', "half"),
        ('methods = ["plain"]', 'method = ["plain"]', "methods"),
        ("rank = 4", "ranks = 4", r"block 1: run .*'cosine', 'lora'.*: lora has no option ranks"),
        ("rank = 4", "rank = 0", "block 1: run .*rank must be"),
        ("rank = 4", 'rank = "4"', "block 1: run .*not supported"),
        ("seeds = [1, 2]", "seed = [1, 2]", "nothing is called 'seed'"),
        ("seeds = [1]", "", "block 2: 'seeds' is missing"),
        ('runs = [{ methods = ["tfidf-svm"] }]', "", "block 2: 'runs' is missing"),
        ('checkpoint = "toy"', 'checkpoint = "toy"\ncheckpoints = ["toy"]', "block 1: it has both checkpoint and"),
        ('checkpoint = "toy"', "checkpoints = 1", "block 1: .*not iterable"),
    ],
)
def test_a_mistake_in_a_plan_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_plan(written(tmp_path / "plan.toml", PLAN.replace(old, new, 1)))
    assert "plan.toml" in str(error.value)


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_plan(tmp_path / "none.toml")


def test_a_block_of_several_checkpoints_has_all_runs_with_each(tmp_path: Path) -> None:
    plan = PLAN.replace('checkpoint = "toy"', 'checkpoints = ["toy", "other"]')
    plan = plan.replace('toy = "somewhere/toy.pt"', 'toy = "somewhere/toy.pt"\nother = "somewhere/other.pt"')
    found = [run.identity() for run in read_plan(written(tmp_path / "plan.toml", plan), seeds=[1])]
    assert [(one["checkpoint"], one["methods"]) for one in found] == [
        ("toy", ["plain"]),
        ("toy", ["lora", "cosine"]),
        ("other", ["plain"]),
        ("other", ["lora", "cosine"]),
        ("none", ["tfidf-svm"]),
    ]


SMALL = ("stories260K", "storybook")
HYBRID = ("mean-pooling", "cosine", "hybrid")
# Wise-ft needs a head that knows something, and demonstrations with the long question do not fit in a small context.
IN_COMPANY = {"wise-ft": ("prompt-finetune", "wise-ft"), "few-shot": ("zero-shot", "few-shot")}


def of_small_checkpoints(runs: Sequence[Run]) -> list[Run]:
    return [run for run in runs if run.checkpoint and run.checkpoint.stem in SMALL]


def test_the_plan_of_the_project_has_three_seeds_where_something_is_random() -> None:
    seeds: dict[str, set[int]] = {}
    for run in of_small_checkpoints(read_plan()):
        if METHODS[run.methods[0]].kind == "finetuning" or "few-shot" in run.methods:
            seeds.setdefault(identity({**run.identity(), "seed": None}), set()).add(run.recipe.seed)
    assert seeds
    assert all(len(found) >= 3 for found in seeds.values())


def test_no_run_stands_in_the_plan_of_the_project_twice() -> None:
    runs = [identity(run.identity()) for run in read_plan()]
    assert len(runs) == len(set(runs))


@pytest.mark.parametrize("kind", ["finetuning", "zero-shot"])
def test_the_plan_of_the_project_has_every_method_alone_on_both_small_checkpoints(kind: str) -> None:
    runs = of_small_checkpoints(read_plan())
    alone = {(run.checkpoint.stem, run.methods) for run in runs if run.checkpoint and run.task == "sst"}
    for name, entry in METHODS.items():
        if entry.kind == kind:
            for checkpoint in SMALL:
                assert (checkpoint, IN_COMPANY.get(name, (name,))) in alone


def test_every_training_on_a_small_checkpoint_has_a_plain_one_as_long_beside_it() -> None:
    runs = [run for run in of_small_checkpoints(read_plan()) if METHODS[run.methods[0]].kind == "finetuning"]

    def settings(run: Run) -> tuple[object, ...]:
        return run.task, run.checkpoint, run.recipe.epochs, run.recipe.batch_size, run.recipe.seed

    assert {settings(run) for run in runs if run.methods == report.PLAIN} == {settings(run) for run in runs}


Case = tuple[str, str, tuple[str, ...], int]  # task, checkpoint, methods, epochs


def tuned() -> dict[Case, dict[float, float]]:
    """Return the accuracies by learning rate of everything that was tuned."""
    found: dict[Case, dict[float, float]] = {}
    for row in read_rows(TUNING):
        case = row["task"], row["checkpoint"], tuple(row["methods"]), row["recipe"]["epochs"]
        found.setdefault(case, {})[row["recipe"]["lr"]] = row["accuracy"]["selection"]
    return found


def rates_of_the_plan() -> dict[Case, set[float]]:
    """Return the learning rates that the plan has for each training on a small checkpoint."""
    found: dict[Case, set[float]] = {}
    for run in of_small_checkpoints(read_plan()):
        if run.checkpoint and METHODS[run.methods[0]].kind == "finetuning":
            case = run.task, run.checkpoint.stem, run.methods, run.recipe.epochs
            found.setdefault(case, set()).add(run.recipe.lr)
    return found


@pytest.mark.parametrize("case", tuned())
def test_the_learning_rates_of_the_plan_are_the_best_of_those_that_were_tried(case: Case) -> None:
    tried = tuned()[case]
    (rate,) = rates_of_the_plan()[case]
    assert rate in tried, f"{rate} was not tried: {tried}"
    assert tried[rate] == max(tried.values()), f"{rate} is not the best: {tried}"


def test_what_was_not_tuned_has_the_rate_of_what_it_is_compared_with() -> None:
    plan, like = rates_of_the_plan(), {("linear",): ("cosine",), HYBRID: HYBRID[:-1]}
    for (task, checkpoint, methods, epochs), rates in plan.items():
        if (task, checkpoint, methods, epochs) not in tuned():
            assert rates == plan[task, checkpoint, like.get(methods, report.PLAIN), epochs]


# ---------------------------------------------------------------------------------------------------- doing it


def row_of(run: Run, dev: float = 0.5, **changes: Any) -> Row:
    accuracy = {"selection": 0.5, "dev": dev, "test": 0.25}
    numbers = {"trained": 10, "added": 1}
    memory = {"saved_bytes": 2**20, "held_bytes": 3 * 2**20, "peak_bytes": 2**21}
    cost = {**memory, "seconds": 2.0, "cpu_seconds": 1.0}
    return {**run.identity(), "accuracy": accuracy, "parameters": numbers, "chosen": {}, **cost, **changes}


def test_what_is_finished_is_not_done_again_whatever_stopped_the_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, rows = read_plan(written(tmp_path / "plan.toml")), tmp_path / "rows.jsonl"
    done: list[str] = []

    def do(run: Run, _threads: int, _parts: Sequence[Part]) -> Row:
        if title(run) not in done and len(done) == 2:
            raise KeyboardInterrupt
        done.append(title(run))
        return row_of(run)

    monkeypatch.setattr(matrix, "_do_apart", do)
    with pytest.raises(KeyboardInterrupt):
        run_all(missing(runs, read_rows(rows)), rows, jobs=1)
    kept = len(read_rows(rows))
    assert kept >= 2  # what was finished before the interrupt, whether or not it was reported
    monkeypatch.setattr(matrix, "_do_apart", lambda run, *_: row_of(run))
    left = missing(runs, read_rows(rows))
    assert len(left) == len(runs) - kept
    assert run_all(left, rows, jobs=1) == []
    assert missing(runs, read_rows(rows)) == []
    assert len(read_rows(rows)) == len(runs)


def test_after_an_interrupt_no_other_run_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plain, *_) = read_plan(written(tmp_path / "plan.toml"))
    runs = [replace(plain, recipe=replace(plain.recipe, seed=seed)) for seed in range(50)]
    begun: list[int] = []

    def do(run: Run, *_: object) -> Row:
        begun.append(run.recipe.seed)
        time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(matrix, "_do_apart", do)
    with pytest.raises(KeyboardInterrupt):
        run_all(runs, tmp_path / "rows.jsonl", jobs=1)
    assert len(begun) < len(runs)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TrainingError("the loss is nan"), ": the loss is nan"),
        (TypeError("no number"), ": TypeError: no number"),
        (BrokenProcessPool("it was killed"), ": BrokenProcessPool: it was killed"),
    ],
)
def test_a_run_that_fails_is_reported_and_the_others_go_on(
    error: Exception, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs, rows = read_plan(written(tmp_path / "plan.toml")), tmp_path / "rows.jsonl"

    def do(run: Run, *_: object) -> Row:
        if "lora" in run.methods:
            raise error
        return row_of(run)

    monkeypatch.setattr(matrix, "_do_apart", do)
    failures = run_all(runs, rows, jobs=2)
    wrong = [title(run) for run in runs if "lora" in run.methods]
    assert sorted(title(failure.run) for failure in failures) == wrong
    assert all(failure.error is error for failure in failures)
    assert sorted(map(str, failures)) == [f"{name}{text}" for name in wrong]
    assert len(read_rows(rows)) == 3
    assert sum(text in line for line in capsys.readouterr().out.splitlines()) == 2


def test_a_row_counts_only_with_the_parts_that_are_wanted(tmp_path: Path) -> None:
    runs = read_plan(written(tmp_path / "plan.toml"))
    tuned = [{**row_of(run), "accuracy": {"selection": 0.5}} for run in runs]
    assert missing(runs, tuned) == runs
    assert missing(runs, tuned, parts=["selection"]) == []
    assert missing(runs, [{**row, "limit": 12} for row in map(row_of, runs)]) == runs
    assert missing(runs, [{**row, "accuracy": {}} for row in tuned], parts=["selection"]) == runs


def test_a_row_counts_only_for_the_weights_that_are_there_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    runs = read_plan(written(tmp_path / "plan.toml"))
    weights = tmp_path / "somewhere" / "toy.pt"
    weights.parent.mkdir()
    weights.write_bytes(b"some weights")
    rows = [row_of(run, checkpoint_sha256=checksum(run.checkpoint)) for run in runs]
    assert missing(runs, rows) == []
    weights.write_bytes(b"other weights")
    of_weights = [run for run in runs if run.checkpoint]
    assert 0 < len(of_weights) < len(runs)
    assert missing(runs, rows) == of_weights
    again = [row_of(run, checkpoint_sha256=checksum(run.checkpoint)) for run in of_weights]
    assert missing(runs, [*rows, *again]) == []
    weights.unlink()  # on a machine without them, rows count as they are
    assert missing(runs, rows) == []


# What the processes of the next test do: they import this file.
def do_or_fail(run: Run, _threads: int, _parts: Sequence[Part]) -> Row:
    if run.recipe.seed == 1:
        raise TypeError("no number")
    if run.recipe.seed == 2:
        os._exit(9)
    return row_of(run)


@pytest.mark.slow
def test_a_process_that_fails_or_is_killed_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run("demo", None, ("tfidf-svm",), {}, Recipe(seed=seed)) for seed in (1, 2, 3, 4)]
    monkeypatch.setattr(matrix, "_do", do_or_fail)
    failures = run_all(runs, tmp_path / "rows.jsonl", jobs=2)
    assert {failure.run.recipe.seed: type(failure.error) for failure in failures} == {
        1: TypeError,
        2: BrokenProcessPool,
    }
    assert {row["seed"] for row in read_rows(tmp_path / "rows.jsonl")} == {3, 4}


@pytest.mark.slow
def test_each_run_has_a_process_of_its_own(tmp_path: Path) -> None:
    plan = PLAN.replace('task = "sst"', 'task = "demo"')
    runs = [run for run in read_plan(written(tmp_path / "plan.toml", plan)) if run.methods == ("tfidf-svm",)]
    assert run_all(runs, tmp_path / "rows.jsonl", jobs=1) == []
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert set(row["accuracy"]) == set(SCORED)


# ---------------------------------------------------------------------------------------------------- the tables


def some_rows(tmp_path: Path) -> list[Row]:
    runs = read_plan(written(tmp_path / "plan.toml", PLAN.replace('task = "sst"', 'task = "demo"')))
    devs = [0.40, 0.44, 0.50, 0.50, 0.45]
    return [row_of(run, dev) for run, dev in zip(runs, devs, strict=True)]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def column(line: str, head: str) -> str:
    return cells(line)[report.HEADS.index(head)]


def lines_of(text: str, name: str) -> list[str]:
    return [line for line in text.splitlines() if cells(line)[0].strip("*") == name]


def test_a_table_has_mean_deviation_and_the_paired_difference(tmp_path: Path) -> None:
    lines = tables(some_rows(tmp_path)).splitlines()
    assert lines[0] == "### demo, toy"
    head, _, svm, plain, lora = (cells(line) for line in lines[2:])
    assert head == list(report.HEADS)
    assert len(lines[3].strip("|").split("|")) == len(head)
    # 0.40 and 0.44: mean 0.42, deviation 0.02 · √2
    results = ["0.500 (0.000)", "0.420 (0.028)", "0.250 (0.000)"]
    costs = ["10", "1.0 MiB", "3.0 MiB", "2.0 MiB", "1 s"]
    assert plain == ["**plain**", "5", "0.001", "2", *results, "", *costs, "below a bag of words"]
    # differences 0.10 and 0.06: mean 0.08, standard error 0.02
    assert lora[0] == "lora (rank 4) + cosine"
    assert column(lines[-1], "dev − plain") == "+0.080 ± 0.020"
    assert svm[:4] == ["tfidf-svm", "", "", "1"]
    assert column(lines[4], "dev − plain") == ""
    assert (lora[-1], svm[-1]) == ("", "")


def test_placeholders_and_unknown_memory_leave_a_cell_empty(tmp_path: Path) -> None:
    changes = {"peak_bytes": None, "held_bytes": None}
    rows = [{**row, "accuracy": {**row["accuracy"], "test": None}, **changes} for row in some_rows(tmp_path)]
    (plain,) = lines_of(tables(rows), "plain")
    assert [column(plain, head) for head in ("test", "held", "peak")] == ["–", "", ""]
    for row in rows:
        del row["held_bytes"]
    assert lines_of(tables(rows), "plain") == [plain]


def a_run(*methods: str, seed: int = 1, dropout: float = 0.3, **recipe: Any) -> Run:
    return Run("demo", Path("toy.pt"), methods, {}, Recipe(**{"epochs": 2, **recipe, "seed": seed}), dropout)


def rows_with(devs: dict[int, float], *methods: str, **settings: Any) -> list[Row]:
    return [row_of(a_run(*methods, seed=seed, **settings), dev) for seed, dev in devs.items()]


def difference_of(text: str, name: str) -> str:
    (line,) = lines_of(text, name)
    return column(line, "dev − plain")


def test_with_other_seeds_the_difference_is_that_of_the_means() -> None:
    plain = rows_with({1: 0.40, 2: 0.44}, "plain")
    more = rows_with({1: 0.50, 2: 0.52, 3: 0.54}, "llrd")
    error = math.hypot(0.02, 0.02 / math.sqrt(3))  # of the mean of each
    assert difference_of(tables(plain + more), "llrd") == f"+0.100 ± {error:.3f}"
    assert difference_of(tables(plain + rows_with({1: 0.40}, "llrd")), "llrd") == "−0.020"
    assert difference_of(tables(plain[:1] + more), "llrd") == "+0.120"
    assert difference_of(tables(plain + rows_with({7: 0.40, 8: 0.44}, "llrd")), "llrd") == "+0.000 ± 0.028"


ACCURACIES = st.dictionaries(st.integers(1, 9), st.floats(0, 1), min_size=1, max_size=5)


@given(ACCURACIES, ACCURACIES)
def test_a_difference_is_always_that_of_the_means_that_stand_beside_it(
    ours: dict[int, float], plain: dict[int, float]
) -> None:
    text = difference_of(tables(rows_with(plain, "plain") + rows_with(ours, "llrd")), "llrd")
    value, _, error = text.replace("−", "-").partition(" ± ")
    assert float(value) == pytest.approx(statistics.mean(ours.values()) - statistics.mean(plain.values()), abs=6e-4)
    assert bool(error) == (min(len(ours), len(plain)) > 1)


def test_a_training_is_compared_with_a_plain_one_as_long_in_batches_as_large() -> None:
    plain = rows_with({1: 0.40}, "plain") + rows_with({1: 0.42}, "plain", epochs=3, checks=2)
    others = rows_with({1: 0.50}, "early-stopping", epochs=3, checks=2) + rows_with({1: 0.50}, "llrd")
    alone = rows_with({1: 0.50}, "lora", epochs=4) + rows_with({1: 0.50}, "cosine", batch_size=32)
    text = tables([*alone, *others, *plain])
    assert [column(line, "epochs") for line in lines_of(text, "plain")] == ["2", "3"]
    assert [column(line, "dev − plain") for line in lines_of(text, "plain")] == ["", ""]
    found = [difference_of(text, name) for name in ("early-stopping", "llrd", "lora", "cosine")]
    assert found == ["+0.080", "+0.100", "", ""]


def test_asking_is_compared_with_the_first_plain_finetuning() -> None:
    plain = rows_with({1: 0.40, 2: 0.44}, "plain", epochs=3) + rows_with({1: 0.50}, "plain", epochs=7)
    asking = rows_with({1: 0.30}, "zero-shot", epochs=5)
    (line,) = lines_of(tables(asking + plain), "zero-shot")
    assert [column(line, head) for head in ("epochs", "lr", "dev − plain")] == ["", "", "−0.120"]
    assert difference_of(tables(asking), "zero-shot") == ""


def test_runs_that_differ_in_more_than_the_seed_have_lines_of_their_own() -> None:
    rows = rows_with({1: 0.40, 2: 0.44}, "plain") + rows_with({3: 0.50}, "plain", dropout=0.1)
    other_weights = [{**row, "checkpoint_sha256": "other"} for row in rows_with({3: 0.30}, "plain")]
    text = tables([*rows, *other_weights])
    found = [(column(line, "seeds"), column(line, "dev")) for line in lines_of(text, "plain")]
    assert found == [("2", "0.420 (0.028)"), ("1", "0.500"), ("1", "0.300")]


def test_trainings_of_other_weights_are_not_compared() -> None:
    before = [{**row, "checkpoint_sha256": "before"} for row in rows_with({1: 0.40}, "plain")]
    after = [{**row, "checkpoint_sha256": "after"} for name in ("llrd", "pmi") for row in rows_with({1: 0.50}, name)]
    text = tables(before + after)
    assert [difference_of(text, name) for name in ("llrd", "pmi")] == ["", ""]


def test_of_a_run_that_was_done_again_the_last_row_counts() -> None:
    rows = rows_with({1: 0.10, 2: 0.44}, "plain") + rows_with({1: 0.40}, "plain")
    assert tables(rows) == tables([rows[1], rows[2]])
    (line,) = lines_of(tables(rows), "plain")
    assert (column(line, "seeds"), column(line, "dev")) == ("2", "0.420 (0.028)")


def test_rows_of_a_few_sentences_or_of_the_selection_part_alone_stay_out() -> None:
    whole = rows_with({1: 0.40}, "plain")
    limited = [{**row, "limit": 12} for row in rows_with({1: 0.9, 2: 0.9}, "plain")]
    tuned = [{**row, "accuracy": {"selection": 0.9}} for row in rows_with({1: 0.9}, "plain")]
    assert tables([*whole, *limited, *tuned]) == tables(whole)
    assert tables([*limited, *tuned]) == ""


def test_the_best_on_the_selection_part_is_bold_but_for_a_bag_of_words() -> None:
    def with_selection(row: Row, value: float) -> Row:
        return {**row, "accuracy": {**row["accuracy"], "selection": value}}

    (worse,), (better,) = rows_with({1: 0.6}, "plain"), rows_with({1: 0.4}, "llrd")
    bag = row_of(Run("demo", None, ("tfidf-svm",)), 0.5)
    text = tables([with_selection(worse, 0.3), with_selection(better, 0.4), with_selection(bag, 0.9)])
    names = [cells(line)[0] for line in text.splitlines()[4:]]
    assert names == ["tfidf-svm", "plain", "**llrd**"]


def between(marks: tuple[str, str], content: str) -> str:
    return f"{marks[0]}\n\n{content}\n{marks[1]}"


def test_the_tables_take_the_places_of_those_in_the_readme(tmp_path: Path) -> None:
    readme, rows = tmp_path / "README.md", tmp_path / "rows.jsonl"
    for row in some_rows(tmp_path):
        add_row(rows, row)
    shutil.copy(ROWS.with_name("decoding.json"), tmp_path)
    contents = {
        METHODS_MARKS: methods_table(),
        RESULTS_MARKS: tables(read_rows(rows)),
        DECODING_MARKS: decoding_table(tmp_path / "decoding.json"),
    }
    readme.write_text("\n\n".join(between(marks, "old") for marks in contents) + "\nafter\n", encoding="utf-8")
    expected = "\n\n".join(between(marks, content) for marks, content in contents.items()) + "\nafter\n"
    for _ in range(2):
        update(readme, rows)
        assert readme.read_text(encoding="utf-8") == expected


@pytest.mark.parametrize("text", ["no json", "[]", '{"rows": [{}]}'])
def test_measures_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"decoding\.json: not what"):
        decoding_table(written(tmp_path / "decoding.json", text))
    assert decoding_table(tmp_path / "none.json") == ""


def test_a_readme_without_the_marks_is_left_alone(tmp_path: Path) -> None:
    readme = written(tmp_path / "README.md", "no marks")
    with pytest.raises(DataError, match="the marks"):
        update(readme, tmp_path / "rows.jsonl")
    assert readme.read_text(encoding="utf-8") == "no marks"


def test_the_readme_shows_the_rows_that_are_committed() -> None:
    text = Path(report.__file__).with_name("README.md").read_text(encoding="utf-8")
    assert between(METHODS_MARKS, methods_table()) in text
    assert between(RESULTS_MARKS, tables(read_rows(ROWS))) in text
    assert between(DECODING_MARKS, decoding_table(ROWS.with_name("decoding.json"))) in text


def test_the_table_of_methods_has_a_line_for_each_with_its_file() -> None:
    lines = methods_table().splitlines()[2:]
    assert [cells(line)[0].strip("`") for line in lines] == list(METHODS)
    folder = Path(report.__file__).parent
    assert all((folder / cells(line)[2].strip("`")).is_file() for line in lines)
