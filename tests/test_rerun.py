"""A submission's own program, run again: what it is given, what it may see, what is compared."""

import contextlib
import io
import os
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import run_llama
from autograder.editions import Limits
from autograder.isolation.sandbox import Reply, Script, open_sandbox, usable_backends
from autograder.outputs import files as outputs
from autograder.outputs import rerun as rerun_module
from autograder.outputs.coherence import TextReader
from autograder.outputs.rerun import rerun
from autograder.outputs.rerun_jobs import (
    duration,
    jobs,
    secret_prompt,
    secret_sentence,
    tokens_per_second,
    tokens_to_generate,
    tokens_to_read,
)
from autograder.result import Finding, OutputResult
from checkpoint import read_checkpoint, write_checkpoint, write_directory
from errors import DataError, UsageError
from sentiment_data import read_examples
from tests.tiny import random_llama
from tests.tiny_grading import PROMPT, ROOT, SENTENCES, STORYBOOK, edition, gold, reference, write_data

KNOWN = reference(
    checkpoint="small",
    accuracies={"sst-dev-prompting-output.txt": 0.2},
    coherent_nats={"0": 99.0, "1": 99.0},  # of a model that has learned nothing, every text is
)
EDITION = edition(references=[KNOWN])
OLD = edition(causal=False, reproduce_2024=True, files={"pristine": "missing"}, references=[KNOWN])
SST = ["--batch_size", "5", "--train", "data/sst-train.txt", "--dev", "data/sst-dev.txt", "--test", "data/sst-test.txt"]
SST += ["--label-names", "data/sst-label-mapping.json"]
PROMPTING = [*SST, "--dev_out", "sst-dev-prompting-output.txt", "--test_out", "sst-test-prompting-output.txt"]
FINETUNING = [*SST, "--dev_out", "sst-dev-finetuning-output.txt", "--test_out", "sst-test-finetuning-output.txt"]

Answer = Callable[[Script, Path], dict[str, str]]


class InProcess:
    """A sandbox that is none: runs the master's `run_llama.py` here, in a folder of its own, and keeps the scripts."""

    def __init__(self, folder: Path) -> None:
        """Remember where to work."""
        self.folder = folder
        self.scripts: list[Script] = []
        self.seen: dict[str, bytes] = {}

    def run(self, script: Script) -> Reply:
        """Put the files in their places, run, and return what was written."""
        self.scripts.append(script)
        place = self.folder / f"run-{len(self.scripts)}"
        for name, file in script.files_in.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place / name)
            self.seen[name] = file.read_bytes()
        with contextlib.chdir(place), contextlib.redirect_stdout(io.StringIO()) as printed:
            status = self.answer(script, place)
        files = {name: (place / name).read_bytes() for name in script.files_out if (place / name).is_file()}
        return Reply("ok", files=files, exit_status=status, printed=printed.getvalue())

    def answer(self, script: Script, place: Path) -> int:
        """Do what the program does; return its exit status."""
        return run_llama.main(list(script.argv[1:]))


class Fixed(InProcess):
    """A program that writes what a function says, whatever the model would."""

    def __init__(self, folder: Path, write: Answer) -> None:
        """Remember the function."""
        super().__init__(folder)
        self.write = write

    def answer(self, script: Script, place: Path) -> int:
        """Write the files."""
        for name, text in self.write(script, place).items():
            (place / name).write_text(text, encoding="utf-8")
        return 0


class Ending:
    """A program that ends in some way and writes nothing."""

    def __init__(self, reply: Reply) -> None:
        """Remember the end."""
        self.reply = reply

    def run(self, script: Script) -> Reply:
        """End so."""
        return self.reply


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model that has not learned anything, with the tokenizer of our own checkpoint."""
    folder = tmp_path_factory.mktemp("weights") / "small"
    model = random_llama(vocab_size=2048, max_seq_len=256)
    write_directory(folder, model.config, model.state_dict(), STORYBOOK / "tokenizer.model")
    return folder


@pytest.fixture(scope="module")
def reader(weights: Path) -> TextReader:
    """Return the tiny model as a reader."""
    return TextReader(weights, causal=True)


@pytest.fixture(autouse=True)
def same_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the machine's speed as given, and let a text have any length: what has not learned writes odd pieces."""
    monkeypatch.setattr(rerun_module, "tokens_per_second", lambda reader: 10_000.0)
    monkeypatch.setattr(outputs, "LENGTHS", range(30, 200))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with small data files."""
    return write_data(tmp_path / "data")


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    """Return a submission that has the master's program, and nothing else yet."""
    folder = tmp_path / "submission"
    folder.mkdir()
    shutil.copy(ROOT / "run_llama.py", folder)
    return folder


