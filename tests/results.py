"""A result of grading that tests of reports start from: one check of every status, and something of everything else."""

from dataclasses import replace

from autograder.editions import Edition
from autograder.result import CheckResult, Finding, Grade, OutputResult, Result

EDITION = Edition.model_validate(
    {
        "name": "minllama",
        "title": "Min-LLaMA: build a small Llama",
        "handout": {"open": ["rope"]},
        "environment": ["torch"],
        "static": {"imports": ["torch"]},
        "checks": {"run": [{"name": "RoPE values", "points": 2.0}]},
        "rubric": dict.fromkeys(("a_plus", "a", "a_minus", "b_plus", "b_or_below", "third_down"), "a sentence"),
    }
)

PASSED = CheckResult("RMSNorm values", "rmsnorm", "pass", 2.0, 2.0, "RMSNorm divides by the root of the mean square")
WRONG = CheckResult(
    "RoPE values",
    "rope",
    "fail",
    0.0,
    2.0,
    "apply_rotary_emb rotates adjacent pairs",
    "the query differs",
    ("called apply_rotary_emb(query, key, head_dim=8)", "largest difference 1.2 at (0, 1, 2, 3): 0.4 instead of 1.6"),
    ("RoPE that rotates halves instead of adjacent pairs",),
)
RAISED = CheckResult(
    "AdamW, one step",
    "adamw",
    "error",
    0.0,
    2.5,
    "one step of AdamW",
    "TypeError: unsupported operand (optimizer.py:44)",
    ("called AdamW.step()", 'Traceback:\n  File "optimizer.py", line 44, in step\n    x = None + 1'),
    output="step 1\nstep 2\n",
)
LOOPED = CheckResult("greedy", "generate", "timeout", 0.0, 2.0, "greedy generation", "it was stopped after 10 seconds")
GREEDY = CheckResult("scores", "attention", "memory", 0.0, 2.0, "the attention scores", "it asked for too much memory")
UNWRITTEN = CheckResult(
    *(
        "classifier",
        "embedding_head",
        "missing",
        0.0,
        2.0,
        "the last token",
        "not implemented yet: classifier.py, forward",
    )
)
WAITING = CheckResult(
    "logits", "layer", "skipped", 0.5, 2.0, "the whole model", "needs RoPE values, which did not pass"
)
NOTED = replace(WRONG, name="odd lengths", points=2.0, is_note=True, misconceptions=())
OURS = CheckResult("zero-shot", "zero_shot_head", "grader_error", 0.0, 2.0, "zero-shot", "KeyError: 'secret/path'")

RESULT = Result(
    submission="abc123",
    submission_sha256="ab" * 32,
    edition="minllama",
    grader="0123456789ab",
    sandbox="bwrap (root, setpriv), memory by cgroup v1",
    seed="5eed5eed5eed5eed",
    checkpoint="stories42M",
    grade=Grade(
        "B or below",
        ("some part is not implemented, or fails its test: rope, adamw",),
        ("optimizer.py:3 uses torch.optim",),
    ),
    points=4.5,
    max_points=16.5,
    checks=(PASSED, WRONG, RAISED, LOOPED, GREEDY, UNWRITTEN, WAITING, NOTED),
    outputs=(
        OutputResult("sst-dev-finetuning-output.txt", True, 0.412, 0.414, 0.05, reaches=True, agreement=0.9982),
        OutputResult("sst-test-finetuning-output.txt", True, 0.2, 0.418, 0.05, reaches=False),
        OutputResult("generated-sentence-temp-0.txt", True, nats=3.4, limit=2.1, reaches=False),
        OutputResult("generated-sentence-temp-1.txt", True, nats=2.0, limit=2.5, reaches=True),
        OutputResult("sst-dev-prompting-output.txt", True, 0.213),
        OutputResult("cfimdb-test-prompting-output.txt", False),
    ),
    findings=(
        Finding("format", "error", "cfimdb-test-prompting-output.txt is missing", "run `python run_llama.py`"),
        Finding("static", "flag", "torch.optim.AdamW is used", "write the update yourself", "optimizer.py", 3),
        Finding("outputs", "warning", "run-info.json is absent"),
        Finding("rerun", "note", "it took 41 seconds", file="run_llama.py"),
    ),
)
