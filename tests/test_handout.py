"""The hand-out: what is in it, what must not be, that it works, and that a bad one never takes its place."""

import os
import re
import shlex
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

import submission_rules
from autograder.editions import Edition, Handout, read_edition
from autograder.handout import check as handout_check
from autograder.handout import make as handout
from autograder.handout.check import expected_statuses, verify_content, verify_handout, verify_open
from autograder.handout.files import FILES, checkpoint_files, handout_files, packed_name
from autograder.handout.make import handout_content, make_handout, make_workspace
from checking import read_references
from component_checks import CHECKS
from errors import HandoutError
from submission_rules import SUBMISSION

ROOT = Path(__file__).resolve().parent.parent
REGIONS = tuple(submission_rules.FILES)
GIVEN = ("gqa", "zero_shot_head")
LINE = "key = torch.repeat_interleave(key, repeats=self.n_rep, dim=2)"  # of the solution, region gqa
SOLUTION = re.compile(r"^ *### BEGIN SOLUTION.*?### END SOLUTION\n", re.MULTILINE | re.DOTALL)


OURS, OF_2024 = read_edition("minllama"), read_edition("nlp244")


def with_open(*regions: str) -> Edition:
    """Return an edition in which only these regions are open."""
    return OURS.model_copy(update={"handout": Handout(open=regions)})


@pytest.fixture
def master(tmp_path: Path) -> Path:
    """Return a copy of the master without checkpoints, to be changed."""
    root = tmp_path / "master"
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    return root


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), "utf-8")


@pytest.fixture(scope="module")
def content() -> dict[str, bytes]:
    return handout_content(OURS, ROOT)[0]


