"""Gate on realism: whether the network itself tells injections from real lenses on hosts that look alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.covariance import ledoit_wolf

from pipeline.contracts.config import RunConfig
from pipeline.stages.gates.baselines import fit_baseline, out_of_fold_auc, shuffle_labels
from pipeline.stages.gates.result import GateInput, Measurement, gate_generator

_PERMUTATIONS = 99
_HOST_COLUMNS = ("sky_sigma_nmgy", "aperture_nmgy", "psfsize_arcsec")

Floats = NDArray[np.float64]


def no_embedded_anchors(config: RunConfig) -> str:
    """Why there is nothing to compare injections with; empty if there is."""
    return "" if config.anchors is not None else "not applicable: the run names no real lenses: section anchors"


def fewest_anchors(config: RunConfig) -> int:
    """Real lenses below which the gate fails."""
    return config.gates.network.realism_min_anchors


def count_embedded(sample: GateInput) -> tuple[int, int]:
    """Embedded injections and embedded real lenses."""
    if sample.scores is None:
        raise ValueError("no scores of a network were given")
    kind = sample.scores["embedded_kind"].to_numpy()
    return int((kind == "injected").sum()), int((kind == "anchor").sum())


def compare_embeddings(sample: GateInput) -> Measurement:
    """A linear probe on the network's embedding cannot tell real lenses from injections on matched hosts.

    Each real lens takes the injection, used once, whose stamp is nearest in ln sky noise, asinh flux within 8 px over
    sky noise, and seeing (optimal assignment on standardised columns). The value is the
    out-of-fold AUC of a linear classifier on the features below the head, its folds grouped by host: the classifier
    two-sample test. The Frechet distance is bounded too. It is measured in units of the scatter of both samples
    (covariance of Ledoit & Wolf 2004) after the mean of its null of shuffled samples is taken off its square; two
    normal samples of one covariance that far apart have AUC Phi(d / sqrt 2), so the bounds 0.8 and 1.2 agree.

    A network that does not see arcs sees no unrealistic ones either, so the same probe must tell the injections from
    their own controls with a higher AUC than the bound; otherwise the gate has no power and fails.

    The detail gives the same without matching, against the controls of the injections, and the distance per layer.
    """
    if sample.scores is None:
        raise ValueError("no scores of a network were given")
    section, data = sample.config.gates.network, sample.scores
    kind = data["embedded_kind"].to_numpy()
    layers = sorted(str(name) for name in data.data_vars if str(name).startswith("layer_"))
    if not layers:
        raise ValueError("no embedding was given")
    features = {name: data[name].to_numpy().astype(np.float64) for name in layers}
    for name, values in features.items():
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: {int((~np.isfinite(values)).any(axis=1).sum())} embeddings are not finite")
    anchor, injected, control = (np.flatnonzero(kind == name) for name in ("anchor", "injected", "control"))
    columns, used = _appearance(data, anchor, injected)
    matched = injected[_nearest(columns[anchor], columns[injected])]
    lenses = anchor[: matched.size]
    host = data["embedded_host_id"].to_numpy()
    rows = np.concatenate([lenses, matched])
    label = np.repeat(np.array([1, 0]), [lenses.size, matched.size])
    generator = gate_generator(sample.config.run.seed, "realism")
    last, folds = features[layers[-1]], sample.config.gates.folds
    found = fit_baseline(last[rows], label, host[rows], folds, shuffle_labels, generator)
    distances = {name: _distance(values[lenses], values[matched], generator) for name, values in features.items()}
    frechet = distances[layers[-1]]
    against = {
        "all_injections": _auc_between(last, host, anchor, injected, folds),
        "their_controls": _auc_between(last, host, anchor, control, folds),
    }
    power = _auc_between(last, host, injected, control, folds)
    alike = found.auc <= section.realism_auc_max and frechet["distance"] <= section.realism_frechet_max
    weak = "" if power > section.realism_auc_max else f"; too weak: it tells arcs from none with AUC {power:.3f} only"
    return Measurement(
        passed=alike and not weak,
        value=found.auc,
        bound=f"out-of-fold AUC <= {section.realism_auc_max} and Frechet distance <= {section.realism_frechet_max}, "
        f"arcs against none above {section.realism_auc_max}",
        detail={
            **found.detail(),
            "matched_pairs": int(matched.size),
            "matched_in": used,
            "frechet": distances,
            "auc_against": against,
            "auc_of_arcs_against_none": power,
            "features": int(last.shape[1]),
            "anchors": data.attrs.get("anchors", {}),
        },
        message=f"a linear probe tells {lenses.size} real lenses from injections on matched hosts with AUC "
        f"{found.auc:.3f} (shuffled {found.null.mean():.3f}); Frechet distance {frechet['distance']:.2f}{weak}",
        interval_95=found.interval_95,
        null=found.chance("labels shuffled"),
    )


def _appearance(data: Any, anchor: NDArray[np.int64], injected: NDArray[np.int64]) -> tuple[Floats, list[str]]:
    """(stamp, column) what hosts look like, standardised over anchors and injections; and the columns' names."""
    named = {name: data[f"embedded_{name}"].to_numpy().astype(np.float64) for name in _HOST_COLUMNS}
    sigma = named["sky_sigma_nmgy"]
    compared = np.concatenate([anchor, injected])
    if not (sigma[compared] > 0.0).all():
        raise ValueError("sky_sigma_nmgy of a stamp is not positive")
    columns = {"ln sky sigma": np.log(np.where(sigma > 0.0, sigma, 1.0))}
    columns["asinh flux over sky"] = np.arcsinh(named["aperture_nmgy"] / np.where(sigma > 0.0, sigma, 1.0))
    columns["seeing"] = named["psfsize_arcsec"]
    matrix = np.stack(list(columns.values()), axis=1)
    if not np.isfinite(matrix[compared]).all():
        raise ValueError("flux or seeing of a stamp is not finite")
    spread = matrix[compared].std(axis=0)
    return (matrix - matrix[compared].mean(axis=0)) / np.where(spread > 0.0, spread, 1.0), list(columns)