class Course:
    """What a rerun is made of, so that a test names only what is its own."""

    def __init__(self, submission: Path, data: Path, weights: Path, reader: TextReader) -> None:
        """Remember the folders."""
        self.submission, self.data, self.weights, self.reader = submission, data, weights, reader
        self.said: list[str] = []

    def rerun(
        self, sandbox: Any, *kinds: str, arguments: Sequence[str] = (), seed: str = "s", **changes: Any
    ) -> tuple[dict[str, OutputResult], list[Finding]]:
        """Rerun, and return the results by the names of the files."""
        options: dict[str, Any] = {"seed": seed, "checkpoint": "small", "reader": self.reader} | changes
        course = options.pop("course", EDITION)
        weights = options.pop("weights", self.weights)
        results, findings = rerun(
            sandbox,
            course,
            self.submission,
            kinds,
            weights,
            self.data,
            arguments=arguments,
            say=self.said.append,
            **options,
        )
        return {result.name: result for result in results}, findings


@pytest.fixture
def course(submission: Path, data: Path, weights: Path, reader: TextReader) -> Course:
    """Return the small course."""
    return Course(submission, data, weights, reader)


def hand_in(submission: Path, name: str, labels: Sequence[int]) -> None:
    """Put a file of predictions into the submission."""
    rows = zip(labels, SENTENCES, strict=True)
    (submission / name).write_text("".join(f"{label} ||| {text}\n" for label, text in rows), encoding="utf-8")


# --- generate ---------------------------------------------------------------------------------------------------------


def test_the_masters_own_program_repeats_the_references_text_and_answers_the_secret_prompt(
    course: Course, tmp_path: Path
) -> None:
    text = course.reader.greedy()
    (course.submission / "generated-sentence-temp-0.txt").write_text(text + "\n", encoding="utf-8")
    sandbox = InProcess(tmp_path)
    results, findings = course.rerun(sandbox, "generate")
    greedy, drawn = (results[f"generated-sentence-temp-{temperature}.txt"] for temperature in "01")
    assert (greedy.reaches, greedy.agreement, drawn.reaches, drawn.agreement) == (True, 1.0, True, None)
    assert not findings
    assert [script.argv[:3] for script in sandbox.scripts] == [("run_llama.py", "--option", "generate")] * 2
    assert "--prompt" in sandbox.scripts[1].argv
    assert set(sandbox.scripts[0].files_in) == {
        f"weights/small/{name}" for name in ("config.json", "model.safetensors", "tokenizer.model")
    }


def test_the_expected_time_is_told_before_the_run(course: Course) -> None:
    class Late(Ending):
        def run(self, script: Script) -> Reply:
            assert course.said
            assert script.seconds == rerun_module.LEAST_SECONDS
            return super().run(script)

    course.rerun(Late(Reply("timeout")), "generate")
    assert course.said[0].startswith(
        "rerun of generate (generated-sentence-temp-0.txt, generated-sentence-temp-1.txt): about "
    )
    assert " tokens, of which the reference reads " in course.said[0]
    assert course.said[0].endswith("stopped after 2 min")


def test_a_program_that_writes_out_its_files_fails_at_the_secret_prompt(course: Course, tmp_path: Path) -> None:
    text = course.reader.greedy()

    def replay(script: Script, place: Path) -> dict[str, str]:
        return dict.fromkeys(script.files_out, text)

    _, findings = course.rerun(Fixed(tmp_path, replay), "generate")
    assert [finding.severity for finding in findings] == ["flag"]
    assert findings[0].what.startswith("a prompt that nobody knew is not continued as the reference does")
    assert "The prompt was 'One day, " in findings[0].mend


def test_another_greedy_text_than_the_references_and_the_submitted_one_is_told_twice(
    course: Course, tmp_path: Path
) -> None:
    (course.submission / "run_llama.py").write_text("no options", encoding="utf-8")  # so there is no secret prompt
    (course.submission / "generated-sentence-temp-0.txt").write_text(f"{PROMPT} mine.", encoding="utf-8")
    other = course.reader.greedy() + " hat"
    sandbox = Fixed(tmp_path, lambda script, place: dict.fromkeys(script.files_out, other))
    results, findings = course.rerun(sandbox, "generate")
    assert len(sandbox.scripts) == 1
    assert results["generated-sentence-temp-0.txt"].agreement == 0.0
    flags = [finding.what for finding in findings if finding.severity == "flag"]
    assert "is not what the reference writes" in flags[0]
    assert f"is not the text that was handed in: they differ from character {len(PROMPT) + 2} on" in flags[1]