@pytest.fixture
def content_of_2024(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(handout, "_sanity_data_without_mask", lambda: b"made for it")
    return handout_content(OF_2024, ROOT)[0]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_handout(OURS, tmp_path_factory.mktemp("build"))


def pack(path: Path, content: dict[str, bytes], folder: str = "min-llama-minllama") -> Path:
    with zipfile.ZipFile(path, "w") as packed:
        for name, data in content.items():
            packed.writestr(f"{folder}/{name}", data)
    return path


# --- what is in it ---


def test_the_list_is_what_the_tree_in_the_readme_shows_to_students() -> None:
    tree = (ROOT / "README.md").read_text("utf-8").rpartition("```text\n")[2].partition("```")[0]
    sections = {part.partition("\n")[0]: part for part in re.split(r"^# ", tree, flags=re.MULTILINE)}
    theirs = [part for title, part in sections.items() if title.startswith(("what a student", "given"))]
    assert len(theirs) == 4
    shown = {word for part in theirs for line in part.splitlines()[1:] for word in line[:22].split()}
    shown = {word for word in shown if "." in word}
    assert shown == {name for name in FILES if "/" not in name} - {"ASSIGNMENT.md", "structure.md", "LICENSE"}


def test_every_expected_file_of_a_submission_is_handed_out(content: dict[str, bytes]) -> None:
    wanted = {name for name in SUBMISSION.required + SUBMISSION.expected if not name.endswith(".txt")}
    assert wanted <= set(content)


def test_no_data_of_others_and_nothing_of_the_instructor_is_listed() -> None:
    assert {name.split("/")[0] for name in FILES if "/" in name} == {"data"}
    assert not [name for name in FILES if re.match(r"data/(sst|cfimdb)-(train|dev|test)", name)]
    assert not {"README.md", "Makefile", "CONTRIBUTING.md", "pyproject.toml"} & set(FILES)


def test_the_zip_holds_one_folder_and_is_named_by_its_version(archive: Path) -> None:
    match = re.fullmatch(r"handout-minllama-([0-9a-f]{8})\.zip", archive.name)
    assert match
    with zipfile.ZipFile(archive) as packed:
        names = packed.namelist()
        readme = packed.read("min-llama-minllama/README.md").decode("utf-8")
        modes = {entry.filename: entry.external_attr >> 16 for entry in packed.infolist()}
    assert names == sorted(f"min-llama-minllama/{packed_name(name)}" for name in handout_files(ROOT))
    stamp = f"{OURS.title}: hand-out `minllama`, version `{match[1]}`."
    assert readme.startswith(f"# Build a small Llama\n\n{stamp}\n\nThis is what")
    assert stat.S_IMODE(modes["min-llama-minllama/setup.sh"]) == 0o755
    assert {stat.S_IMODE(mode) for name, mode in modes.items() if not name.endswith(".sh")} == {0o644}


def test_the_checkpoints_of_the_master_are_in_it(archive: Path) -> None:
    weights = [name for name in checkpoint_files(ROOT) if name.endswith("model.safetensors")]
    assert weights == ["checkpoints/storybook/model.safetensors"]
    with zipfile.ZipFile(archive) as packed:
        assert packed.read(f"min-llama-minllama/{weights[0]}") == (ROOT / weights[0]).read_bytes()


def test_the_same_master_gives_the_same_bytes(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handout, "verify_handout", lambda *_: None)
    again = make_handout(OURS, tmp_path / "not there yet")
    assert again.name == archive.name
    assert again.read_bytes() == archive.read_bytes()


def test_the_version_is_of_the_content_and_the_edition(master: Path) -> None:
    versions = [handout_content(OURS, master)[1], handout_content(OURS.model_copy(update={"name": "other"}), master)[1]]
    edit(master / "LICENSE", "MIT License", "MIT Licence")
    versions.append(handout_content(OURS, master)[1])
    assert len(set(versions)) == 3


def test_line_ends_of_another_system_make_no_other_hand_out(master: Path) -> None:
    before = handout_content(OURS, master)
    for name in ("llama.py", "setup.sh", "structure.md", "data/demo-dev.txt"):
        data = (master / name).read_bytes()
        (master / name).write_bytes(data.replace(b"\n", b"\r\n"))
    assert handout_content(OURS, master) == before


def test_gaps_are_open_and_the_given_code_stays(content: dict[str, bytes]) -> None:
    for name in set(submission_rules.FILES.values()):
        text, solved = content[name].decode("utf-8"), (ROOT / name).read_text("utf-8")
        outside = SOLUTION.sub("", solved)
        gaps = re.compile(r"^ *# TODO \((\w+)\) write this part: its .*\n +raise NotImplementedError\n", re.MULTILINE)
        assert gaps.sub("", text) == outside
        assert set(gaps.findall(text)) == {region for region, home in submission_rules.FILES.items() if home == name}


@pytest.mark.parametrize("made", ["content", "content_of_2024"])
def test_links_lead_to_files_of_the_hand_out(made: str, request: pytest.FixtureRequest) -> None:
    content = request.getfixturevalue(made)
    documents = {name: data.decode("utf-8") for name, data in content.items() if name.endswith(".md")}
    links = {(name, target) for name, text in documents.items() for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    assert ("structure.md", "README.md") in links
    assert ("README.md", "structure.md") in links
    for name, target in links:
        assert os.path.normpath(Path(name).parent / target) in content, f"{name}: {target}"
    assert not [name for name, text in documents.items() if "ASSIGNMENT.md" in text]


def test_checkpoints_are_those_that_git_knows(tmp_path: Path) -> None:
    for name in ("own", "tried", "unfinished"):
        (tmp_path / "checkpoints" / name / "logs").mkdir(parents=True)
        for file in ("config.json", ".hidden", "logs/1.txt"):
            (tmp_path / "checkpoints" / name / file).touch()
    (tmp_path / "checkpoints/README.md").touch()
    for name in ("own", "tried"):
        (tmp_path / "checkpoints" / name / "model.safetensors").touch()
    both = tuple(
        f"checkpoints/{name}/{file}" for name in ("own", "tried") for file in ("config.json", "model.safetensors")
    )
    assert checkpoint_files(tmp_path) == both
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    subprocess.run(["git", "add", "checkpoints/own", "checkpoints/unfinished"], cwd=tmp_path, check=True)
    assert checkpoint_files(tmp_path) == both[:2]


def test_checkpoints_are_found_where_git_fails(tmp_path: Path) -> None:
    (tmp_path / "checkpoints/own").mkdir(parents=True)
    (tmp_path / "checkpoints/own/model.safetensors").touch()
    (tmp_path / ".git").write_text("gitdir: nowhere\n")
    assert checkpoint_files(tmp_path) == ("checkpoints/own/model.safetensors",)


# --- an edition that gives parts, and has no mask ---


def test_parts_that_an_edition_gives_are_solved(content_of_2024: dict[str, bytes]) -> None:
    llama, classifier = (content_of_2024[name].decode("utf-8") for name in ("llama.py", "classifier.py"))
    assert LINE in llama
    assert "return torch.stack(scores, dim=1)" in classifier
    assert "SOLUTION" not in llama + classifier
    assert llama.count("# TODO (") == 4
    assert classifier.count("# TODO (") == 1
    assert f"        # TODO (embedding_head) {OF_2024.handout.hint}\n" in classifier
    readme = content_of_2024["README.md"].decode("utf-8")
    assert "there is nothing to fill in there: `gqa` in `llama.py`, `zero_shot_head` in `classifier.py`.\n" in readme
    verify_content(content_of_2024, OF_2024, ROOT)


def test_an_edition_without_mask_says_so_in_code_and_text(content_of_2024: dict[str, bytes]) -> None:
    config, readme, structure = (
        content_of_2024[name].decode("utf-8") for name in ("config.py", "README.md", "structure.md")
    )
    assert "    causal: bool = False\n" in config
    assert config.replace("causal: bool = False", "causal: bool = True") == (ROOT / "config.py").read_text("utf-8")
    assert "Your attention needs no causal mask" in readme
    assert '"causal mask"' not in structure
    assert "`LlamaConfig.causal` is true" not in structure
    assert content_of_2024["sanity_check.data"] == b"made for it"


def test_the_commands_of_an_edition_of_2024_say_so(
    content_of_2024: dict[str, bytes], content: dict[str, bytes]
) -> None:
    lines = {output.command for output in SUBMISSION.outputs if output.command}
    assert len(lines) == 5
    for made, ending in ((content, ""), (content_of_2024, " --reproduce_2024")):
        shown = made["README.md"].decode("utf-8").splitlines()
        assert {f"{line}{ending}" for line in lines} <= set(shown)
        assert not {f"{line}{other}" for line in lines for other in ("", " --reproduce_2024") if other != ending} & set(
            shown
        )


def test_what_is_graded_is_said(content_of_2024: dict[str, bytes], content: dict[str, bytes]) -> None:
    assert b"Only your finetuned accuracies are graded: " in content["README.md"]
    assert b"Your zero-shot accuracies are graded as well" in content_of_2024["README.md"]
    assert b"Only your finetuned accuracies are graded: " not in content_of_2024["README.md"]


def test_a_text_that_an_edition_changes_must_be_there(master: Path) -> None:
    edit(master / "ASSIGNMENT.md", "Hand in runs without it, unless", "Hand in runs without this, unless")
    with pytest.raises(HandoutError, match=r"^ASSIGNMENT\.md: .* changes `Hand in .* stands there 0 times instead of"):
        handout_content(OF_2024, master)


# --- a broken master ---


def test_a_missing_file_is_an_error(master: Path) -> None:
    (master / "alibi.py").unlink()
    (master / "data/README.md").unlink()
    with pytest.raises(HandoutError, match=r"alibi\.py, .*data/README\.md: not there, but in every hand-out: restore"):
        handout_content(OURS, master)


def test_a_removed_region_is_an_error_with_file_and_line(master: Path) -> None:
    text = (master / "optimizer.py").read_text("utf-8")
    (master / "optimizer.py").write_text(SOLUTION.sub("", text), "utf-8")
    with pytest.raises(HandoutError, match=r"^optimizer\.py:\d+: the file ends without the region 'adamw'"):
        make_handout(OURS, master / "build", master)
    assert not list((master / "build").glob("*"))


def test_a_region_in_a_given_file_is_an_error(master: Path) -> None:
    edit(master / "utils.py", "    random.seed(seed)\n", "    ### BEGIN SOLUTION rope\n    ### END SOLUTION\n")
    with pytest.raises(HandoutError, match=r"^utils\.py:\d+: the region 'rope' belongs in rope\.py"):
        handout_content(OURS, master)


def test_a_text_in_another_encoding_is_an_error(master: Path) -> None:
    (master / "structure.md").write_bytes("A line\nα\n".encode("utf-16-le"))
    with pytest.raises(HandoutError, match=r"^structure\.md:\d: this is no UTF-8: save"):
        handout_content(OURS, master)


def test_a_gap_that_leaves_no_python_is_an_error(content: dict[str, bytes]) -> None:
    broken = content["rope.py"].replace(b"    raise NotImplementedError\n", b"raise NotImplementedError\n")
    line = broken.splitlines().index(b"raise NotImplementedError") + 2
    with pytest.raises(HandoutError, match=rf"^rope\.py:{line}: with its gaps open, this does not parse \("):
        verify_content(content | {"rope.py": broken}, OURS, ROOT)


def test_an_edition_whose_name_is_no_file_name_is_an_error() -> None:
    with pytest.raises(HandoutError, match="the edition's name '../ours' cannot be a file's"):
        handout_content(OURS.model_copy(update={"name": "../ours"}), ROOT)


# --- what must not be in it ---


@pytest.mark.parametrize(
    "name",
    [
        *("structure.md", "utils.py", "data/demo-label-mapping.json", "sanity_check.data"),
        "checkpoints/storybook/README.md",
    ],
)
def test_a_line_of_a_solution_is_found_in_any_file(name: str, content: dict[str, bytes]) -> None:
    leaking = content[name] + f"\n# see `{LINE}`\n".encode()
    line = (ROOT / "llama.py").read_text("utf-8").splitlines().index(f"        {LINE}") + 1
    with pytest.raises(
        HandoutError, match=f"^solutions are in the hand-out: {name} holds line {line} of llama.py: key ="
    ):
        verify_content(content | {name: leaking}, OURS, ROOT)


def test_a_leak_in_the_master_stops_the_hand_out(master: Path) -> None:
    edit(master / "ASSIGNMENT.md", "Some courses give steps 4 and 9.", f"Write `{LINE}`.")
    with pytest.raises(HandoutError, match=r"README\.md holds line \d+ of llama\.py"):
        make_handout(OURS, master / "build", master)
    assert not list((master / "build").iterdir())


def test_every_solution_that_stayed_is_told(content: dict[str, bytes]) -> None:
    solved = {name: (ROOT / name).read_bytes() for name in set(submission_rules.FILES.values())}
    with pytest.raises(HandoutError) as error:
        verify_content(content | solved, OURS, ROOT)
    for name in solved:
        assert f"{name} holds line " in str(error.value)


def test_what_an_edition_gives_is_no_leak(content_of_2024: dict[str, bytes], content: dict[str, bytes]) -> None:
    verify_content(content_of_2024 | {"LICENSE": LINE.encode()}, OF_2024, ROOT)
    with pytest.raises(HandoutError, match=r"LICENSE holds line"):
        verify_content(content | {"LICENSE": LINE.encode()}, OURS, ROOT)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "autograder/handout/regions.py",
            "editions/ours.toml",
            "pretrain/model.py",
            "inference/sampling.py",
            "tests/tiny.py",
        ),
        *("Makefile", "CONTRIBUTING.md", "ASSIGNMENT.md", "notes.txt", ".ci/run", "data/sst-dev.txt"),
        *("advanced/lora.py", "benchmarks/train.py", "notebooks/playground.py", "checkpoints/own/notes/secret.txt"),
    ],
)
def test_files_that_are_not_the_students_are_found(name: str, content: dict[str, bytes], tmp_path: Path) -> None:
    path = pack(tmp_path / "made.zip", content | {name: b""})
    with pytest.raises(
        HandoutError, match=f"^{re.escape(name)} is in the hand-out, and is none of the students' files"
    ):
        verify_handout(path, OURS, ROOT)


