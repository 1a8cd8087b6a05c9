"""Which namespace an array belongs to, and whether it has values, told by stand-ins of frameworks.

The frameworks themselves run in the laws; here it is shown what is asked of them.
"""

import sys
from types import SimpleNamespace

import array_api_strict as strict
import numpy as np
import pytest

from softhot.core import array
from softhot.core.array import (
    KERAS,
    accumulator,
    as_arrays,
    device,
    first_true,
    is_concrete,
    kind,
    like,
    one_hot,
    take_class,
    to_numpy,
    widest,
    widest_integer,
)
from softhot.core.check import InputError


class Tensor:
    """What the stand-in for TensorFlow calls a tensor."""

    def __init__(self, values=(), symbolic=False):
        self.values, self.symbolic = np.asarray(values), symbolic


@pytest.fixture
def tensorflow(monkeypatch):
    calls = []

    def noted(name):
        return lambda *given, **named: calls.append((name, given, named)) or (name, given, named)

    names = ("convert_to_tensor", "cast", "arange", "reshape", "where")
    keras = SimpleNamespace(
        ops=SimpleNamespace(**{name: noted(name) for name in names}),
        backend=SimpleNamespace(
            backend=lambda: "tensorflow", standardize_dtype=lambda dtype: f"{dtype}"
        ),
    )
    module = SimpleNamespace(
        is_tensor=lambda value: isinstance(value, Tensor),
        is_symbolic_tensor=lambda value: value.symbolic,
        reduce_max=noted("reduce_max"),
    )
    monkeypatch.setitem(sys.modules, "keras", keras)
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    return keras


def test_tensors_of_tensorflow_are_keras_s(tensorflow, monkeypatch):
    tensor = Tensor([1.0])
    assert as_arrays("x", tensor) == (tensor, KERAS)
    assert device(tensor) is None
    assert like(KERAS, tensor, tensor) is tensor
    assert like(KERAS, tensor, tensor, "float32") == ("cast", (tensor, "float32"), {})
    name, (values,), named = like(KERAS, tensor, [1.0, 2.0], "float32")
    assert (name, values.tolist(), named) == ("convert_to_tensor", [1, 2], {"dtype": "float32"})
    # Another backend, no tensor, or no Keras: then not.
    tensorflow.backend.backend = lambda: "torch"
    assert not array._is_tensorflow(tensor)
    tensorflow.backend.backend = lambda: "tensorflow"
    assert array._is_tensorflow(tensor)
    assert not array._is_tensorflow(np.ones(2))
    monkeypatch.delitem(sys.modules, "keras")
    assert not array._is_tensorflow(tensor)
    with pytest.raises(AttributeError, match=r"^where$"):
        KERAS.where  # noqa: B018  # the look-up raises


def test_keras_has_other_names_for_some_things(tensorflow, monkeypatch):
    assert KERAS.where(1, 2, 3) == ("where", (1, 2, 3), {})
    assert KERAS.asarray([1], dtype="int32", device="cpu") == (
        "convert_to_tensor",
        ([1],),
        {"dtype": "int32"},
    )
    assert KERAS.asarray([1])[2] == {"dtype": None}
    assert KERAS.astype("a", "float32") == ("cast", ("a", "float32"), {})
    assert KERAS.arange(5, dtype="int32", device="cpu") == ("arange", (5,), {"dtype": "int32"})
    assert KERAS.arange(5)[2] == {"dtype": None}
    assert KERAS.reshape("a", (None, 3, -1)) == ("reshape", ("a", (-1, 3, -1)), {})
    assert KERAS.max("a", axis=-1, keepdims=True) == ("reduce_max", ("a", -1, True), {})
    assert KERAS.max("a") == ("reduce_max", ("a", None, False), {})
    assert (KERAS.inf, KERAS.float64, KERAS.bool) == (np.inf, "float64", "bool")
    kinds = {
        "bool": "bool",
        "int8": "integral",
        "uint64": "integral",
        "complex64": "complex floating",
    }
    for dtype, expected in kinds.items():
        found = [name for name in set(kinds.values()) if KERAS.isdtype(dtype, name)]
        assert found == [expected]
    assert not any(KERAS.isdtype("float32", name) for name in kinds.values())
    ml_dtypes = SimpleNamespace(finfo=lambda dtype: ("finfo", dtype))
    monkeypatch.setitem(sys.modules, "ml_dtypes", ml_dtypes)
    assert KERAS.finfo(SimpleNamespace(as_numpy_dtype="f")) == ("finfo", "f")


