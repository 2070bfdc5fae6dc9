"""Quality of unsupervised representations: a linear probe, and the purity of clusters.

Shapes: N training and M test examples with F features, K classes.
"""

import numpy as np

SEED = 0  # of the initialisation of k-means


def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    """Test accuracy of a logistic regression on standardised features.

    Args:
      train: training features [N, F].
      labels: training labels [N].
      test: test features [M, F].
      wanted: test labels [M].
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # A loose tolerance: full convergence does not change the accuracy noticeably.
    model = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-2, max_iter=1000))
    return float(model.fit(train, labels).score(test, wanted))


def purity(features: np.ndarray, labels: np.ndarray, clusters: int) -> float:
    """Purity of k-means clusters: the fraction of examples in their cluster's majority class.

    Args:
      features: [N, F].
      labels: integer classes [N].
      clusters: number of clusters.
    """
    from sklearn.cluster import KMeans

    assignment = KMeans(clusters, n_init=10, random_state=SEED).fit_predict(features)
    counts = np.zeros((clusters, int(labels.max()) + 1))
    np.add.at(counts, (assignment, labels), 1)
    return float(counts.max(1).sum() / len(labels))