@pytest.mark.parametrize("name", ["LICENSE", "README.md", "checkpoints/storybook/model.safetensors"])
def test_files_that_are_missing_are_found(name: str, content: dict[str, bytes]) -> None:
    without = {other: data for other, data in content.items() if other != name}
    with pytest.raises(HandoutError, match=f"^{name} is not in the hand-out, but belongs to it"):
        verify_content(without, OURS, ROOT)


def test_other_weights_are_found(content: dict[str, bytes]) -> None:
    name = "checkpoints/storybook/model.safetensors"
    with pytest.raises(HandoutError, match=f"^{name}: the hand-out has other weights than the master"):
        verify_content(content | {name: content[name][:-1]}, OURS, ROOT)


def test_a_module_that_is_not_handed_out_is_found(master: Path, content: dict[str, bytes]) -> None:
    (master / "more.py").write_text("", "utf-8")
    (master / "llama.py").write_text((ROOT / "llama.py").read_text("utf-8"), "utf-8")
    given = {name: data for name, data in content.items() if not name.startswith("checkpoints/")}
    for statement in ("import torch, more", "from more import this"):
        changed = given | {"alibi.py": b"'''A file.'''\n" + statement.encode()}
        with pytest.raises(HandoutError, match=r"^alibi\.py:2: this needs more\.py, which is not handed out"):
            verify_content(changed, OURS, master)


