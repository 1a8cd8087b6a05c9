"""The tables of docs/parity.md: lines of code of every framework, and what they compute."""

from __future__ import annotations

from dataclasses import dataclass

BACKENDS = {"tensorflow": "TensorFlow", "jax": "JAX", "torch": "PyTorch"}
IDS, BINARY = "y, Uniform(0.1)", "b, Bernoulli(0.1)"


@dataclass(frozen=True)
class Pair:
    """Two lines of code, and what each of them computes.

    Attributes:
        theirs: an expression of ``z``, or words in brackets where a framework has none.
        ours: the same for softhot.
        named: labels, rule and options for :func:`softhot.cross_entropy_and_gradient`; or words in
            brackets where nothing in softhot gives this number.
        differs: what ours is, where that is something else.
    """

    theirs: str
    ours: str
    named: str
    differs: str = ""


@dataclass(frozen=True)
class Table:
    """Pairs of one framework, and how near to the reference they come."""

    title: str
    packages: tuple[str, ...]
    pairs: tuple[Pair, ...]
    bound: float = 1e-12
    note: str = ""


CLASS = "y, Uniform(0.1), weight=w, weighting='class'"
TORCH = Table(
    "PyTorch",
    ("torch",),
    (
        Pair("F.cross_entropy(z, y)", "st.cross_entropy(z, y)", "y, Uniform(0.0)"),
        Pair(
            "F.cross_entropy(z, y, label_smoothing=0.1)",
            "st.cross_entropy(z, y, label_smoothing=0.1)",
            IDS,
        ),
        Pair(
            "F.cross_entropy(z, q, label_smoothing=0.1)",
            "st.cross_entropy(z, q, label_smoothing=0.1)",
            "q, Uniform(0.1)",
        ),
        Pair("F.cross_entropy(z, y, w)", "st.cross_entropy(z, y, weight=w)", "y, HARD, weight=w"),
        Pair(
            "F.cross_entropy(z, y, w, label_smoothing=0.1)",
            "st.cross_entropy(z, y, weight=w, weighting='class', label_smoothing=0.1)",
            CLASS,
        ),
        Pair(
            "F.cross_entropy(z, y, w, label_smoothing=0.1)",
            "st.cross_entropy(z, y, weight=w, label_smoothing=0.1)",
            CLASS,
            "y, Uniform(0.1), weight=w",
        ),
        Pair(
            "F.cross_entropy(z, q, w)",
            "st.cross_entropy(z, q, weight=w)",
            "(weighted, but divided by N)",
            "q, HARD, weight=w",
        ),
        Pair(
            "F.cross_entropy(z, y, ignore_index=1, label_smoothing=0.1)",
            "st.cross_entropy(z, y, ignore_index=1, label_smoothing=0.1)",
            "y, Uniform(0.1), ignore_index=1",
        ),
        Pair(
            "F.cross_entropy(z, gone, label_smoothing=0.1)",
            "st.cross_entropy(z, gone, label_smoothing=0.1)",
            "(0 / 0)",
            "gone, Uniform(0.1), ignore_index=-100",
        ),
        Pair(
            "F.binary_cross_entropy_with_logits(z, b)",
            "st.binary_cross_entropy_with_logits(z, b)",
            "b, Bernoulli(0.0)",
        ),
        Pair(
            "F.binary_cross_entropy_with_logits(z, 0.9 * b + 0.05)",
            "st.binary_cross_entropy_with_logits(z, b, label_smoothing=0.1)",
            BINARY,
        ),
        Pair(
            "F.binary_cross_entropy_with_logits(z, b, pos_weight=pw)",
            "st.binary_cross_entropy_with_logits(z, b, pos_weight=pw)",
            "b, Bernoulli(0.0), pos_weight=pw",
        ),
    ),
)
TIMM = Table(
    "timm and fastai",
    ("torch",),
    (
        Pair("timm(z, y, 0.1)", "st.cross_entropy(z, y, label_smoothing=0.1)", IDS),
        Pair("fastai(z, y, 0.1)", "st.cross_entropy(z, y, label_smoothing=0.1)", IDS),
        Pair(
            "fastai(z, y, 0.1, w)",
            "st.cross_entropy(z, y, weight=w, label_smoothing=0.1)",
            "(weights in the hard part only)",
            "y, Uniform(0.1), weight=w",
        ),
    ),
    note="Their formulas, written anew here; [timm and fastai](timm-fastai.md) says what the "
    "libraries themselves did.",
)
HUGGING_FACE = Table(
    "Hugging Face",
    ("transformers", "torch"),
    (
        Pair(
            "LabelSmoother(0.1)({'logits': z}, y)",
            "SmoothLoss(0.1)({'logits': z}, y)",
            IDS,
        ),
        Pair(
            "trainer(label_smoothing_factor=0.1)(z, y)",
            "trainer(compute_loss_func=SmoothLoss(0.1))(z, y)",
            IDS,
        ),
        Pair(
            "trainer(label_smoothing_factor=0.1)(z, y, num_items_in_batch=8)",
            "trainer(compute_loss_func=SmoothLoss(0.1))(z, y, num_items_in_batch=8)",
            "y, Uniform(0.1), of=8",
        ),
        Pair(
            "LabelSmoother(0.1)({'logits': z}, gone)",
            "SmoothLoss(0.1)({'logits': z}, gone)",
            "(0 / 0)",
            "gone, Uniform(0.1), ignore_index=-100",
        ),
    ),
    bound=1e-6,
    note="`trainer(...)` is `Trainer(...).compute_loss` of a model whose logits are `z`. By "
    "`num_items_in_batch`, the number of labels in all the micro-batches of a step, the sum over "
    "the rows is divided.",
)
OPTAX = Table(
    "JAX",
    ("optax", "jax"),
    (
        Pair(
            "optax.softmax_cross_entropy_with_integer_labels(z, y).mean()",
            "sj.cross_entropy(z, y, Uniform(0.0)).mean()",
            "y, Uniform(0.0)",
        ),
        Pair(
            "optax.softmax_cross_entropy(z, optax.smooth_labels(one_hot, 0.1)).mean()",
            "sj.cross_entropy(z, y, Uniform(0.1)).mean()",
            IDS,
        ),
        Pair(
            "optax.softmax_cross_entropy(z, optax.smooth_labels(q, 0.1)).mean()",
            "sj.cross_entropy(z, q, Uniform(0.1)).mean()",
            "q, Uniform(0.1)",
        ),
        Pair(
            "(nothing to ignore)",
            "sj.cross_entropy(z, y, Uniform(0.1), ignore_index=1, reduction='mean')",
            "y, Uniform(0.1), ignore_index=1",
        ),
        Pair(
            "optax.sigmoid_binary_cross_entropy(z, optax.smooth_labels(both, 0.1)[..., 1]).mean()",
            "sj.binary_cross_entropy(z, b, Bernoulli(0.1)).mean()",
            BINARY,
        ),
    ),
    note="`one_hot` are the rows of `y`, and `both` the labels `b` as pairs of off and on.",
)
SKLEARN = Table(
    "scikit-learn",
    ("scikit-learn",),
    (
        Pair("log_loss(y, softmax(z))", "expanded(z, y, 0.0)", "y, Uniform(0.0)"),
        Pair("(no smoothing, no soft labels)", "expanded(z, y, 0.1)", IDS),
        Pair("(no smoothing, no soft labels)", "expanded(z, q, 0.1)", "q, Uniform(0.1)"),
    ),
    note="`expanded` is `log_loss` of the rows, classes and sample weights that "
    "`softhot.sklearn.expand_soft_targets` makes, which `LabelSmoothingClassifier` fits to. "
    "scikit-learn hands out no gradient.",
)


