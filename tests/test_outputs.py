"""Output files from strangers: predictions against the data, texts against the reference, run-info.json."""

import json
import os
import shutil
from collections.abc import Callable
from math import isfinite
from pathlib import Path

import pytest

from autograder.outputs import files as outputs
from autograder.outputs.coherence import TextReader
from autograder.outputs.files import check_outputs, claimed_checkpoint
from autograder.result import Finding, OutputResult
from errors import DataError
from sentiment_data import Example, encode, prompt_suffix, read_examples, write_predictions
from submission_rules import SUBMISSION
from tests.assets_dir import require_asset
from tests.tiny_grading import NAMES, PROMPT, SENTENCES, STORYBOOK, edition, gold, reference, write_data
from tokenizer import Tokenizer

NAME = "sst-dev-finetuning-output.txt"
SUFFIX = prompt_suffix(NAMES["sst"])
EDITION = edition(references=[reference()])


@pytest.fixture(scope="module")
def reader() -> TextReader:
    """Return the project's own small model as a reader; it writes its greedy text once."""
    return TextReader(STORYBOOK, causal=True)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder with small data files."""
    return write_data(tmp_path / "data")


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    """Return an empty submission."""
    (tmp_path / "submission").mkdir()
    return tmp_path / "submission"


def rows(labels: list[int] | None = None, sentences: tuple[str, ...] = SENTENCES) -> str:
    """Return the content of a file of predictions: by default every label is right."""
    labels = gold("sst", "dev") if labels is None else labels
    return "".join(f"{label} ||| {sentence}\n" for label, sentence in zip(labels, sentences, strict=True))


def check(submission: Path, data: Path, content: str | bytes, name: str = NAME) -> tuple[OutputResult, list[Finding]]:
    """Return what is found of one file, without the note on a missing run-info.json."""
    content = content.encode() if isinstance(content, str) else content
    (submission / name).write_bytes(content)
    results, findings = check_outputs(submission, EDITION, data, None, "storybook")
    [result] = [result for result in results if result.name == name]
    return result, [finding for finding in findings if finding.file != "run-info.json"]


# --- predictions ------------------------------------------------------------------------------------------------------


def test_every_file_of_the_assignment_has_a_result_and_absent_ones_are_told(submission: Path, data: Path) -> None:
    results, findings = check_outputs(submission, EDITION, data, None, "storybook")
    assert [result.name for result in results] == [output.name for output in SUBMISSION.outputs]
    assert not any(result.present for result in results)
    assert [finding.severity for finding in findings] == ["note"]  # run-info.json is not there either


def test_the_accuracy_is_recomputed_and_compared_with_the_reference(submission: Path, data: Path) -> None:
    labels = gold("sst", "dev")
    labels[:6] = [(label + 1) % 5 for label in labels[:6]]
    result, findings = check(submission, data, rows(labels))
    assert result == OutputResult(NAME, True, accuracy=0.5, reference=0.5, margin=0.05, reaches=True)
    assert not findings


def test_an_accuracy_at_the_margin_reaches_and_one_below_does_not(submission: Path, data: Path) -> None:
    close = edition(references=[reference(accuracies={NAME: 0.55})])
    labels = [label if i < 6 else (label + 1) % 5 for i, label in enumerate(gold("sst", "dev"))]
    (submission / NAME).write_text(rows(labels), encoding="utf-8")
    results, findings = check_outputs(submission, close, data, None, "storybook")
    assert [result.reaches for result in results if result.name == NAME] == [True]
    labels[0] = (labels[0] + 1) % 5
    (submission / NAME).write_text(rows(labels), encoding="utf-8")
    results, findings = check_outputs(submission, close, data, None, "storybook")
    assert [result.reaches for result in results if result.name == NAME] == [False]
    assert "below the reference's 0.550 by more than 0.05" in findings[-1].what


def test_an_accuracy_far_above_the_reference_is_for_a_person_to_look_at(submission: Path, data: Path) -> None:
    result, [finding] = check(submission, data, rows())
    assert result.reaches
    assert (finding.severity, finding.file) == ("flag", NAME)
    assert "1.000 of its rows, far above the reference's 0.500" in finding.what


def test_labels_that_are_all_equal_are_no_gold_labels(submission: Path, data: Path) -> None:
    result, findings = check(submission, data, rows([1] * len(SENTENCES)), "cfimdb-test-finetuning-output.txt")
    assert (result.accuracy, result.reaches) == (None, None)
    assert not findings


def test_without_a_reference_for_the_checkpoint_the_accuracy_is_told_and_not_judged(
    submission: Path, data: Path
) -> None:
    (submission / NAME).write_text(rows(), encoding="utf-8")
    results, _ = check_outputs(submission, EDITION, data, None, "stories42M")
    [result] = [result for result in results if result.present]
    assert (result.accuracy, result.reference, result.reaches) == (1.0, None, None)


@pytest.mark.parametrize(
    "show",
    [
        lambda sentence: sentence,
        lambda sentence: f"{sentence} {SUFFIX}",
        lambda sentence: f"{sentence} {SUFFIX} ",
        lambda sentence: sentence.replace(" ", "  ") + "\u2028",
        lambda sentence: sentence[:40],
        lambda sentence: sentence[-40:],
        lambda sentence: f"{sentence} {SUFFIX}"[-90:],
        lambda sentence: f"{sentence} {SUFFIX}"[:100],
        lambda sentence: f"{sentence[-40:]} {SUFFIX}",
        lambda sentence: f"{sentence[:40]} {SUFFIX}",
    ],
)
def test_rows_with_or_without_the_suffix_in_full_or_cut_are_the_right_sentences(
    show: Callable[[str], str], submission: Path, data: Path
) -> None:
    result, _ = check(submission, data, rows(sentences=tuple(map(show, SENTENCES))))
    assert result.accuracy == 1.0


def test_what_the_program_itself_writes_is_accepted_also_where_it_cuts(
    submission: Path, data: Path, tokenizer_model: Path
) -> None:
    examples = read_examples(data / "sst-dev.txt", 5)
    for suffix, most in (("", 12), (SUFFIX, 120), (SUFFIX + " ", 300)):
        encoded = encode(examples, Tokenizer(tokenizer_model=tokenizer_model), most, suffix)
        write_predictions(submission / NAME, gold("sst", "dev"), encoded.sentences)
        result, _ = check(submission, data, (submission / NAME).read_bytes())
        assert result.accuracy == 1.0


def test_a_line_break_of_unicode_in_a_sentence_is_a_space_in_the_output(submission: Path, data: Path) -> None:
    odd = [Example(row % 5, f"one{separator}two and some more words") for row, separator in enumerate("\x0b\x85\u2028")]
    (data / "sst-dev.txt").write_text("".join(f"{entry.label} ||| {entry.sentence}\n" for entry in odd), "utf-8")
    write_predictions(submission / NAME, [0, 1, 2], [entry.sentence for entry in odd])
    result, _ = check(submission, data, (submission / NAME).read_bytes())
    assert result.accuracy == 1.0


@pytest.mark.parametrize(
    ("content", "line", "complaint"),
    [
        (rows().replace("0 ||| The plot", "0 The plot"), 1, "the row is not `label ||| sentence`"),
        (rows().replace("1 ||| Nobody", "x ||| Nobody"), 2, "the label 'x' is not an integer"),
        (rows().replace("1 ||| Nobody", "\u0661 ||| Nobody"), 2, "is not an integer"),
        (rows().replace("1 ||| Nobody", "5 ||| Nobody"), 2, "the label 5 is not in 0 to 4"),
        (rows().replace("1 ||| Nobody", "-1 ||| Nobody"), 2, "the label -1 is not in 0 to 4"),
        (rows().replace("1 ||| Nobody", f"{'9' * 5000} ||| Nobody"), 2, "is not an integer"),
        (rows(sentences=SENTENCES[::-1]), 1, "the sentence is not that of sst-dev.txt: found 'My friends"),
        (rows(sentences=(*SENTENCES[:-1], "x")), 12, "found 'x', expected 'My friends liked it"),
        (rows(sentences=(*SENTENCES[:-1], "\x1b[31mred\u202e and long")), 12, "x1b[31mred"),
        (rows(gold("sst", "dev")[:-1], SENTENCES[:-1]), 12, "has 11 rows, for 12 sentences in sst-dev.txt"),
        (rows() + rows(), 13, "has 24 rows, for 12 sentences"),
        ("", 1, "the row is not"),
        ("\n\n\n", 1, "the row is not"),
        (b"\xff\xfe0\x00 \x00", 1, "not UTF-8 text"),
        (rows().encode() + b"\n\x80", 14, "not UTF-8 text"),
    ],
)
def test_a_broken_file_is_an_error_that_names_the_line(
    content: str | bytes, line: int, complaint: str, submission: Path, data: Path
) -> None:
    result, [finding] = check(submission, data, content)
    assert (result.present, result.accuracy, result.reaches) == (True, None, False)
    assert (finding.severity, finding.file, finding.line) == ("error", NAME, line)
    assert complaint in finding.what
    assert finding.what.isprintable()
    assert finding.what.isascii()
    assert len(finding.what) < 300
    assert finding.mend.startswith("run `python run_llama.py --option finetune")


def test_windows_line_breaks_a_mark_of_utf_8_and_blank_lines_at_the_end_are_harmless(
    submission: Path, data: Path
) -> None:
    result, _ = check(submission, data, b"\xef\xbb\xbf" + rows().replace("\n", "\r\n").encode() + b"\r\n\n")
    assert result.accuracy == 1.0


def test_an_advanced_output_may_show_more_around_the_sentence_and_a_plain_one_may_not(
    submission: Path, data: Path
) -> None:
    own = rows(sentences=tuple(f"Review: {sentence} Sentiment:" for sentence in SENTENCES))
    result, _ = check(submission, data, own, "sst-dev-advanced-output.txt")
    assert result.accuracy == 1.0
    result, _ = check(submission, data, own)
    assert result.accuracy is None


def test_a_missing_data_file_is_our_error_and_named(submission: Path, data: Path) -> None:
    (data / "sst-dev.txt").unlink()
    with pytest.raises(DataError, match=r"sst-dev\.txt: no such file: get it with `\./setup\.sh --only sst`"):
        check(submission, data, rows())


def test_no_data_is_needed_for_files_that_are_not_there(submission: Path, tmp_path: Path) -> None:
    results, _ = check_outputs(submission, EDITION, tmp_path / "nothing", None, "storybook")
    assert not any(result.present for result in results)


# --- files that are none ----------------------------------------------------------------------------------------------


def test_links_folders_and_pipes_are_not_read(submission: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text(rows(), encoding="utf-8")
    (submission / NAME).symlink_to(tmp_path / "secret.txt")
    (submission / "sst-test-finetuning-output.txt").mkdir()
    os.mkfifo(submission / "generated-sentence-temp-0.txt")
    os.mkfifo(submission / "run-info.json")
    results, findings = check_outputs(submission, EDITION, data, None, "storybook")
    assert [result.reaches for result in results if result.present] == [False, False, False]
    assert {finding.file for finding in findings if finding.severity == "error"} == {
        NAME,
        "sst-test-finetuning-output.txt",
        "generated-sentence-temp-0.txt",
    }


def test_a_huge_file_is_not_read(submission: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outputs, "MAX_BYTES", 100)
    result, [finding] = check(submission, data, rows())
    assert result.reaches is False
    assert "has more than 100 bytes" in finding.what


# --- generated text ---------------------------------------------------------------------------------------------------


def texts(
    submission: Path, reader: TextReader | None, greedy: str | bytes, checkpoint: str = "storybook"
) -> tuple[OutputResult, list[Finding]]:
    """Return what is found of a text at temperature 0."""
    name = "generated-sentence-temp-0.txt"
    (submission / name).write_bytes(greedy if isinstance(greedy, bytes) else greedy.encode())
    results, findings = check_outputs(submission, EDITION, submission, reader, checkpoint)
    return results[0], [finding for finding in findings if finding.file == name]


def test_the_references_own_text_is_right_and_nothing_is_said(submission: Path, reader: TextReader) -> None:
    for ending in ("", "\n", "\r\n"):
        result, findings = texts(submission, reader, reader.greedy() + ending)
        assert (result.present, result.reaches, result.limit) == (True, True, 1.0)
        assert result.nats is not None
        assert result.nats < 1.0
        assert not findings


def test_words_without_sense_are_not_coherent(submission: Path, reader: TextReader) -> None:
    salad = " ".join(f"{word} banana the of" for word in PROMPT.split()[:14])
    result, findings = texts(submission, reader, f"{PROMPT} {salad}")
    assert result.reaches is False
    assert "nats a token, a coherent text at most 1" in findings[0].what
    assert findings[1].what.endswith(f"they differ from character {len(PROMPT) + 2} on")
    assert [finding.severity for finding in findings] == ["warning", "note"]


def test_the_references_text_is_right_also_where_no_limit_was_measured(submission: Path, reader: TextReader) -> None:
    result, findings = texts(submission, reader, reader.greedy(), checkpoint="stories42M")
    assert (result.reaches, result.limit) == (True, None)
    assert not findings


def test_without_a_limit_another_text_is_for_a_person_to_read(submission: Path, reader: TextReader) -> None:
    other = reader.greedy().replace("smile", "hat")
    result, findings = texts(submission, reader, other, checkpoint="stories42M")
    assert (result.reaches, result.limit) == (None, None)
    assert "what is coherent was not measured for this checkpoint" in findings[0].what
    assert {finding.severity for finding in findings} == {"note"}


def test_without_a_reader_no_text_is_judged(submission: Path) -> None:
    result, [finding] = texts(submission, None, f"{PROMPT} good.")
    assert (result.reaches, finding.severity) == (None, "note")
    assert "the weights that it should come from are not on this machine" in finding.what


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("I have wanted to see this thriller. Keanu Reeves is good.", "does not begin with the fixed prompt"),
        ("\x1b]0;title\x07" + PROMPT, "does not begin with the fixed prompt"),
        ("", "does not begin with the fixed prompt: it begins with ''"),
        (PROMPT, "0 tokens follow the prompt, for the 75"),
        (f"{PROMPT} very good.", "tokens follow the prompt, for the 75 that are asked for"),
        (f"{PROMPT} {'very ' * 120}good.", "tokens follow the prompt, for the 75"),
        (PROMPT + "a" * 1_000_000, " characters, more than 75 tokens can make"),
        (PROMPT.encode() + b"\n\xff", "generated-sentence-temp-0.txt:2: not UTF-8 text"),
    ],
)
def test_a_text_without_the_prompt_or_of_another_length_is_an_error(
    text: str | bytes, complaint: str, submission: Path, reader: TextReader
) -> None:
    result, findings = texts(submission, reader, text)
    assert result.reaches is False
    assert result.nats is None or isfinite(result.nats)  # JSON knows no infinity
    assert findings[0].severity == "error"
    assert complaint in findings[0].what
    assert findings[0].what.isprintable()
    assert findings[0].mend == "run `python run_llama.py --option generate`"


@pytest.mark.parametrize("odd", ["\0", "\x1b[2J", "\u202e", "\ufffd" * 40, "<s></s>" * 9, "\u2581", "\U0001f600" * 20])
def test_odd_characters_in_a_text_do_no_harm(odd: str, submission: Path, reader: TextReader) -> None:
    result, findings = texts(submission, reader, reader.greedy()[:-9] + odd)
    assert result.nats is not None
    assert all(finding.what.isprintable() for finding in findings)


# --- run-info.json ----------------------------------------------------------------------------------------------------


def info(submission: Path, content: object) -> None:
    """Write a run-info.json."""
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (submission / "run-info.json").write_bytes(raw)


def runs(*names: str) -> dict[str, object]:
    """Return a record of runs with these checkpoints."""
    return {"runs": {f"run {i}": {"checkpoint": {"name": name, "sha256": None}} for i, name in enumerate(names)}}


def found(submission: Path, checkpoint: str | None) -> list[Finding]:
    """Return what is found of run-info.json alone."""
    return check_outputs(submission, EDITION, submission, None, checkpoint)[1]


def test_the_record_that_the_program_writes_names_its_checkpoint(submission: Path) -> None:
    for name in ("stories42M.pt", "stories42M.bin", "stories42M", "somewhere/stories42M.pt", "C:\\x\\stories42M.pt"):
        info(submission, runs(name, "stories42M.pt"))
        assert claimed_checkpoint(submission) == "stories42M"
        assert not found(submission, "stories42M")


def test_other_weights_are_a_flag_and_the_instructors_choice_wins(submission: Path, data: Path) -> None:
    info(submission, runs("stories42M.pt", "storybook", "my\x1b[1mown"))
    (submission / NAME).write_text(rows(), encoding="utf-8")
    results, findings = check_outputs(submission, EDITION, data, None, "storybook")
    assert [result.reference for result in results if result.name == NAME] == [0.5]
    assert findings[0].severity == "flag"
    assert "names other weights than storybook: stories42M (run 0), 'my\\x1b[1mown' (run 2)" in findings[0].what


def test_without_a_choice_the_record_decides_if_it_names_one_checkpoint(submission: Path, data: Path) -> None:
    info(submission, runs("storybook", "storybook"))
    (submission / NAME).write_text(rows(), encoding="utf-8")
    results, _ = check_outputs(submission, EDITION, data, None, None)
    assert [result.reference for result in results if result.name == NAME] == [0.5]
    (submission / NAME).unlink()
    info(submission, runs("storybook", "stories42M.pt"))
    assert claimed_checkpoint(submission) is None
    assert "other weights than one checkpoint for all runs" in found(submission, None)[0].what


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[" * 100_000,
        b'{"runs": ' + b"9" * 10_000 + b"}",
        b'{"runs": 1e999}',
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        [],
        {"runs": None},
        {"runs": []},
        {"runs": {"a": 1, "b": {"checkpoint": "x"}, "c": {"checkpoint": {"name": 3}}}},
        {"runs": {"a": {"checkpoint": {"name": "x" * 1000}}}},
        b" " * 1_000_001,
    ],
)
def test_a_record_that_is_none_is_a_warning(content: object, submission: Path) -> None:
    info(submission, content)
    assert claimed_checkpoint(submission) is None
    [finding] = found(submission, "storybook")
    assert (finding.severity, finding.file) == ("warning", "run-info.json")


def test_many_runs_are_told_in_one_line(submission: Path) -> None:
    info(submission, {"runs": {"r" * 10_000 + str(i): {"checkpoint": {"name": "other"}} for i in range(50)}})
    [finding] = found(submission, "storybook")
    assert finding.what.endswith("and 16 more")
    assert len(finding.what) < 1000


def test_no_record_is_a_note(submission: Path) -> None:
    assert [finding.severity for finding in found(submission, "storybook")] == ["note"]


def test_the_published_data_can_be_read(submission: Path, tmp_path: Path) -> None:
    published = require_asset("data/sst-dev.txt")
    data = write_data(tmp_path / "data")
    shutil.copy(published, data / "sst-dev.txt")
    shutil.copy(published, submission / NAME)  # a data file is a file of predictions that are all right
    results, findings = check_outputs(submission, EDITION, data, None, "storybook")
    [result] = [result for result in results if result.present]
    assert result.accuracy == 1.0
    assert findings[-1].severity == "flag"