def test_another_layout_is_found(content: dict[str, bytes], tmp_path: Path) -> None:
    for path in (
        pack(tmp_path / "1.zip", content, folder="min-llama-other"),
        pack(tmp_path / "2.zip", {"../outside.txt": b""}, folder="."),
    ):
        with pytest.raises(HandoutError, match="a hand-out has one folder, min-llama-minllama, with each file once"):
            verify_handout(path, OURS, ROOT)
    twice = tmp_path / "3.zip"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(twice, "w") as packed:
        packed.writestr("min-llama-minllama/LICENSE", "1")
        packed.writestr("min-llama-minllama/LICENSE", "2")
    with pytest.raises(HandoutError, match="min-llama-minllama/LICENSE: a hand-out has one folder"):
        verify_handout(twice, OURS, ROOT)


@pytest.mark.parametrize("data", [b"", b"no zip at all"])
def test_what_is_no_zip_is_an_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "made.zip").write_bytes(data)
    with pytest.raises(HandoutError, match="cannot be read as a zip"):
        verify_handout(tmp_path / "made.zip", OURS, ROOT)


# --- the checks in it ---


def test_what_the_checks_must_say_follows_from_the_open_parts() -> None:
    names = [check.name for check in CHECKS]
    statuses = expected_statuses(["gqa", "zero_shot_head"], names)
    assert list(statuses) == names
    assert {name for name, status in statuses.items() if status == "todo"} == {"GQA", "zero-shot"}
    waiting = {name for name, status in statuses.items() if status == "wait"}
    assert {"hidden states", "model classifier"} <= waiting
    assert statuses["RMSNorm"] == statuses["classifier"] == "ok"
    assert {expected_statuses([], names)[check.name] for check in CHECKS if check.real_weights} == {"skip"}
    assert expected_statuses(["rope"], ["logits", "RMSNorm"]) == {"RMSNorm": "ok", "logits": "todo"}
    everything = expected_statuses(REGIONS, names)
    assert {everything[check.name] for check in CHECKS if not check.needs} == {"todo"}


