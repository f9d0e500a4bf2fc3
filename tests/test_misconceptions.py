"""The misconceptions: each is caught and named, no two look alike, and sanity_check.data is what the master gives."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import checking
import llama
import rope
from autograder.__main__ import main
from autograder.checks import sanity_data
from autograder.misconceptions import MISCONCEPTIONS, Misconception, applied
from checking import Reference
from component_checks import CHECKS, Outputs, run_call
from config import LlamaConfig
from submission_rules import FILES
from tests.assets_dir import require_asset

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def committed() -> dict[str, Reference]:
    return checking.read_references(ROOT / "sanity_check.data")


@pytest.fixture(scope="module")
def made() -> dict[str, Reference]:
    """Return what the master gives now, less the real weights."""
    return sanity_data.build(None)


@pytest.mark.parametrize("misconception", MISCONCEPTIONS, ids=lambda misconception: misconception.name)
def test_misconception_is_named(misconception: Misconception, committed: dict[str, Reference], tmp_path: Path) -> None:
    named = []
    with applied(misconception):
        for check in CHECKS:
            if check.regions == (misconception.region,):
                outcome = checking.run_check(check, committed[check.name], tmp_path)
                if outcome.status != checking.OK:
                    assert outcome.status == checking.FAIL
                    assert misconception.sentence in outcome.details[-1]
                    named.append(outcome.details[-1])
    assert f"this equals {misconception.sentence}" in named  # somewhere it is the only one


def test_misconception_stops_what_builds_on_its_component(
    committed: dict[str, Reference], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    halves = next(entry for entry in MISCONCEPTIONS if entry.name == "rope.halves")
    with applied(halves):
        outcomes = {check.name: outcome for check, outcome in checking.run_checks(list(committed), committed, tmp_path)}
    failed = [name for name, outcome in outcomes.items() if outcome.status == checking.FAIL]
    waiting = {name: outcome.note for name, outcome in outcomes.items() if outcome.status == checking.WAIT}
    assert failed == ["RoPE"]
    assert waiting == {check.name: "mend RoPE first" for check in CHECKS if check.needs}


@pytest.mark.parametrize("region", FILES)
def test_no_two_misconceptions_of_a_region_look_alike(region: str, made: dict[str, Reference]) -> None:
    alike = {pair: far for pair, far in sanity_data.separations(made, region).items() if far < 1.0}
    assert not alike


def test_two_that_look_alike_are_noticed(made: dict[str, Reference]) -> None:
    one, two, *_ = made["RMSNorm"].misconceptions
    alike = made["RMSNorm"].misconceptions | {two: made["RMSNorm"].misconceptions[one]}
    assert (
        sanity_data.separations({"RMSNorm": replace(made["RMSNorm"], misconceptions=alike)}, "rmsnorm")[one, two] == 0
    )


def test_data_is_what_the_master_gives(made: dict[str, Reference], committed: dict[str, Reference]) -> None:
    assert list(made) == [check.name for check in CHECKS if check.real_weights is None]
    for name, reference in made.items():
        assert_same(reference, committed[name])


def assert_same(made: Reference, committed: Reference) -> None:
    again = "sanity_check.data is not what the master gives: run python -m autograder sanity-data"
    assert made.case.settings == committed.case.settings, again
    for one, other in ((made.case.inputs, committed.case.inputs), (made.case.weights, committed.case.weights)):
        assert one.keys() == other.keys(), again
        assert all(torch.equal(one[key], other[key]) for key in one), again
    assert made.tolerances == committed.tolerances, again
    assert checking.distance(made.expected, committed.expected, made.tolerances) < 0.1, again
    assert made.misconceptions.keys() == committed.misconceptions.keys(), again
    for sentence, outputs in made.misconceptions.items():
        assert checking.distance(outputs, committed.misconceptions[sentence], made.tolerances) < 1.0, again


def test_data_of_real_weights_is_what_the_master_gives(tmp_path: Path, committed: dict[str, Reference]) -> None:
    folder = tmp_path / "stories260K"
    folder.mkdir()
    for name in ("stories260K.bin", "tok512.bin"):
        shutil.copy(require_asset(name), folder)
    for check in CHECKS:
        if check.real_weights is not None:
            assert_same(sanity_data._real_reference(check, tmp_path / check.real_weights), committed[check.name])
    reference = committed["stories260K text"]
    model = llama.load_pretrained(folder / "stories260K.bin")
    assert smallest_margin(model, reference.expected["ids"], reference.case.settings["max_new_tokens"]) > 1e-3


def test_greedy_ids_are_the_same_on_every_machine(committed: dict[str, Reference]) -> None:
    reference = committed["model generation"]
    model = llama.Llama(LlamaConfig(**reference.case.settings["config"])).eval()
    model.load_state_dict(reference.case.weights)
    new = reference.case.settings["generate"]["max_new_tokens"]
    assert smallest_margin(model, reference.expected["ids"], new) > 1e-3


@torch.inference_mode()
def smallest_margin(model: llama.Llama, ids: torch.Tensor, new: int) -> float:
    """Return by how much the likeliest token leads, at the closest of the last `new` steps."""
    leads = []
    for end in range(ids.shape[1] - new, ids.shape[1]):
        logits, _ = model(ids[:, max(0, end - model.params.max_seq_len) : end])
        first, second = logits[:, -1].topk(2).values.unbind(-1)
        leads.append(float((first - second).min()))
    return min(leads)


def test_there_are_misconceptions_of_every_region() -> None:
    count = Counter(entry.region for entry in MISCONCEPTIONS)
    assert count.keys() == FILES.keys()
    assert min(count.values()) >= 5
    assert len({entry.name for entry in MISCONCEPTIONS}) == len(MISCONCEPTIONS)
    assert len({entry.sentence for entry in MISCONCEPTIONS}) == len(MISCONCEPTIONS)


def test_applied_puts_the_right_code_back() -> None:
    right = rope.apply_rotary_emb
    halves = next(entry for entry in MISCONCEPTIONS if entry.name == "rope.halves")
    with pytest.raises(KeyError), applied(halves):
        assert vars(llama)["apply_rotary_emb"] is rope.apply_rotary_emb is not right
        raise KeyError
    assert vars(llama)["apply_rotary_emb"] is rope.apply_rotary_emb is right


def test_random_checks_hold_for_other_random_numbers(
    committed: dict[str, Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = torch.manual_seed
    for other in range(20):
        monkeypatch.setattr(torch, "manual_seed", lambda _, other=other: seed(100 + other))
        for check in CHECKS:
            if check.name in sanity_data.RANDOM:
                reference = committed[check.name]
                outputs: Outputs = run_call(check, reference.case)
                assert checking.distance(outputs, reference.expected, reference.tolerances) < 0.9


# --- the command ---


def test_command_writes_the_same_file_twice(tmp_path: Path, made: dict[str, Reference]) -> None:
    sanity_data.write(tmp_path / "one.data", made)
    sanity_data.write(tmp_path / "two.data", made)
    assert (tmp_path / "one.data").read_bytes() == (tmp_path / "two.data").read_bytes()
    assert checking.read_references(tmp_path / "one.data").keys() == made.keys()


def test_command_makes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: dict[str, Reference], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanity_data, "build", lambda weights: made)
    assert main(["sanity-data", "-o", str(tmp_path / "new.data")]) == 0
    assert capsys.readouterr().out.startswith(f"wrote {tmp_path / 'new.data'}: {len(made)} checks, ")
    assert checking.read_references(tmp_path / "new.data").keys() == made.keys()


def test_table_names_the_nearest_output_and_writes_nothing(
    monkeypatch: pytest.MonkeyPatch, made: dict[str, Reference], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanity_data, "build", lambda weights: made if weights is None else pytest.fail("weights"))
    monkeypatch.setattr(sanity_data, "write", lambda *_: pytest.fail("written"))
    assert main(["sanity-data", "--table"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("RMSNorm: 15 outputs, ")
    assert lines[1].endswith("  expected  <->  RMSNorm that divides the sum of the squares by dim - 1")
    assert "zero_shot_head: " in lines[-1]


def test_missing_real_weights_are_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sanity_data, "CHECKS", [check for check in CHECKS if check.real_weights is not None])
    assert main(["sanity-data", "--weights", str(tmp_path), "-o", str(tmp_path / "new.data")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(
        f"error: {tmp_path / 'stories260K/stories260K.bin'} does not exist: fetch it with ./setup.sh"
    )
    assert not (tmp_path / "new.data").exists()


def test_a_command_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "VERB" in capsys.readouterr().err