def keras_table(backend: str, sparse_smooths: bool) -> Table:
    """One API for all backends. Keras smooths, and on PyTorch takes the mean, in float32."""
    pairs = []
    for name, labels, options, named in (
        ("SparseCategoricalCrossentropy", "y", "", "y, Uniform(0.0)"),
        ("SparseCategoricalCrossentropy", "y", ", label_smoothing=0.1", IDS),
        ("SparseCategoricalCrossentropy", "y", ", ignore_class=1", "y, HARD, ignore_index=1"),
        ("SparseCategoricalCrossentropy", "gone", ", ignore_class=-100", "gone, HARD, "),
        ("CategoricalCrossentropy", "one_hot", ", label_smoothing=0.1", IDS),
        ("CategoricalCrossentropy", "q", ", label_smoothing=0.1", "q, Uniform(0.1)"),
        ("BinaryCrossentropy", "b", ", label_smoothing=0.1", BINARY),
    ):
        call = f"{name}(True{options})({labels}, z)"
        known = sparse_smooths or not (labels == "y" and "smoothing" in options)
        named += "ignore_index=-100" if labels == "gone" else ""
        pairs.append(Pair(f"kl.{call}" if known else "(no such argument)", f"sk.{call}", named))
    for call, named in (
        ("CategoricalCrossentropy(label_smoothing=0.1)(one_hot, ops.softmax(z))", IDS),
        ("CategoricalCrossentropy(True, 0.1)(one_hot, z, weights)", "y, Uniform(0.1), by=w[y] / 4"),
    ):
        pairs.append(Pair(f"kl.{call}", f"sk.{call}", named))
    note = (
        "`kl` is `keras.losses`, `sk` is `softhot.keras`, `True` is `from_logits`; "
        "`weights` are `w[y]`. All in float64."
    )
    return Table(f"Keras on {BACKENDS[backend]}", ("keras", backend), tuple(pairs), 1e-6, note)
