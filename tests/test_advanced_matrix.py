"""The matrix of runs, and the tables made of it: run with `pytest tests/test_advanced_matrix.py`."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

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
from advanced.rows import Row, add_row, read_rows
from advanced.runner import Run
from advanced.task import SCORED, Part
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
    ],
)
def test_a_mistake_in_a_plan_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_plan(written(tmp_path / "plan.toml", PLAN.replace(old, new, 1)))
    assert "plan.toml" in str(error.value)


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_plan(tmp_path / "none.toml")


def test_the_plan_of_the_project_is_read_and_has_three_seeds_where_deviations_are_given() -> None:
    seeds: dict[str, set[int]] = {}
    for run in read_plan():
        is_small = run.checkpoint is not None and run.checkpoint.stem in ("stories260K", "storybook")
        if is_small and METHODS[run.methods[0]].kind == "finetuning":
            name = f"{title(run).rpartition(' seed')[0]} {run.recipe.epochs} {run.recipe.lr}"
            seeds.setdefault(name, set()).add(run.recipe.seed)
    assert seeds
    assert all(len(found) >= 3 for found in seeds.values())


def test_the_plan_of_the_project_has_every_method_of_training_alone_beside_plain_finetuning() -> None:
    alone = {(run.checkpoint.stem, run.methods) for run in read_plan() if run.checkpoint and run.task == "sst"}
    for checkpoint in ("stories260K", "storybook"):
        for name, entry in METHODS.items():
            if entry.kind == "finetuning" and name != "wise-ft":  # which needs a head that knows something
                assert (checkpoint, (name,)) in alone
        assert (checkpoint, ("prompt-finetune", "wise-ft")) in alone


# ---------------------------------------------------------------------------------------------------- doing it


class Pool:
    """Stands in for the pool of processes: does a run at once, or does what `outcome` says."""

    def __init__(self, *_: object, **__: object) -> None:
        self.shut_down = False

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def submit(self, call: Any, run: Run, threads: int, parts: tuple[Part, ...]) -> Any:
        from concurrent.futures import Future

        future: Future[Row] = Future()
        try:
            future.set_result(call(run, threads, parts))
        except (TrainingError, KeyboardInterrupt) as error:
            future.set_exception(error)
        return future

    def shutdown(self, wait: bool, cancel_futures: bool) -> None:
        self.shut_down = True


def row_of(run: Run, dev: float = 0.5, **changes: Any) -> Row:
    accuracy = {"selection": 0.5, "dev": dev, "test": 0.25}
    numbers = {"trained": 10, "added": 1}
    cost = {"saved_bytes": 2**20, "peak_bytes": 2**21, "seconds": 2.0, "cpu_seconds": 1.0}
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

    monkeypatch.setattr(matrix, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(matrix, "_do", do)
    with pytest.raises(KeyboardInterrupt):
        run_all(missing(runs, read_rows(rows)), rows, jobs=1)
    kept = len(read_rows(rows))
    monkeypatch.setattr(matrix, "_do", lambda run, *_: row_of(run))
    left = missing(runs, read_rows(rows))
    assert len(left) == len(runs) - kept
    assert run_all(left, rows, jobs=1) == []
    assert missing(runs, read_rows(rows)) == []
    assert len(read_rows(rows)) == len(runs)


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, rows = read_plan(written(tmp_path / "plan.toml")), tmp_path / "rows.jsonl"
    error = TrainingError("the loss is nan")

    def do(run: Run, *_: object) -> Row:
        if "lora" in run.methods:
            raise error
        return row_of(run)

    monkeypatch.setattr(matrix, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(matrix, "_do", do)
    failures = run_all(runs, rows, jobs=2)
    assert sorted(title(failure.run) for failure in failures) == [title(run) for run in runs if "lora" in run.methods]
    assert all(failure.error is error for failure in failures)
    assert len(read_rows(rows)) == 3


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


def test_a_table_has_mean_deviation_and_the_paired_difference(tmp_path: Path) -> None:
    lines = tables(some_rows(tmp_path)).splitlines()
    assert lines[0] == "### demo, toy"
    head, _, svm, plain, lora = (cells(line) for line in lines[2:])
    assert head == list(report.HEADS)
    assert len(lines[3].strip("|").split("|")) == len(head)
    # 0.40 and 0.44: mean 0.42, deviation 0.02 · √2
    assert plain[:6] == ["plain", "5", "0.001", "2", "0.420 (0.028)", "0.250 (0.000)"]
    # differences 0.10 and 0.06: mean 0.08, standard error 0.02
    assert lora[0] == "lora (rank 4) + cosine"
    assert lora[6] == "+0.080 ± 0.020"
    assert (svm[0], svm[6]) == ("tfidf-svm", "")
    assert (plain[-1], lora[-1], svm[-1]) == ("below a bag of words", "", "")


def test_placeholders_and_unknown_memory_leave_a_cell_empty(tmp_path: Path) -> None:
    rows = [{**row, "accuracy": {**row["accuracy"], "test": None}, "peak_bytes": None} for row in some_rows(tmp_path)]
    plain = next(line for line in tables(rows).splitlines() if line.startswith("| plain"))
    assert cells(plain)[5] == "–"
    assert cells(plain)[9] == ""


def between(marks: tuple[str, str], content: str) -> str:
    return f"{marks[0]}\n\n{content}\n{marks[1]}"


def test_the_tables_take_the_places_of_those_in_the_readme(tmp_path: Path) -> None:
    readme, rows = tmp_path / "README.md", tmp_path / "rows.jsonl"
    for row in some_rows(tmp_path):
        add_row(rows, row)
    shutil.copy(matrix.ROWS.with_name("decoding.json"), tmp_path)
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
    assert between(RESULTS_MARKS, tables(read_rows(matrix.ROWS))) in text
    assert between(DECODING_MARKS, decoding_table(matrix.ROWS.with_name("decoding.json"))) in text


def test_the_table_of_methods_has_a_line_for_each_with_its_file() -> None:
    lines = methods_table().splitlines()[2:]
    assert [cells(line)[0].strip("`") for line in lines] == list(METHODS)
    folder = Path(report.__file__).parent
    assert all((folder / cells(line)[2].strip("`")).is_file() for line in lines)
