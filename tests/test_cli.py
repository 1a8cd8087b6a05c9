"""The command: every subcommand, what it prints, and how it fails."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from softhot import cli
from softhot.studies import Store
from softhot.studies.claims import claimed, tick
from softhot.studies.logs import Log

TINY = """
dataset = "digits"
alphas = [0.0, 0.1]
seeds = 3
train = 100
validation = 60
test = 100
hidden = [8]
epochs = 3
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Commands write below the folder they are called in."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text(TINY)
    np.savez("p.npz", labels=np.array([0, 1, 2, 2]), logits=np.eye(4, 3) * 3)
    np.savez("other.npz", labels=np.array([0, 1, 2]), logits=np.eye(3))


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_a_study_prints_table_verdict_and_report(capsys):
    code, out, err = run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    assert code == 0
    assert "uniform 0.1" in out
    assert "Report: here/report.html" in out
    assert "6 of 6 trials" in err
    page = Path("here/report.html").read_text()
    verdict = json.loads(run(capsys, "report", "here", "--json")[1])["verdict"]
    assert " ".join(verdict["headline"].split()) in " ".join(out.split())
    assert verdict["headline"].split(":")[0] in page


def test_training_options_are_those_of_a_study_file(capsys):
    options = {"hidden": "6,5", "batch-size": "32", "learning-rate": "0.0123456789", "budget": "2"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    arguments = ["study", "wine", "--epochs", "2", "--seeds", "2", *words, "--jobs", "1"]
    assert run(capsys, *arguments, "--out", "here")[0] == 0
    spec = Store.open("here").spec
    assert (spec.hidden, spec.batch_size, spec.learning_rate) == ((6, 5), 32, 0.0123456789)
    assert spec.budgets == {"uniform": 2}
    # The page has the command that makes the run again, to the last digit.
    page = Path("here/report.html").read_text()
    for words in ("--hidden 6,5", "--batch-size 32", "--learning-rate 0.0123456789", "--budget 2"):
        assert words in page
    for bad in (("hidden", "6,x"), ("hidden", "0"), ("batch-size", "0"), ("learning-rate", "2")):
        code, _, err = run(capsys, "study", "wine", f"--{bad[0]}", bad[1])
        assert (code, err.count("\n")) == (2, 1)
        assert bad[0].replace("-", "_") in err


def test_images_of_several_sizes_are_brought_to_one(capsys):
    generator = np.random.default_rng(0)
    for i in range(24):
        picture = generator.integers(0, 99, (8 + i, 9)) + 100 * (i % 2)
        path = Path(f"pictures/{'dark' if i % 2 else 'light'}/{i}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.astype(np.uint8)).save(path)
    arguments = ["study", "pictures", "--model", "cnn", "--epochs", "1", "--seeds", "2"]
    code, _, err = run(capsys, *arguments, "--jobs", "1", "--out", "here")
    assert code == 2
    assert "image_size" in err
    assert run(capsys, *arguments, "--jobs", "1", "--out", "here", "--image-size", "8")[0] == 0
    assert "--image-size 8" in Path("here/report.html").read_text()
    code, _, err = run(capsys, "study", "digits", "--image-size", "8")
    assert (code, err.count("\n")) == (2, 1)


def test_a_finished_study_trains_nothing_again(capsys):
    run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    before = {path: path.stat().st_mtime_ns for path in Path("here/trials").iterdir()}
    page = Path("here/report.html").read_bytes()
    code, _, err = run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    assert code == 0
    assert "trials" not in err
    assert {path: path.stat().st_mtime_ns for path in Path("here/trials").iterdir()} == before
    assert Path("here/report.html").read_bytes() == page


def test_options_change_the_study_and_the_choice(capsys):
    arguments = ["study", "tiny.toml", "--alphas", "0.3,0", "--seeds", "2", "--goal", "accuracy"]
    code, out, _ = run(capsys, *arguments, "--json", "--jobs", "1")
    assert code == 0
    content = json.loads(out)
    assert [arm["alpha"] for arm in content["arms"]] == [0, 0.3]
    assert content["goal"] == "accuracy"
    assert len(content["seeds"]) == 2
    folder = Path(content["report"]).parent
    assert folder.parent == Path("runs")
    assert folder.name.startswith("digits-")


def test_a_damaged_trial_is_named_and_trained_again(capsys):
    run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    record = next(Path("here/trials").glob("*.json"))
    whole = record.read_bytes()
    record.write_bytes(whole[:-9])
    code, _, err = run(capsys, "report", "here")
    assert code == 0
    assert record.stem in err
    code, _, err = run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    assert code == 0
    assert record.stem in err
    assert len(record.read_bytes()) == pytest.approx(len(whole), abs=8)


def test_judge_prints_and_writes(capsys):
    code, out, _ = run(capsys, "judge", "p.npz", "--out", "page.html")
    assert code == 0
    assert "4 rows of 3 classes" in out
    assert "Page: page.html" in out
    assert Path("page.html").read_text().startswith("<!doctype html>")
    code, out, _ = run(capsys, "judge", "p.npz", "--json")
    assert code == 0
    assert json.loads(out)["scores"]["accuracy"] == 0.75


def test_judge_prints_the_forecast_and_compares_models(capsys):
    np.savez("q.npz", labels=np.array([0, 1, 2, 2]), logits=np.eye(4, 3) * 9)
    code, out, _ = run(capsys, "judge", "p.npz", "q.npz", "--out", "page.html")
    assert code == 0
    assert out.count("Forecast of smoothing") == 2
    assert "Difference to p on the same rows" in out
    assert "Against p, q: " in " ".join(out.split())
    assert "Against p, q" in Path("page.html").read_text()
    content = json.loads(run(capsys, "judge", "p.npz", "q.npz", "--json")[1])
    assert list(content["models"]) == ["p", "q"]
    assert content["differences"]["q"]["nll"]["low"] <= content["differences"]["q"]["nll"]["value"]
    Path("other").mkdir()
    Path("p.npz").rename("other/q.npz")
    assert "other/q.npz" in run(capsys, "judge", "q.npz", "other/q.npz")[1]


def test_explain_says_which_kernels_run(capsys, monkeypatch):
    from softhot.kernels import native

    monkeypatch.setattr(native, "library", native.library.__wrapped__)
    monkeypatch.setattr("softhot.kernels.library", native.library)
    monkeypatch.setenv("SOFTHOT_NATIVE", "0")
    code, out, _ = run(capsys, "explain", "--kernels")
    assert code == 0
    assert "native: not used here: switched off by SOFTHOT_NATIVE=0" in out
    assert set(json.loads(run(capsys, "explain", "--kernels", "--json")[1])) == {
        *("triton", "native", "chunked", "compiled", "core")
    }


def test_explain_prints_the_paper_s_numbers(capsys):
    code, out, _ = run(capsys, "explain", "--alpha", "0.1", "--classes", "10")
    assert code == 0
    for number in ("0.91", "0.01", "4.51086", "0.500288", "0.111111"):
        assert number in out
    content = json.loads(run(capsys, "explain", "--rule", "others", "--json")[1])
    assert content["on"] == pytest.approx(0.9)
    assert content["off"] == pytest.approx(0.1 / 9)
    assert {row["convention"] for row in content["conventions"]} >= {"uniform", "others", "kept"}


BAD = [
    (["explain", "--alpha", "1.5"], ["alpha", "[0, 1)", "1.5"]),
    (["explain", "--alpha", "nan"], ["alpha", "nan"]),
    (["explain", "--classes", "1"], ["num_classes", "1"]),
    (["explain", "--rule", "unifrom"], ["rule", "uniform"]),
    (["study", "digts"], ["dataset", "digts", "digits"]),
    (["study", "absent.toml"], ["absent.toml"]),
    (["study", "tiny.toml", "--alphas", "0,1.5"], ["alphas", "1.5"]),
    (["study", "tiny.toml", "--alphas", "a,b"], ["alphas", "a,b", "--alphas"]),
    (["study", "tiny.toml", "--seeds", "0"], ["seeds", "0"]),
    (["study", "tiny.toml", "--jobs", "0"], ["jobs", "0"]),
    (["study", "tiny.toml", "--goal", "nil"], ["goal", "nil", "ranking"]),
    (["study", "tiny.toml", "--out", "p.npz"], ["p.npz"]),
    (["report", "."], ["study.toml"]),
    (["report", "absent"], ["absent"]),
    (["judge", "absent.npz"], ["absent.npz"]),
    (["reproduce", "--out", "no/such/claims.json"], ["out", "no/such"]),
    (["judge", "tiny.toml"], [".npz", ".toml"]),
    (["judge", "p.npz", "--out", "no/such/page.html"], ["page.html"]),
    (["juge", "p.npz"], ["juge", "judge"]),
    (["judge"], ["files", "at least one"]),
    (["judge", "p.npz", "p.npz"], ["files", "different"]),
    (["judge", "p.npz", "other.npz"], ["other", "beside p", "3 rows"]),
    (["study", "--sedes", "3"], ["sedes"]),
    (["study", "wine", "--model", "lstm"], ["model", "tabular", "It takes texts"]),
    (["study", "wine", "--label-noise", "1.5"], ["label_noise", "[0, 1)", "1.5", "a share"]),
    (["study", "wine", "--mlflow", ""], ["mlflow", "file:mlruns"]),
    (["study", "wine", "--seeds", "1.5"], ["seeds", "1.5", "integer"]),
    (["study", "x" * 300], ["dataset", "digits"]),
    (["study", "wine", "--out", "x" * 300], ["too long"]),
    (["study", "wine", "--executor", "dask://127.0.0.1:1"], ["executor", "refused"]),
    (["study", "wine", "--executor", "slurm://nowhere"], ["executor", "srun"]),
    (["study", "wine", "--model", "cnn", "--mlflow", "file:here"], ["model", "tabular"]),
    (["study", "wine", "--subset", "1", "--mlflow", "file:here"], ["subset", "every class"]),
]


@pytest.mark.parametrize(("arguments", "parts"), BAD, ids=lambda part: " ".join(part))
def test_bad_input_is_one_line_exit_code_2_and_writes_nothing(capsys, arguments, parts):
    before = set(Path().rglob("*"))
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    for part in parts:
        assert part.lower() in err.lower()
    assert set(Path().rglob("*")) == before


def test_a_task_file_that_always_raises_gives_failed_trials_and_exit_code_1(capsys):
    Path("mine.py").write_text("def train(trial):\n    raise ValueError('mine\\nof two lines')\n")
    words = ["study", "tiny.toml", "--model", "mine.py", "--out", "here", "--jobs", "1"]
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert "failed: none, seed 0: ValueError: mine of two lines\n" in err
    assert err.count("failed: ") == 6
    assert "nothing is compared" in err.splitlines()[-1]
    code, out, _ = run(capsys, "status", "here")
    assert code == 1
    assert out.count("ValueError: mine of two lines") == 6
    code, _, err = run(capsys, *words, "--mlflow", "file:mine")
    assert code == 1
    assert "nothing is compared" in err


def test_a_search_is_logged_to_mlflow_with_what_it_found(capsys):
    words = "study wine --search optuna --budget 2 --seeds 1 --epochs 1 --jobs 1 --out here"
    assert run(capsys, *words.split(), "--mlflow", "file:found")[0] == 0
    assert list(Path("found").rglob("comparison.json"))


def test_a_folder_of_another_study_is_refused(capsys):
    run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    before = {path: path.read_bytes() for path in Path("here").rglob("*") if path.is_file()}
    code, _, err = run(capsys, "study", "tiny.toml", "--seeds", "2", "--out", "here")
    assert code == 2
    assert "seeds = 3 there, 2 here" in err
    assert {p: p.read_bytes() for p in Path("here").rglob("*") if p.is_file()} == before


def test_a_run_grows_by_seeds(capsys):
    run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    before = {path: path.stat().st_mtime_ns for path in Path("here/trials").iterdir()}
    code, _, err = run(capsys, "study", "tiny.toml", "--seeds", "4", "--out", "here", "--jobs", "1")
    assert code == 0
    assert "8 of 8 trials" in err
    after = {path: path.stat().st_mtime_ns for path in Path("here/trials").iterdir()}
    assert before.items() <= after.items()
    assert len(after) == 16


def test_a_trial_that_failed_elsewhere_is_a_row_of_the_report(capsys):
    run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    last = Store.open("here").spec.trials()[-1]
    Path(f"here/trials/{last.key}.json").unlink()
    Log(Path("here"), last.key).failed(ValueError("a <b>\nof two lines"))
    assert run(capsys, "report", "here")[0] == 0
    html = Path("here/report.html").read_text()
    assert "1 trial failed and is missing here" in html
    assert "Trials that failed" in html
    assert "ValueError: a &lt;b&gt; of two lines" in html


def test_status_tells_what_is_finished_failed_damaged_and_running(capsys):
    code, _, err = run(capsys, "status", "here")
    assert code == 2
    assert "the folder of a run" in err
    run(capsys, "study", "tiny.toml", "--out", "here", "--jobs", "1")
    code, out, _ = run(capsys, "status", "here")
    assert code == 0
    assert "6 of 6 trials finished" in out
    assert "leads: NLL after scaling" in out
    first, second, third, *_ = trials = Store.open("here").spec.trials()
    for trial in (first, second, third):
        Path(f"here/trials/{trial.key}.json").unlink()
    Path(f"here/trials/{trials[3].key}.npz").write_bytes(b"rot")
    Log(Path("here"), first.key).failed(ValueError("by\nhand"))
    with claimed(Path("here"), second.key, "the second"):
        tick(2, 3)
        code, out, _ = run(capsys, "status", "here")
        content = json.loads(run(capsys, "status", "here", "--json")[1])
    assert code == 1
    assert "2 of 6 trials finished" in out
    assert f"ValueError: by hand (logs/{first.key}.log)" in " ".join(out.split())
    assert f"{trials[3].key}.npz" in out
    assert "the second" in out
    assert f"process {os.getpid()}" in out
    assert (content["finished"], content["total"], content["running"][0]["key"]) == (
        2,
        6,
        second.key,
    )
    assert content["failed"] == [{"trial": "none, seed 0", "error": "ValueError: by hand"}]
    assert content["seconds_left"] > 0
    _, out, _ = run(capsys, "status", "here")
    assert "Nobody trains it now" in out


def test_data_sets_are_listed_and_an_unknown_one_is_not_fetched(capsys):
    code, out, _ = run(capsys, "datasets")
    assert code == 0
    assert all(name in out for name in ("digits", "fashion_mnist", "movie_snippets", "CC BY 4.0"))
    assert json.loads(run(capsys, "datasets", "--json")[1])["wine"]["here"] is True
    code, _, err = run(capsys, "datasets", "--fetch", "winne")
    assert code == 2
    assert "Did you mean 'wine'?" in err


def test_a_study_is_logged_to_mlflow(capsys):
    arguments = ["study", "tiny.toml", "--out", "here", "--jobs", "1", "--mlflow", "file:mlruns"]
    assert run(capsys, *arguments)[0] == 0
    assert list(Path("mlruns").rglob("comparison.json"))
    assert list(Path("mlruns").rglob("report.html"))
    code, _, err = run(capsys, *arguments[:-1], "gopher://here")
    assert code == 2
    assert err.count("\n") == 1


def test_what_the_system_refuses_or_lacks_is_one_line(capsys, monkeypatch):
    errors = {
        "here/study.toml: Permission denied": PermissionError(
            13, "Permission denied", "here/study.toml"
        ),
        "No space left": OSError("No space left"),
        "Memory ran out. 8 GiB": MemoryError("8 GiB"),
        "altair is missing: pip install 'softhot[study]'": ModuleNotFoundError("no", name="altair"),
    }
    for words, error in errors.items():

        def refuse(_, error=error):
            raise error

        monkeypatch.setattr(importlib.import_module("softhot.studies.status"), "status", refuse)
        code, out, err = run(capsys, "status", "here")
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


def test_the_core_alone_says_what_the_command_lacks():
    """In a process of its own: here everything is loaded."""
    code = "import sys; sys.modules['cyclopts'] = None; from softhot.cli import main; exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cyclopts is missing: pip install 'softhot[study]'" in done.stderr


def in_a_process(*arguments, **options):
    """The command in a process of its own, with its standard output as given."""
    command = [sys.executable, "-m", "softhot.cli", *arguments]
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **options)


@pytest.mark.parametrize("command", [["explain"], ["datasets", "--json"], ["judge", "--help"]])
def test_a_pipe_that_nobody_reads_is_no_error(command):
    reader, writer = os.pipe()
    os.close(reader)
    done = in_a_process(*command, stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_what_a_terminal_cannot_show_ends_no_command():
    done = in_a_process(
        "explain", stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2013" in done.stdout  # the dash of a convention that has no exact equivalent


def test_an_interrupt_that_somebody_swallowed_may_be_repeated(capsys, monkeypatch):
    monkeypatch.setattr(cli, "PATIENCE", 0.05)
    before, caught = signal.getsignal(signal.SIGINT), []

    def deaf(_):
        for pause in (0, 0.1):
            time.sleep(pause)
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                signal.raise_signal(signal.SIGINT)  # at once: changes nothing
                caught.append(pause)
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("softhot.studies.status"), "status", deaf)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background: ignored
        code, _, err = run(capsys, "status", "here")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (code, caught, err.count("\n")) == (130, [0, 0.1], 1)


def test_help_shows_an_example_of_every_command(capsys):
    for command in ("study", "report", "status", "judge", "explain", "datasets"):
        code, out, _ = run(capsys, command, "--help")
        assert code == 0
        assert f"Example: softhot {command}" in " ".join(out.split())


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_interrupted_twice_it_says_so_and_the_same_command_continues(capsys, jobs):
    Path("slow.toml").write_text(TINY.replace("epochs = 3", "epochs = 60"))
    command = [sys.executable, "-m", "softhot.cli", "study", "slow.toml", "--out", "here"]
    options = {"stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen([*command, "--jobs", jobs], **options) as process:
        deadline = time.monotonic() + 120
        while not list(Path("here/trials").glob("*.json")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(2):  # as a terminal does, to all of its processes
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.05)
        _, err = process.communicate(timeout=60)
    finished = set(Path("here/trials").glob("*.json"))
    if process.returncode == 0:  # it was faster than the signal
        assert len(finished) == 6
        return
    assert process.returncode == 130
    assert "the same command continues" in err
    assert "Traceback" not in err
    assert finished
    assert not list(Path("here/claims").iterdir())
    code, _, _ = run(capsys, "study", "slow.toml", "--out", "here", "--jobs", "1")
    assert code == 0
    assert set(Path("here/trials").glob("*.json")) >= finished
