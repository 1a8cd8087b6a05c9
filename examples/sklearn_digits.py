"""How much to smooth a logistic regression on scikit-learn's digits, if at all.

    python examples/sklearn_digits.py

Candidates are scored by their log loss on hard labels, so 0 competes on equal terms.
"""

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from softhot.sklearn import LabelSmoothingClassifier


def main():
    X, y = load_digits(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, train_size=300, stratify=y, random_state=0)
    model = make_pipeline(
        MinMaxScaler(), LabelSmoothingClassifier(LogisticRegression(C=1e4, max_iter=2000))
    )
    grid = {"labelsmoothingclassifier__label_smoothing": [0.0, 0.01, 0.05, 0.1]}
    search = GridSearchCV(model, grid, scoring="neg_log_loss", cv=3).fit(X, y)
    for (alpha,), score in zip(
        (candidate.values() for candidate in search.cv_results_["params"]),
        search.cv_results_["mean_test_score"],
        strict=True,
    ):
        print(f"label_smoothing {alpha:4}  log loss {-score:.4f}")
    accuracy = search.best_estimator_.score(X_test, y_test)
    print(f"best: {search.best_params_}  accuracy on new data {accuracy:.4f}")
    return search


if __name__ == "__main__":
    main()