def report(folder: Path, *lines: str) -> Path:
    """Write a `sanity_check.py` that prints these lines."""
    (folder / "sanity_check.py").write_text(f"print({chr(10).join(lines)!r})\n", "utf-8")
    return folder


def test_checks_that_do_not_fit_the_open_parts_are_found(tmp_path: Path) -> None:
    rope = with_open("rope")
    verify_open(report(tmp_path, "ok      RMSNorm", "todo    RoPE     not implemented yet: rope.py, apply"), rope)
    report(tmp_path, "todo    RMSNorm", "error   RoPE     IndexError (rope.py:3)", "1 of 2 checks pass")
    with pytest.raises(HandoutError) as error:
        verify_open(tmp_path, rope)
    assert str(error.value) == (
        "the checks of the hand-out do not fit its open parts: RMSNorm: todo instead of ok; RoPE: error instead of todo"
    )


def test_an_open_part_without_a_check_is_found(tmp_path: Path) -> None:
    with pytest.raises(HandoutError, match=r"no check of the hand-out is about rope, layer: make sanity_check\.data"):
        verify_open(report(tmp_path, "todo    RMSNorm"), with_open("rope", "rmsnorm", "layer"))


def test_a_program_that_stops_is_told_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "sanity_check.py").write_text("print('error: no data')\nraise SystemExit(2)\n", "utf-8")
    with pytest.raises(HandoutError, match=r"^`python sanity_check\.py` .* ends with status 2: … error: no data$"):
        verify_open(tmp_path, OURS)