def test_a_text_without_the_prompt_is_an_error_of_the_rerun(course: Course, tmp_path: Path) -> None:
    (course.submission / "run_llama.py").unlink()
    sandbox = Fixed(tmp_path, lambda script, place: dict.fromkeys(script.files_out, "hello"))
    results, findings = course.rerun(sandbox, "generate")
    assert not any(result.reaches for result in results.values())
    assert {finding.stage for finding in findings} == {"rerun"}
    assert all(finding.severity == "error" for finding in findings)
    assert findings[0].what.startswith("in the rerun, generated-sentence-temp-0.txt does not begin with the fixed")


def test_a_text_of_another_length_is_an_error_of_the_rerun(course: Course, tmp_path: Path) -> None:
    (course.submission / "run_llama.py").unlink()
    sandbox = Fixed(tmp_path, lambda script, place: dict.fromkeys(script.files_out, f"{PROMPT} good."))
    results, findings = course.rerun(sandbox, "generate")
    assert [result.reaches for result in results.values()] == [False, False]
    assert findings[0].stage == "rerun"
    assert "tokens follow the prompt, for the 75 that are asked for" in findings[0].what


# --- how it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "complaint"),
    [
        (Reply("timeout"), "did not end within 10 times what the reference needs on the same machine"),
        (Reply("ok", exit_status=2, printed="first\nerror: no file\n"), "failed (ok, exit status 2): error: no file"),
        (Reply("crash", exit_status=-9), "failed (crash, exit status -9): it printed nothing"),
        (Reply("memory", printed="\x1b[31m" + "x" * 5000), "failed (memory, exit status None): '\\x1b[31mxxx"),
        (Reply("ok", exit_status=0), "wrote no generated-sentence-temp-0.txt and no generated-sentence-temp-1.txt"),
    ],
)
def test_a_program_that_does_not_end_well_is_one_error_and_gives_no_results(
    reply: Reply, complaint: str, course: Course
) -> None:
    results, [finding] = course.rerun(Ending(reply), "generate")
    assert not results
    assert (finding.stage, finding.severity) == ("rerun", "error")
    assert finding.what.startswith("`python run_llama.py --option generate --pretrained-model-path weights/small`")
    assert complaint in finding.what
    assert len(finding.what) < 500
    assert finding.what.isprintable()


# --- prompt -----------------------------------------------------------------------------------------------------------


def test_prompting_agrees_with_itself_and_sees_no_label(course: Course, tmp_path: Path) -> None:
    results, findings = course.rerun(InProcess(tmp_path / "first"), "prompt", arguments=PROMPTING)
    dev = results["sst-dev-prompting-output.txt"]
    assert dev.accuracy is not None  # joined here: the program saw 0 on every row
    assert (dev.reference, dev.agreement) == (0.2, None)  # nothing was handed in yet
    assert not findings

    sandbox = InProcess(tmp_path / "second")
    with contextlib.chdir(tmp_path):
        run_llama.main(["--option", "prompt", *PROMPTING, "--pretrained-model-path", str(course.weights)])
        for split in ("dev", "test"):
            shutil.copy(f"sst-{split}-prompting-output.txt", course.submission)
    results, findings = course.rerun(sandbox, "prompt", arguments=PROMPTING, seed="another")
    assert [result.agreement for result in results.values()] == [1.0, 1.0]
    assert results["sst-dev-prompting-output.txt"].accuracy == dev.accuracy
    assert not findings
    for name in ("data/sst-dev.txt", "data/sst-test.txt"):
        shown = sandbox.seen[name].decode().splitlines()
        assert len(shown) == len(SENTENCES) + 5
        assert {row.split(" ||| ")[0] for row in shown} == {"0"}
    assert sandbox.seen["data/sst-train.txt"] == (course.data / "sst-train.txt").read_bytes()