def _nearest(lenses: Floats, injections: Floats) -> NDArray[np.int64]:
    """One injection per lens, none twice, with the smallest sum of squared distances."""
    if len(injections) < len(lenses):
        raise ValueError(f"{len(lenses)} real lenses need as many injections, got {len(injections)}")
    cost = np.square(lenses[:, None, :] - injections[None, :, :]).sum(axis=2)
    return np.asarray(linear_sum_assignment(cost)[1], dtype=np.int64)


def _auc_between(
    features: Floats, host: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64], folds: int
) -> float:
    """Out-of-fold AUC of two sets of stamps."""
    rows = np.concatenate([first, second])
    label = np.repeat(np.array([1, 0]), [first.size, second.size])
    return out_of_fold_auc(features[rows], label, host[rows], folds)


def _distance(first: Floats, second: Floats, generator: np.random.Generator) -> dict[str, float]:
    """Frechet distance of two samples whitened by their scatter, over its null of shuffled samples.

    |mu1 - mu2|**2 + tr(C1 + C2 - 2 (C1 C2)**0.5) (Dowson & Landau 1982) of normal distributions.
    """
    joined = np.concatenate([first - first.mean(axis=0), second - second.mean(axis=0)])
    values, vectors = np.linalg.eigh(ledoit_wolf(joined)[0])
    kept = values > values.max() * 1e-10
    both = np.concatenate([first, second]) @ (vectors[:, kept] / np.sqrt(values[kept]))
    observed = _squared_frechet(both[: len(first)], both[len(first) :])
    null = np.empty(_PERMUTATIONS)
    for index in range(_PERMUTATIONS):
        order = generator.permutation(len(both))
        null[index] = _squared_frechet(both[order[: len(first)]], both[order[len(first) :]])
    return {
        "distance": float(np.sqrt(max(observed - float(null.mean()), 0.0))),
        "squared": observed,
        "null_squared_mean": float(null.mean()),
        "null_squared_max": float(null.max()),
        "null_permutations": _PERMUTATIONS,
        "p_permutation": (1 + int((null >= observed).sum())) / (1 + _PERMUTATIONS),
    }


def _squared_frechet(first: Floats, second: Floats) -> float:
    """Squared Frechet distance of the normal distributions with the samples' means and shrunk covariances."""
    covariances = [ledoit_wolf(sample)[0] for sample in (first, second)]
    roots = [np.linalg.cholesky(covariance) for covariance in covariances]
    # The singular values of L1^T L2 are the square roots of the eigenvalues of C1 C2.
    cross = float(np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum())
    shift = first.mean(axis=0) - second.mean(axis=0)
    return float(shift @ shift + np.trace(covariances[0]) + np.trace(covariances[1]) - 2.0 * cross)
