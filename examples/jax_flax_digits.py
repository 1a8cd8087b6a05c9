"""Label smoothing in JAX with Flax and optax: scikit-learn's digits, with and without.

    python examples/jax_flax_digits.py

The loss is one line, in ``train_step``. Whether smoothing helped is read from the *plain* loss on
held-out data: the smoothed one has a floor of its own and must not be compared across alphas.
"""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import softhot
from softhot.jax import cross_entropy

HARD = softhot.Uniform(0.0)


class Network(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(64, 64, rngs=rngs)
        self.head = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.head(nnx.relu(self.hidden(x)))


@partial(nnx.jit, static_argnames="rule")
def train_step(model, optimizer, x, y, rule):
    def loss_fn(model):
        return cross_entropy(model(x), y, rule).mean()

    loss, gradients = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def evaluate(model, x, y):
    logits = model(x)
    return {
        "nll": cross_entropy(logits, y, HARD).mean(),
        "accuracy": (logits.argmax(-1) == y).mean(),
        "confidence": jax.nn.softmax(logits).max(-1).mean(),
    }


def fit(rule, data, epochs, batch_size=64, seed=0):
    x, x_test, y, y_test = data
    model = Network(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    for epoch in range(epochs):
        order = jax.random.permutation(jax.random.key(seed + epoch), len(x))
        for rows in order[: len(x) // batch_size * batch_size].reshape(-1, batch_size):
            train_step(model, optimizer, x[rows], y[rows], rule)
    return {name: float(value) for name, value in evaluate(model, x_test, y_test).items()}


def main(epochs=30):
    features, labels = load_digits(return_X_y=True)
    data = train_test_split(features / 16, labels, test_size=0.5, random_state=0)
    data = [jnp.asarray(part) for part in data]
    report = {
        "hard": fit(HARD, data, epochs),
        "smoothed": fit(softhot.Uniform(0.1), data, epochs),
    }
    for name, scores in report.items():
        print(f"{name:9s}", "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
    return report


if __name__ == "__main__":
    main()