def test_symbolic_tensors_have_no_values(tensorflow):
    assert is_concrete(Tensor(), None, np.ones(2))
    assert not is_concrete(None, Tensor(), Tensor(symbolic=True))


@pytest.fixture
def jax(monkeypatch):
    """A stand-in for JAX with arrays and tracers, and the switch for 64 bits."""

    class Array:
        pass

    class Tracer(Array):
        pass

    made = []
    module = SimpleNamespace(
        Array=Array,
        core=SimpleNamespace(Tracer=Tracer),
        config=SimpleNamespace(jax_enable_x64=False),
        numpy=SimpleNamespace(
            zeros=lambda shape: made.append(shape) or (Tracer() if module.tracing else Array()),
            float32="float32",
            float64="float64",
            int32="int32",
            int64="int64",
        ),
        tracing=False,
    )
    monkeypatch.setitem(sys.modules, "jax", module)
    yield module
    assert set(made) <= {()}


def test_under_jit_nothing_has_values(jax, monkeypatch):
    monkeypatch.setattr(array.compat, "is_torch_array", lambda value: False)
    constant, traced = jax.Array(), jax.core.Tracer()
    assert is_concrete(constant)
    assert is_concrete(None, np.ones(2))
    assert not is_concrete(constant, traced)
    jax.tracing = True
    assert not is_concrete(constant)
    assert is_concrete(np.ones(2))  # it does not take part


def test_jax_without_64_bits_is_narrow(jax):
    assert (widest(jax.numpy), widest_integer(jax.numpy)) == ("float32", "int32")
    assert (widest(np), widest_integer(np)) == (np.float64, np.int64)
    jax.config.jax_enable_x64 = True
    assert (widest(jax.numpy), widest_integer(jax.numpy)) == ("float64", "int64")


def test_without_frameworks_everything_is_concrete(monkeypatch):
    for name in ("jax", "tensorflow", "keras"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert is_concrete(np.ones(2), None)
    assert widest(np) is np.float64
    assert as_arrays("x", [1, 2])[1].__name__.endswith("numpy")


def test_what_holds_what():
    xp = as_arrays("x", [1.0])[1]
    kinds = {bool: "bool", np.int8: "integer", np.uint64: "integer", np.complex64: "complex"}
    for dtype, name in {**kinds, np.float16: "real", np.float64: "real"}.items():
        assert kind(xp, np.ones(2, dtype)) == name
    assert accumulator(xp, np.ones(2, np.float16)) == np.float32
    assert accumulator(xp, np.ones(2, np.float32)) == np.float32
    assert accumulator(xp, np.ones(2)) == np.float64


def test_what_is_no_array_is_refused():
    for bad in (["a"], [None], [[1], [1, 2]], np.array(["2020"], "M8"), np.ma.masked_array([1])):
        with pytest.raises(InputError, match=r"^here must be an array"):
            as_arrays("here", bad)
    for fine in (True, 3, 0.5, [1j], np.float32(1), np.arange(3)):
        assert as_arrays("here", fine)[0] == pytest.approx(fine)


def test_like_copies_lists_and_keeps_arrays():
    xp = as_arrays("x", [1.0])[1]
    values = np.arange(3.0)
    assert like(xp, values, values) is values
    assert like(xp, values, values, np.float32).dtype == np.float32
    assert like(xp, values, [1, 2], np.float32).dtype == np.float32
    assert like(xp, values, [1, 2]).tolist() == [1, 2]
    assert to_numpy([[1, 2]]).tolist() == [[1, 2]]
    elsewhere = strict.Device("device1")  # than where the library puts what it makes
    made = like(strict, strict.asarray([1.0], device=elsewhere), [1.0, 2.0])
    assert made.device == elsewhere


def test_rows_and_classes():
    xp = as_arrays("x", [1.0])[1]
    ids = np.array([[0, 2], [1, 1]])
    rows = one_hot(xp, ids, 3, np.float32)
    assert rows.dtype == np.float32
    assert rows.tolist() == np.eye(3)[ids].tolist()
    values = np.arange(12.0).reshape(2, 2, 3)
    assert take_class(xp, values, ids).tolist() == [[0, 5], [7, 10]]
    mask = np.zeros((2, 3), bool)
    mask[1, 2] = mask[1, 1] = True
    assert first_true(xp, mask) == (1, 1)
    assert all(type(i) is int for i in first_true(xp, mask))
