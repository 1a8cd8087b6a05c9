"""What a run shows while it trains, in a terminal and in a pipe."""

import io

from rich.console import Console

from softhot.report.progress import TrialProgress, duration
from softhot.studies import Progress
from softhot.studies.claims import claimed, tick
from softhot.studies.leader import Best, Leader
from softhot.studies.store import Damage
from studies_cases import TINY

FIRST, SECOND, *_ = TINY.trials()


def drawn(tmp_path, terminal, events):
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=100, color_system=None)
    with (
        TrialProgress(6, tmp_path, quiet=False, console=console) as show,
        claimed(tmp_path, SECOND.key, "uniform [0.1], seed 0"),
    ):
        tick(40, 80)
        for event in events:
            show(event)
    return out.getvalue()


def test_a_terminal_shows_trials_epochs_time_failures_and_the_leader(tmp_path, monkeypatch):
    monkeypatch.setattr("softhot.studies.claims.EVERY", 0)
    best = Best("none", 0.51234, 2)
    events = [Progress(1, 6, FIRST, 0.1), Progress(1, 6, FIRST, 0.1, "ValueError: x", best)]
    text = drawn(tmp_path, True, events)
    assert "2/6 trials" in text
    assert "1 failed, see softhot status" in text
    assert "none leads: NLL after scaling 0.5123 on validation, 2 seeds" in text
    out = io.StringIO()
    progress = TrialProgress(6, tmp_path, False, Console(file=out, force_terminal=True, width=80))
    with claimed(tmp_path, SECOND.key, "uniform [0.1], seed 0"):
        tick(40, 80)
        progress.console.print(progress._drawn())
    assert progress.bar.tasks[0].completed == 0.5
    assert "uniform [0.1], seed 0, epoch 40 of 80" in out.getvalue()


def test_a_pipe_gets_plain_lines(tmp_path):
    best = Best("a name that makes the line longer than a terminal is wide", 0.5, 2)
    events = [Progress(n, 6, FIRST, 0.1, None, best) for n in range(1, 7)]
    text = drawn(tmp_path, False, events)
    assert len(text.splitlines()) == 6
    assert text.startswith("1 of 6 trials, about ")
    assert "\x1b" not in text


def test_the_leader_is_judged_over_seeds_that_all_arms_have(tmp_path):
    from softhot.studies import Store
    from studies_cases import fabricate

    store, leader = Store.create(tmp_path / "run", TINY), Leader()
    assert leader.best is None
    leader.add(None)
    leader.add(Damage("x.json", "rot"))
    for trial in TINY.trials():
        sharp = 6.0 if trial.arm.name == "uniform 0.3" else 1.0
        store.save(trial, fabricate(trial, sharpness=sharp))
        leader.add(store.look(trial))
    assert (leader.best.arm, leader.best.seeds) == ("uniform 0.3", 2)


def test_durations_read_well():
    assert [duration(s) for s in (0.4, 59.6, 61, 3600)] == [
        "0 s",
        "1 min 0 s",
        "1 min 1 s",
        "1 h 0 min",
    ]
