"""Quality of codes without labels: a linear probe, and the purity of clusters.

Shapes: N examples with F features, K classes.
"""

import numpy as np

SEED = 0  # of k-means' beginnings, and of nothing else


def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    """Accuracy on `test` [M, F] of a logistic regression that is fitted to `train` [N, F]."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Whether it has settled to the last digit does not matter here.
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-2, max_iter=1000))
    return float(model.fit(train, labels).score(test, wanted))


def purity(features: np.ndarray, labels: np.ndarray, clusters: int) -> float:
    """The share of examples [N, F] that are of their cluster's most frequent class, by k-means."""
    from sklearn.cluster import KMeans

    found = KMeans(clusters, n_init=10, random_state=SEED).fit_predict(features)
    counts = np.zeros((clusters, int(labels.max()) + 1))
    np.add.at(counts, (found, labels), 1)
    return float(counts.max(1).sum() / len(labels))