def test_a_program_that_does_not_stop_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sanity_check.py").write_text("import time\ntime.sleep(60)\n", "utf-8")
    monkeypatch.setattr(handout_check, "SECONDS", 0.5)
    with pytest.raises(HandoutError, match=r"`python sanity_check\.py` of the hand-out takes more than 0\.5 s"):
        verify_open(tmp_path, OURS)


def test_programs_see_none_of_the_settings_of_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MINLLAMA_ASSETS", "/somewhere")
    (tmp_path / "sanity_check.py").write_text(
        "import os\nprint(sorted(name for name in os.environ if name.startswith(('MIN', 'PYTHON'))))\nimport llama\n",
        "utf-8",
    )
    with pytest.raises(HandoutError, match=r"no report: … \['PYTHONUTF8'\] .* No module named 'llama'$"):
        verify_open(tmp_path, OURS)


# --- where it cannot be written ---


def test_what_cannot_be_written_is_an_error_that_names_it(tmp_path: Path, master: Path) -> None:
    (tmp_path / "build").write_text("a file", "utf-8")
    with pytest.raises(HandoutError, match=r"build/handout-minllama-[0-9a-f]{8}\.zip cannot be written \("):
        make_handout(OURS, tmp_path / "build", master)
    with pytest.raises(HandoutError, match=r"build/start cannot be written \("):
        make_workspace(tmp_path / "build/start", OURS, master)


# --- learning alone ---


def test_a_workspace_has_the_gaps_open_and_its_checks_work(tmp_path: Path) -> None:
    folder = tmp_path / "build/start"
    make_workspace(folder, OURS)  # runs its checks
    content, _ = handout_content(OURS, ROOT)
    made = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert made == content
    assert os.access(folder / "setup.sh", os.X_OK)
    assert list(folder.parent.iterdir()) == [folder]


def test_a_workspace_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "llama.py").write_text("my work", "utf-8")
    for there in (tmp_path, tmp_path / "llama.py"):
        with pytest.raises(HandoutError, match="is there already, and perhaps somebody's work: name another folder"):
            make_workspace(there, OURS)
    assert (tmp_path / "llama.py").read_text("utf-8") == "my work"


def test_an_empty_folder_becomes_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, master: Path) -> None:
    monkeypatch.setattr(handout, "verify_open", lambda *_: None)
    (tmp_path / "start").mkdir()
    make_workspace(tmp_path / "start", OURS, master)
    assert (tmp_path / "start/llama.py").is_file()


