"""What `softhot status` works out from the claims of a run."""

from softhot.studies import claims
from softhot.studies.claims import Running, claimed, running, tick
from softhot.studies.status import _seconds_left


def test_time_left_takes_trials_that_train_together_as_one_process_s_work():
    def group(process, trials):
        return [Running(f"{process}-{i}", "", "here", process, since=90.0) for i in range(trials)]

    # 60 trials of 2 s: one process is 10 s into a group of 30.
    assert _seconds_left(60, 2.0, group(1, 30), now=100.0) == 110
    assert _seconds_left(60, 2.0, group(1, 30) + group(2, 30), now=100.0) == 50
    # One that is late has done no more than there was to do.
    assert _seconds_left(60, 2.0, group(1, 1), now=1000.0) == 118


def test_trials_that_train_together_are_at_the_same_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "EVERY", 0)
    with claimed(tmp_path, "a"), claimed(tmp_path, "b"):
        tick(3, 10)
        assert [(one.key, one.done, one.total) for one in running(tmp_path)] == [
            ("a", 3, 10),
            ("b", 3, 10),
        ]
    tick(4, 10)  # nobody listens