def test_the_2024_edition_is_run_as_its_own_program_is_asked_to(course: Course, tmp_path: Path) -> None:
    sandbox = InProcess(tmp_path)
    reader = TextReader(course.weights, causal=False)
    _, findings = course.rerun(sandbox, "prompt", arguments=PROMPTING, course=OLD, reader=reader)
    assert not findings  # the secret sentences, whose answers depend on their batch, got the reference's labels
    [script] = sandbox.scripts
    assert "--reproduce_2024" in script.argv
    assert script.argv[-2:] == ("--pretrained-model-path", "small.pt")
    assert {"small.pt", "tokenizer.model"} < set(script.files_in)


def test_a_program_of_the_originals_kind_is_not_asked_for_an_option_that_it_lacks(submission: Path) -> None:
    assert all("--reproduce_2024" in job.argv for job in jobs(OLD, submission, "prompt"))
    (submission / "run_llama.py").write_text("parser.add_argument('--option')", encoding="utf-8")
    assert not any("--reproduce_2024" in job.argv for job in jobs(OLD, submission, "prompt"))


def test_weights_for_the_original_are_a_checkpoint_of_llama2c_that_says_the_same(
    course: Course, tmp_path: Path
) -> None:
    class Looking(Ending):
        def run(self, script: Script) -> Reply:
            config, tensors = read_checkpoint(script.files_in["small.pt"])
            wanted_config, wanted = read_checkpoint(course.weights)
            assert config == wanted_config
            assert all(torch.equal(tensors[name], wanted[name]) for name in wanted)
            raw = torch.load(script.files_in["small.pt"], weights_only=True)
            assert {"dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "max_seq_len"} <= set(raw["model_args"])
            assert "layers.0.attention.compute_query.weight" in raw["model"]
            return super().run(script)

    _, [finding] = course.rerun(Looking(Reply("timeout")), "generate", course=OLD)
    assert "did not end" in finding.what


def test_weights_in_one_file_come_with_the_tokenizer_beside_them(course: Course, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "one.pt", *read_checkpoint(course.weights))
    shutil.copy(STORYBOOK / "tokenizer.model", tmp_path)

    class Looking(Ending):
        def run(self, script: Script) -> Reply:
            assert script.argv[-1] == "weights/one.pt"
            assert set(script.files_in) == {"weights/one.pt", "weights/tokenizer.model"}
            return super().run(script)

    # without a reader, it makes its own
    _, findings = course.rerun(Looking(Reply("timeout")), "generate", weights=tmp_path / "one.pt", reader=None)
    assert len(findings) == 1


def test_a_program_that_looks_its_answers_up_fails_on_the_secret_sentences(course: Course, tmp_path: Path) -> None:
    for split in ("dev", "test"):
        hand_in(course.submission, f"sst-{split}-prompting-output.txt", gold("sst", split))
    known = dict(zip(SENTENCES, gold("sst", "dev"), strict=True))

    def replay(script: Script, place: Path) -> dict[str, str]:
        answers = {}
        for split in ("dev", "test"):
            rows = read_examples(place / f"data/sst-{split}.txt", 5)
            lines = (f"{known.get(row.sentence, 0)} ||| {row.sentence}\n" for row in rows)
            answers[f"sst-{split}-prompting-output.txt"] = "".join(lines)
        return answers

    results, findings = course.rerun(Fixed(tmp_path, replay), "prompt", arguments=PROMPTING)
    assert [result.agreement for result in results.values()] == [1.0, 1.0]
    assert all(finding.severity == "flag" for finding in findings)
    assert any("of 5 sentences that nobody knew" in finding.what for finding in findings)


def _text(path: Path) -> str:
    """Return what is in a file."""
    return path.read_text(encoding="utf-8")


def test_other_predictions_than_those_handed_in_are_a_flag(course: Course, tmp_path: Path) -> None:
    for split in ("dev", "test"):
        hand_in(course.submission, f"sst-{split}-prompting-output.txt", [4] * len(SENTENCES))

    def zeros(script: Script, place: Path) -> dict[str, str]:
        return {
            f"sst-{split}-prompting-output.txt": _text(place / f"data/sst-{split}.txt") for split in ("dev", "test")
        }

    results, findings = course.rerun(Fixed(tmp_path, zeros), "prompt", arguments=PROMPTING)
    assert [result.agreement for result in results.values()] == [0.0, 0.0]
    assert "0.0% of the labels in sst-dev-prompting-output.txt are those that were handed in, less than 98%" in "".join(
        finding.what for finding in findings
    )
    assert {finding.severity for finding in findings} == {"flag"}


def test_a_broken_file_from_the_rerun_is_an_error(course: Course, tmp_path: Path) -> None:
    sandbox = Fixed(tmp_path, lambda script, place: dict.fromkeys(script.files_out, "nothing\n"))
    results, findings = course.rerun(sandbox, "prompt", arguments=PROMPTING)
    assert [result.reaches for result in results.values()] == [False, False]
    assert findings[0].severity == "error"
    assert findings[0].what.startswith("in the rerun, sst-dev-prompting-output.txt:1: the row is not")


# --- finetune ---------------------------------------------------------------------------------------------------------


def test_finetuning_sees_the_labels_that_were_handed_in_and_none_of_the_gold_ones(
    course: Course, tmp_path: Path
) -> None:
    mine = [(label + 1) % 5 for label in gold("sst", "dev")]
    hand_in(course.submission, "sst-dev-finetuning-output.txt", mine)
    sandbox = InProcess(tmp_path)
    few = [*FINETUNING, "--epochs", "1", "--max_sentence_len", "8"]
    results, findings = course.rerun(sandbox, "finetune", arguments=few)
    assert set(results) == {"sst-dev-finetuning-output.txt", "sst-test-finetuning-output.txt"}
    assert results["sst-dev-finetuning-output.txt"].agreement is not None
    assert not findings
    shown = sandbox.seen["data/sst-dev.txt"].decode().splitlines()
    assert [int(row.split(" ||| ")[0]) for row in shown] == mine
    assert {row.split(" ||| ")[0] for row in sandbox.seen["data/sst-test.txt"].decode().splitlines()} == {"0"}


def test_a_finetuning_that_ends_worse_is_for_a_person_to_judge(course: Course, tmp_path: Path) -> None:
    def zeros(script: Script, place: Path) -> dict[str, str]:
        return {name: "".join(f"0 ||| {text}\n" for text in SENTENCES) for name in script.files_out}

    name = "sst-dev-finetuning-output.txt"
    strict = edition(references=[KNOWN | {"accuracies": {name: 0.9}}])
    results, [finding] = course.rerun(Fixed(tmp_path, zeros), "finetune", arguments=FINETUNING, course=strict)
    assert (results[name].accuracy, results[name].reaches) == (0.25, None)
    assert finding.severity == "flag"
    assert finding.what.endswith("is right in 0.250 of its rows, below the reference's 0.900 by more than 0.05")


def test_without_a_file_handed_in_the_labels_of_the_dev_set_go_round(course: Course, tmp_path: Path) -> None:
    shutil.copy(course.data / "cfimdb-dev.txt", course.data / "sst-dev.txt")  # other gold labels

    class Looking(Ending):
        def run(self, script: Script) -> Reply:
            shown = script.files_in["data/sst-dev.txt"].read_text(encoding="utf-8").splitlines()
            assert [int(row.split(" ||| ")[0]) for row in shown] == [row % 5 for row in range(len(SENTENCES))]
            return super().run(script)

    _, findings = course.rerun(Looking(Reply("timeout")), "finetune", arguments=FINETUNING)
    assert "did not end" in findings[0].what


# --- arguments --------------------------------------------------------------------------------------------------------


def test_without_arguments_the_reference_commands_are_run(submission: Path) -> None:
    assert [job.argv for job in jobs(EDITION, submission, "generate")] == [("--option", "generate")]
    both = jobs(EDITION, submission, "prompt")
    assert [job.outputs["dev"] for job in both] == ["sst-dev-prompting-output.txt", "cfimdb-dev-prompting-output.txt"]
    assert both[0].argv[:4] == ("--option", "prompt", "--batch_size", "10")
    assert [job.options.batch_size for job in jobs(EDITION, submission, "finetune")] == [80, 10]


def test_a_tas_arguments_may_have_options_of_the_students_own(submission: Path) -> None:
    [job] = jobs(EDITION, submission, "prompt", [*PROMPTING, "--lora", "4"])
    assert job.argv[:2] == ("--option", "prompt")
    assert job.argv[-2:] == ("--lora", "4")


@pytest.mark.parametrize(
    ("kind", "arguments", "complaint"),
    [
        ("dance", [], "nothing to rerun is called 'dance': choose from generate, prompt, finetune"),
        ("prompt", ["--option", "finetune"], "say --option finetune, and the rerun is 'prompt'"),
        ("prompt", ["--batch_size", "many"], "does not take the arguments `--option prompt --batch_size many`"),
        ("prompt", ["--dev", "/etc/passwd"], "'/etc/passwd' leaves the folder"),
        ("prompt", [*PROMPTING, "--dev_out", "../x-dev-prompting-output.txt"], "leaves the folder"),
        ("generate", ["--prompt", "Once"], "judges the fixed prompt and 75 new tokens"),
        ("prompt", ["--dev", "data/mine-dev.txt"], "cannot judge a 'mine-dev-prompting-output.txt'"),
    ],
)
def test_arguments_that_cannot_be_judged_are_refused(
    kind: str, arguments: list[str], complaint: str, course: Course
) -> None:
    with pytest.raises(UsageError, match=complaint.replace("(", r"\(")):
        course.rerun(Ending(Reply("timeout")), kind, arguments=arguments)


def test_arguments_belong_to_one_kind(course: Course) -> None:
    with pytest.raises(UsageError, match="belong to one kind of it, not to generate, prompt"):
        course.rerun(Ending(Reply("timeout")), "generate", "prompt", arguments=PROMPTING)


@pytest.mark.parametrize("name", ["sst-dev.txt", "sst-train.txt", "sst-label-mapping.json"])
def test_official_data_that_is_missing_is_our_error_and_named(name: str, course: Course) -> None:
    (course.data / name).unlink()
    with pytest.raises(DataError, match=name):
        course.rerun(Ending(Reply("timeout")), "prompt", arguments=PROMPTING)


# --- secrets and times ------------------------------------------------------------------------------------------------


def test_secret_sentences_and_prompts_come_from_the_seed_and_are_new() -> None:
    for make in (lambda rng: secret_sentence(SENTENCES, rng), secret_prompt):
        first, again, other = (make(random.Random(seed)) for seed in ("a", "a", "b"))
        assert first == again != other
    sentences = [secret_sentence(SENTENCES, random.Random(seed)) for seed in range(50)]
    assert len(set(sentences) - set(SENTENCES)) > 40
    assert all(len(sentence.split()) > 8 for sentence in sentences)


def test_the_secret_rows_stand_between_two_batches(course: Course, tmp_path: Path) -> None:
    class Looking(Ending):
        rows: tuple[str, ...] = ()

        def run(self, script: Script) -> Reply:
            self.rows = tuple(_text(script.files_in["data/sst-dev.txt"]).splitlines())
            return super().run(script)

    places = set()
    for seed in ("a", "b", "c", "d", "e", "f"):
        sandbox = Looking(Reply("timeout"))
        course.rerun(sandbox, "prompt", arguments=PROMPTING, seed=seed)
        known = [row.split(" ||| ")[1] in SENTENCES for row in sandbox.rows]
        new = [index for index, seen in enumerate(known) if not seen]
        assert new
        assert {index // 5 for index in new} == {new[0] // 5}
        places.add(new[0] // 5)
    assert len(places) > 1


def test_tokens_are_counted_as_the_model_reads_them() -> None:
    assert tokens_to_generate(10, 3) == 2 * (10 + 11 + 12)
    assert tokens_to_read([4, 2, 9, 1, 5], batch_size=2) == 4 * 2 + 9 * 2 + 5


def test_the_references_speed_is_measured_on_one_core_and_the_threads_are_put_back(reader: TextReader) -> None:
    torch.set_num_threads(2)
    assert tokens_per_second(reader) > 10
    assert torch.get_num_threads() == 2


def test_times_are_said_as_a_person_says_them() -> None:
    assert [duration(seconds) for seconds in (5, 89, 90, 3000, 7200)] == ["5 s", "89 s", "2 min", "50 min", "2.0 h"]


# --- the real sandbox -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_masters_program_runs_in_the_real_sandbox(course: Course, tmp_path: Path) -> None:
    if reason := usable_backends()["bwrap"]:
        assert not os.environ.get("CI"), reason
        pytest.skip(f"skipped: {reason}")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for file in ROOT.glob("*.py"):
        shutil.copy(file, workspace)
    environment = ("torch", "sentencepiece", "protobuf", "numpy", "tqdm")
    with open_sandbox(None, workspace, environment, Limits()) as sandbox:
        results, findings = course.rerun(sandbox, "prompt", arguments=PROMPTING)
    assert not findings
    assert set(results) == {"sst-dev-prompting-output.txt", "sst-test-prompting-output.txt"}