def test_a_workspace_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, master: Path) -> None:
    def fail(*_: object) -> None:
        raise HandoutError("the checks do not work")

    monkeypatch.setattr(handout, "verify_open", fail)
    with pytest.raises(HandoutError, match="the checks do not work"):
        make_workspace(tmp_path / "build/start", OURS, master)
    assert list((tmp_path / "build").iterdir()) == []


def test_make_clean_leaves_the_workspace(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("skipped: needs make")
    shutil.copy(ROOT / "Makefile", tmp_path)
    for folder in ("build/start", "build/handout", "__pycache__"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "file").touch()
    for _ in range(2):
        subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", "build/start/file"}
    shutil.rmtree(tmp_path / "build")
    subprocess.run(["make", "-s", "clean"], cwd=tmp_path, check=True)


# --- the commands ---


def test_the_command_says_what_it_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = pack(tmp_path / "handout-nlp244-1a2b3c4d.zip", {"LICENSE": b"", "llama.py": b""})
    monkeypatch.setattr(handout, "make_handout", lambda *_: made)
    assert handout.run_handout(OF_2024, tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"wrote {made}: 2 files, 0.0 MB"
    assert lines[1] == "open: rmsnorm, attention, rope, layer, generate, adamw, embedding_head"
    assert lines[2] == "given: gqa, zero_shot_head"
    assert handout.run_handout(OURS, tmp_path) == 0
    assert "given: none of the parts" in capsys.readouterr().out


def test_the_command_for_one_alone_says_what_to_do_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(handout, "make_workspace", lambda *_: None)
    monkeypatch.setattr(handout, "ROOT", tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    assert handout.run_start(OURS, tmp_path / "build/start") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"wrote {tmp_path / 'build/start'}: 9 parts to write, see its README.md. Next:"
    assert lines[1:4] == [
        f"  cd {tmp_path / 'build/start'}",
        "  source ../../.venv/bin/activate",
        "  python sanity_check.py      # what is still to be written, and where",
    ]


# --- in full ---


@pytest.mark.slow
def test_a_master_that_fails_its_own_checks_is_an_error(
    content: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handout_check, "verify_open", lambda *_: None)  # it is about the step that follows
    root = tmp_path / "master"
    shutil.copytree(ROOT / "checkpoints", root / "checkpoints")
    for name in FILES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    edit(root / "rope.py", "torch.outer(position, theta", "torch.outer(position + 1, theta")
    with pytest.raises(HandoutError, match="own solutions do not pass the checks of the hand-out: RoPE: FAIL; hidden"):
        verify_handout(pack(tmp_path / "made.zip", content), OURS, root)


@pytest.mark.slow
def test_the_hand_out_without_mask_is_verified_with_checks_of_its_own(tmp_path: Path) -> None:
    path = make_handout(OF_2024, tmp_path)
    with zipfile.ZipFile(path) as packed:
        data = packed.read("min-llama-nlp244/sanity_check.data")
    content, version = handout_content(OF_2024, ROOT)
    assert path.name == f"handout-nlp244-{version}.zip"
    assert content["sanity_check.data"] == data
    documents = "".join(content[name].decode("utf-8") for name in ("README.md", "structure.md"))
    (tmp_path / "sanity_check.data").write_bytes(data)
    references = read_references(tmp_path / "sanity_check.data")
    commands = re.findall(r"python sanity_check\.py ([^`\n#]+)`", documents)
    assert len(commands) > 5
    for word in shlex.split(" ".join(commands)):
        assert any(name.startswith(word) for name in references), f"the documents name the check {word}"
    assert {check.name for check in CHECKS if not check.real_weights} - set(references) == {"causal mask"}
    whole = [references[check.name] for check in CHECKS if check.needs and not check.real_weights]
    assert {reference.case.settings["config"]["causal"] for reference in whole} == {False}
    masked = read_references(ROOT / "sanity_check.data")["hidden states"].expected["hidden states"]
    assert not torch.allclose(references["hidden states"].expected["hidden states"], masked)
