"""Losses of batches of embeddings, against loops over the equations in double precision."""

import inspect
import math
from collections.abc import Callable

import jax
import numpy as np
import pytest

from grad_losses import (
    barlow_twins_loss,
    clip_loss,
    ntxent,
    siglip_loss,
    supervised_contrastive_loss,
    vicreg_loss,
)

RNG = np.random.default_rng(0)
FIRST, SECOND = RNG.normal(size=(2, 6, 4)).astype(np.float32)
LABELS = np.array([2, 0, 2, 7, 2, 0])  # the fourth is alone


def unit(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.sqrt((x**2).sum(-1, keepdims=True))


def parameters(loss: Callable[..., jax.Array]) -> list[inspect.Parameter]:
    return list(inspect.signature(loss).parameters.values())


def supcon(x: np.ndarray, labels: np.ndarray, temperature: float = 0.1) -> np.ndarray:
    """Equation 2 of Khosla et al."""
    x, losses = unit(x), []
    for i in range(len(x)):
        others = [a for a in range(len(x)) if a != i]
        positives = [p for p in others if labels[p] == labels[i]]
        z = {a: x[i] @ x[a] / temperature for a in others}
        total = sum(np.exp(z[a]) for a in others)
        losses.append(
            -sum(np.log(np.exp(z[p]) / total) for p in positives) / max(len(positives), 1)
        )
    return np.array(losses)


def clip(x: np.ndarray, y: np.ndarray, temperature: float = 0.07) -> np.ndarray:
    """Figure 3 of Radford et al., before the mean over the batch."""
    e = np.exp(unit(x) @ unit(y).T / temperature)
    losses = []
    for i in range(len(x)):
        by_image, by_text = e[i, i] / sum(e[i, :]), e[i, i] / sum(e[:, i])
        losses.append(-(np.log(by_image) + np.log(by_text)) / 2)
    return np.array(losses)


def siglip(
    x: np.ndarray, y: np.ndarray, temperature: float = 0.1, bias: float = -10.0
) -> np.ndarray:
    """Algorithm 1 of Zhai et al., before the mean over the batch."""
    logits = unit(x) @ unit(y).T / temperature + bias
    losses = []
    for i in range(len(x)):
        signs = [1 if i == j else -1 for j in range(len(x))]
        losses.append(
            sum(np.log(1 + np.exp(-s * z)) for s, z in zip(signs, logits[i], strict=True))
        )
    return np.array(losses)


def barlow(x: np.ndarray, y: np.ndarray, weight: float = 5e-3) -> np.ndarray:
    """Equations 1 and 2 of Zbontar et al."""
    correlation = np.corrcoef(x, y, rowvar=False)[: x.shape[1], x.shape[1] :]
    loss = 0.0
    for i, j in np.ndindex(*correlation.shape):
        c = correlation[i, j]
        loss += (1 - c) ** 2 if i == j else weight * c**2
    return np.array(loss)


def vicreg(x: np.ndarray, y: np.ndarray, *weights: float) -> np.ndarray:
    """Equations 1 to 6 of Bardes, Ponce and LeCun, with the mean of algorithm 1."""
    invariance, variance, covariance = weights or (25.0, 25.0, 1.0)
    x, y = x.astype(np.float64), y.astype(np.float64)
    loss = invariance * ((x - y) ** 2).mean()
    for z in (x, y):
        spread = np.sqrt(z.var(axis=0, ddof=1) + 1e-4)
        loss += variance * np.maximum(0, 1 - spread).mean()
        c = np.cov(z, rowvar=False)
        loss += covariance * (c[~np.eye(len(c), dtype=bool)] ** 2).sum() / len(c)
    return np.array(loss)


LOSSES: dict[str, tuple[Callable[..., jax.Array], Callable[..., np.ndarray], np.ndarray]] = {
    "supervised_contrastive": (supervised_contrastive_loss, supcon, LABELS),
    "clip": (clip_loss, clip, SECOND),
    "barlow_twins": (barlow_twins_loss, barlow, SECOND),
    "vicreg": (vicreg_loss, vicreg, SECOND),
    # With a negative bias, what is wrongly counted of others hardly shows.
    "siglip without bias": (siglip_loss, lambda x, y: siglip(x, y, bias=0.0), SECOND),
}
DEFAULTS = {
    name: {p.name: p.default for p in parameters(loss) if isinstance(p.default, float)}
    for name, (loss, _, _) in LOSSES.items()
}
DEFAULTS["siglip without bias"]["bias"] = 0.0
COMPILED = {
    name: jax.jit(
        jax.value_and_grad(
            lambda x, y, where, numbers, loss=loss: (
                (value := loss(x, y, where=where, **numbers)).sum(),
                value,
            ),
            has_aux=True,
        )
    )
    for name, (loss, _, _) in LOSSES.items()
}


def value_and_gradient(
    name: str, x: np.ndarray, y: np.ndarray, where: np.ndarray | None = None, **numbers: float
) -> tuple[np.ndarray, np.ndarray]:
    """All by one compiled function a loss; numbers not given are the defaults."""
    where = np.ones(len(x), bool) if where is None else where
    (_, value), gradient = COMPILED[name](x, y, where, DEFAULTS[name] | numbers)
    return np.asarray(value), np.asarray(gradient)


def test_equations() -> None:
    for name, (_, exact, y) in LOSSES.items():
        value, _ = value_and_gradient(name, FIRST, y)
        np.testing.assert_allclose(value, exact(FIRST, y), rtol=2e-5, atol=1e-6, err_msg=name)
    assert value_and_gradient("supervised_contrastive", FIRST, LABELS)[0][3] == 0


def test_numbers() -> None:
    def run(name: str, **numbers: float) -> np.ndarray:
        y = LABELS if name == "supervised_contrastive" else SECOND
        return value_and_gradient(name, FIRST, y, **numbers)[0]

    got = run("supervised_contrastive", temperature=0.7)
    np.testing.assert_allclose(got, supcon(FIRST, LABELS, 0.7), rtol=1e-5)
    np.testing.assert_allclose(run("clip", temperature=0.7), clip(FIRST, SECOND, 0.7), rtol=1e-5)
    defaults = {p.name: p.default for p in parameters(siglip_loss)}
    got = run("siglip without bias", bias=defaults["bias"])
    np.testing.assert_allclose(got, siglip(FIRST, SECOND), rtol=1e-5)
    got = run("siglip without bias", temperature=0.7, bias=0.3)
    np.testing.assert_allclose(got, siglip(FIRST, SECOND, 0.7, 0.3), rtol=1e-5)
    got = run("barlow_twins", redundancy_weight=0.7)
    np.testing.assert_allclose(got, barlow(FIRST, SECOND, 0.7), rtol=1e-5)
    names = ("invariance_weight", "variance_weight", "covariance_weight")
    for weights in np.eye(3).tolist():
        got = run("vicreg", **dict(zip(names, weights, strict=True)))
        np.testing.assert_allclose(got, vicreg(FIRST, SECOND, *weights), rtol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_where_is_the_same_as_fewer_examples(name: str) -> None:
    _, exact, y = LOSSES[name]
    mask = np.array([True, False, True, True, True, False])
    want = exact(FIRST[mask], y[mask])
    clean, clean_gradient = value_and_gradient(name, FIRST, y, mask)
    np.testing.assert_allclose(clean[mask] if clean.ndim else clean, want, rtol=2e-5, atol=1e-6)
    if clean.ndim:
        np.testing.assert_array_equal(clean[~mask], 0)
    np.testing.assert_array_equal(clean_gradient[~mask], 0)
    for hidden in (np.nan, np.inf, 1e38):
        x = np.where(mask[:, None], FIRST, np.float32(hidden))
        z = y if y is LABELS else np.where(mask[:, None], y, np.float32(hidden))
        value, gradient = value_and_gradient(name, x, z, mask)
        np.testing.assert_array_equal(value, clean)
        np.testing.assert_array_equal(gradient, clean_gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_what_has_no_direction_or_no_company_is_finite(name: str) -> None:
    _, _, y = LOSSES[name]
    zeros = np.zeros_like(FIRST)
    some = FIRST.copy()
    some[1] = 0
    for x, z in ((zeros, y if y is LABELS else zeros), (some, y), (zeros, y)):
        for count in (0, 1, 2, 6):
            value, gradient = value_and_gradient(name, x, z, np.arange(6) < count)
            assert np.isfinite(value).all(), (name, count)
            assert np.isfinite(gradient).all(), (name, count)


@pytest.mark.parametrize("name", ["supervised_contrastive", "clip", "siglip without bias"])
def test_only_directions_matter(name: str) -> None:
    _, _, y = LOSSES[name]
    want, slope = value_and_gradient(name, FIRST, y)
    turn = np.linalg.qr(RNG.normal(size=(4, 4)))[0].astype(np.float32)
    turned = value_and_gradient(name, FIRST @ turn, y if y is LABELS else y @ turn)
    np.testing.assert_allclose(turned[0], want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(turned[1], slope @ turn, rtol=1e-3, atol=1e-4)
    for scale in (2.0**100, 2.0**-100):  # their squares are no numbers of float32
        value, gradient = value_and_gradient(name, FIRST * np.float32(scale), y)
        np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(gradient * scale, slope, rtol=1e-4, atol=1e-5)
    # A vector's length changes nothing, so gradients are orthogonal to it.
    np.testing.assert_allclose((slope * FIRST).sum(-1), 0, atol=1e-5)


def test_orthogonal_embeddings() -> None:
    x = 3 * np.eye(6, dtype=np.float32)
    value, _ = value_and_gradient("supervised_contrastive", x[:, :4] * 0, LABELS)
    np.testing.assert_allclose(value, np.where(LABELS == 7, 0, math.log(5)), rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(clip_loss)(x, x, temperature=1.0), math.log1p(5 / math.e), rtol=1e-6
    )
    want = math.log1p(math.exp(-1)) + 5 * math.log(2)
    np.testing.assert_allclose(
        jax.jit(siglip_loss)(x, x, temperature=1.0, bias=0.0), want, rtol=1e-6
    )


def test_two_views_make_it_the_loss_of_simclr() -> None:
    views, labels = np.concatenate([FIRST[:3], SECOND[:3]]), np.array([0, 1, 2, 0, 1, 2])
    value, _ = value_and_gradient("supervised_contrastive", views, labels, temperature=0.5)
    np.testing.assert_allclose(value.mean(), ntxent(views, labels, 0.5), rtol=1e-5)


def test_clip_is_symmetric() -> None:
    value, turned = (value_and_gradient("clip", *x)[0] for x in ((FIRST, SECOND), (SECOND, FIRST)))
    np.testing.assert_allclose(value, turned, rtol=1e-5)


def test_temperature_and_bias_are_learned() -> None:
    slope = jax.jit(
        jax.grad(lambda b, t: siglip_loss(FIRST, SECOND, temperature=t, bias=b).sum(), (0, 1))
    )(-2.0, 0.5)
    s = unit(FIRST) @ unit(SECOND).T
    residual = 1 / (1 + np.exp(-(s / 0.5 - 2))) - np.eye(6)
    np.testing.assert_allclose(slope[0], residual.sum(), rtol=1e-5)
    np.testing.assert_allclose(slope[1], (residual * -s / 0.5**2).sum(), rtol=1e-5)


def test_features_that_do_not_vary() -> None:
    # 0.1 has no exact mean in float32: without care its errors would correlate perfectly.
    vicreg_slope = jax.jit(jax.grad(lambda x, y: vicreg_loss(x, y, epsilon=0.0)))
    for constant in (0.1, 1e6, 0.0):
        x, y = FIRST.copy(), SECOND.copy()
        x[:, 1] = y[:, 1] = constant
        value, gradient = value_and_gradient("barlow_twins", x, y)
        want = barlow(np.delete(x, 1, 1), np.delete(y, 1, 1)) + 1
        np.testing.assert_allclose(value, want, rtol=1e-5)
        assert np.isfinite(gradient).all()
        assert np.isfinite(vicreg_slope(x, y)).all()


def test_correlations_have_no_scale_and_no_origin() -> None:
    want, slope = value_and_gradient("barlow_twins", FIRST, SECOND)
    scale = np.array([2.0**90, 2.0**-90, 3.0, 1.0], np.float32)
    value, gradient = value_and_gradient("barlow_twins", FIRST * scale, SECOND)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    np.testing.assert_allclose(gradient.astype(float) * scale, slope, rtol=1e-3, atol=1e-5)
    value, _ = value_and_gradient("barlow_twins", FIRST + 100, SECOND - 50)
    np.testing.assert_allclose(value, want, rtol=1e-4)
    value, _ = value_and_gradient("barlow_twins", FIRST, FIRST, redundancy_weight=0.0)
    np.testing.assert_allclose(value, 0, atol=1e-10)


def test_no_features_cost_nothing() -> None:
    for name in ("vicreg", "barlow_twins"):
        assert value_and_gradient(name, FIRST[:, :0], SECOND[:, :0])[0] == 0


def test_covariances_of_vicreg_have_no_origin() -> None:
    got, _ = value_and_gradient("vicreg", FIRST + 100, SECOND - 50, invariance_weight=0.0)
    np.testing.assert_allclose(got, vicreg(FIRST, SECOND, 0.0, 25.0, 1.0), rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: clip_loss(FIRST.astype(int), SECOND), TypeError, "clip_loss: images must be"),
        (
            lambda: clip_loss(FIRST, SECOND[:3]),
            ValueError,
            r"images .* \(6, 4\) and texts .*\(3, 4",
        ),
        (lambda: clip_loss(FIRST[0], SECOND[0]), ValueError, r"images .* \[batch, features\]; got"),
        (lambda: clip_loss(FIRST, SECOND, temperature=0), ValueError, "temperature must be > 0"),
        (lambda: siglip_loss(FIRST, SECOND, where=LABELS), ValueError, "where must be boolean"),
        (
            lambda: barlow_twins_loss(FIRST, SECOND, where=LABELS[:2] > 0),
            ValueError,
            r"where of shape \(2,\) must have one value per example, shape \(6,\)",
        ),
        (
            lambda: barlow_twins_loss(FIRST, SECOND, redundancy_weight=-1.0),
            ValueError,
            "redundancy_weight must be >= 0; got -1.0",
        ),
        (lambda: vicreg_loss(FIRST, SECOND, epsilon=-1), ValueError, "epsilon must be >= 0"),
        (
            lambda: supervised_contrastive_loss(FIRST, LABELS[:2]),
            ValueError,
            r"labels of shape \(2,\) .* embeddings of shape \(6, 4\)",
        ),
        (
            lambda: supervised_contrastive_loss(FIRST, LABELS / 2),
            TypeError,
            "labels must be of an integer dtype",
        ),
    ],
)
def test_errors(call: Callable[[], object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
