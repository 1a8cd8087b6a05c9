"""A study of your own model: Keras 3, on any backend.

KERAS_BACKEND=torch softhot study wine --model examples/study_keras.py --seeds 5
"""

import keras


def train(trial):
    keras.utils.set_random_seed(trial.seed)
    layers = [
        keras.layers.Normalization(),
        keras.layers.Dense(32, activation="relu"),
        keras.layers.Dense(len(trial.classes)),
    ]
    layers[0].adapt(trial.train.features)
    model = keras.Sequential([keras.Input(trial.train.features.shape[1:]), *layers])
    model.compile(keras.optimizers.Adam(trial.learning_rate), loss=trial.loss("keras"))
    model.fit(
        trial.train.features, trial.train.labels, epochs=trial.epochs, batch_size=trial.batch_size,
        verbose=0,
    )  # fmt: skip
    return trial.predictions(model.predict(trial.held_out.features, verbose=0))
