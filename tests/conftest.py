"""Hypothesis profiles, and the array libraries every law of the core is held to."""

import os

import pytest
from hypothesis import HealthCheck, settings

from backends import BACKENDS, DOUBLE

# What a crash loses is counted in trials: they train one by one unless a test says otherwise.
os.environ.setdefault("SOFTHOT_REPLICAS", "1")
# Ray's processes would give way to every other one: beside another test, minutes for seconds.
os.environ.setdefault("RAY_worker_niceness", "0")
# Half of what tests of JAX take is compiling, and most of that would make fast what runs once.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

# Not to be imported in search of doctests: the first two choose Triton's interpreter, for a process
# of their own; the third needs mutmut, which `make mutation` installs.
collect_ignore = ["interpreter.py", "triton_checks.py", "mutation.py"]

settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True)
settings.register_profile(
    "fuzz", max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck)
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def _active(request):
    with request.param.active():
        yield request.param


backend = pytest.fixture(_active, params=BACKENDS, ids=str, name="backend")
# JAX compiles every operation anew for every shape, too slow for laws that go through many shapes.
EAGER = [b for b in BACKENDS if b.library != "jax"]
eager = pytest.fixture(_active, params=EAGER, ids=str, name="eager")
double = pytest.fixture(_active, params=DOUBLE, ids=str, name="double")


# Pages of the report, made once for all its tests; what they need is heavy to import.


@pytest.fixture(scope="session")
def comparison():
    from test_plots import study

    return study()[0]


@pytest.fixture(scope="session")
def page():
    from report_pages import study_page

    return study_page()


@pytest.fixture(scope="session")
def hostile():
    from report_pages import judgement_page

    return judgement_page()


@pytest.fixture(scope="session")
def hostile_methods():
    from report_pages import hostile_study

    return hostile_study()


@pytest.fixture
def store(tmp_path):
    """A run with one finished trial."""
    from softhot.studies import Store
    from studies_cases import TINY, fabricate

    first = TINY.trials()[0]
    made = Store.create(tmp_path / "run", TINY)
    made.save(first, fabricate(first))
    return made
