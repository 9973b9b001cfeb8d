"""Muon, against its equations in float64, and its own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from grad_contrib import MuonDimensionNumbers, muon, scale_by_muon
from grad_contrib._matrices import AsMatrices
from grad_contrib._orthogonal import (
    _POLAR_EXPRESS,
    NewtonSchulz,
    _in_stacks,
    _orthogonalized,
    _Stacks,
    coefficient_sets,
    newton_schulz,
)
from grad_core import apply_updates

RNG = np.random.default_rng(0)
STANDARD = (3.4445, -4.775, 2.0315)


def scalar_map(sets, x):
    """What the steps do to singular values."""
    for a, b, c in np.atleast_2d(sets):
        x = a * x + b * x**3 + c * x**5
    return x


def exact(x, sets):
    """Newton-Schulz by the singular value decomposition, after division by the Frobenius norm."""
    u, s, v = np.linalg.svd(x, full_matrices=False)
    return u * scalar_map(sets, s / np.sqrt(np.sum(s**2))) @ v


def steps_of(tx, gradients, params):
    state, update, found = tx.init(params), jax.jit(tx.update), []
    for g in gradients:
        updates, state = update(g, state, params)
        found.append(updates)
    return found, state


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
@pytest.mark.parametrize("nesterov", [True, False])
def test_is_the_recursion_in_singular_values(shape, nesterov):
    gradients, mu = RNG.normal(size=(4, *shape)), np.zeros(shape)
    found, _ = steps_of(
        scale_by_muon(nesterov=nesterov), jnp.asarray(gradients, jnp.float32), jnp.zeros(shape)
    )
    for t, (g, u) in enumerate(zip(gradients, found, strict=True), 1):
        mu = 0.95 * mu + 0.05 * g
        ahead = 0.95 * mu / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
        wanted = exact(ahead if nesterov else mu / (1 - 0.95**t), [STANDARD] * 5)
        np.testing.assert_allclose(u, wanted, atol=2e-5)


def test_batches_are_single_matrices():
    """Of many shapes, tall and wide, and axes in any order."""
    shapes = {"a": (3, 4), "b": (4, 3), "c": (3, 4), "d": (2, 3, 4), "e": (4, 2, 3), "f": (2, 6)}
    numbers = {name: MuonDimensionNumbers() for name in shapes}
    numbers["d"] = MuonDimensionNumbers(1, 2)
    numbers["e"] = MuonDimensionNumbers((-1,), 0)
    tree = {name: jnp.asarray(RNG.normal(size=s), jnp.float32) for name, s in shapes.items()}
    tx = scale_by_muon(weight_dimension_numbers=numbers)
    u, _ = jax.jit(tx.update)(tree, tx.init(tree))
    one = jax.jit(lambda g: scale_by_muon().update(g, scale_by_muon().init(g))[0])
    for name in "abcf":
        np.testing.assert_allclose(u[name], one(tree[name]), atol=1e-5)
    for k in range(2):
        np.testing.assert_allclose(u["d"][k], one(tree["d"][k]), atol=1e-5)
        np.testing.assert_allclose(u["e"][:, k], one(tree["e"][:, k].T).T, atol=1e-5)


def test_several_axes_are_one():
    x = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)
    tx = scale_by_muon(weight_dimension_numbers=MuonDimensionNumbers((0, 1), 2))
    u, _ = tx.update(x, tx.init(x))
    flat, _ = scale_by_muon().update(x.reshape(6, 4), scale_by_muon().init(x.reshape(6, 4)))
    np.testing.assert_allclose(u.reshape(6, 4), flat, atol=1e-5)


@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral", "aol", "schatten"])
def test_singular_values_end_near_one(preconditioning):
    x = jnp.asarray(RNG.normal(size=(8, 12)), jnp.float32)
    tx = scale_by_muon("dion", preconditioning=preconditioning)
    for size in (1.0, 1e-2, 1e25):
        u, _ = jax.jit(tx.update)(size * x, tx.init(x))
        s = np.linalg.svd(u, compute_uv=False)
        assert 0.9 < s.min() <= s.max() < 1.1
        if preconditioning == "aol":  # it scales rows, each by a number of its own
            continue
        # The singular vectors are those of x.
        np.testing.assert_allclose(np.asarray(u @ x.T), np.asarray(x @ u.T), atol=2e-4)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("standard", 0.68, 1.14), ("dion", 0.977, 1.032), ("polar_express", 0.87, 1.13)],
)
def test_named_coefficients(name, low, high):
    """Where five steps take singular values between 1e-2 and 1."""
    sets = coefficient_sets("", name, 5)
    ends = scalar_map(np.broadcast_to(sets, (5, 3)), np.linspace(0.01, 1, 100_001))
    assert low < ends.min() < low + 0.01
    assert high - 0.01 < ends.max() < high


def test_polar_express_are_the_best_polynomials():
    """Each errs equally at four points: both ends of its interval, and two between them.

    The first three are the best for a shorter interval: by the paper, one whose lower end is
    0.024 of the upper one at least.
    """
    low, high = 1e-3, 1.0
    for i, (a, b, c) in enumerate(_POLAR_EXPRESS[:6]):
        x = np.linspace(low, high, 2_000_001)
        y = scalar_map([(a, b, c)], x)
        turns = y[1:-1][np.diff(y)[:-1] * np.diff(y)[1:] < 0]
        errors = np.array([1 - y[0], turns[0] - 1, y[-1] - 1, 1 - turns[1]])
        np.testing.assert_allclose(errors[: 3 if i < 3 else 4], errors[0], rtol=1e-6)
        low, high = y.min(), y.max()


def test_counts_of_coefficients():
    sets = [STANDARD] * 3 + [(2.0, -1.5, 0.5)] * 2
    assert coefficient_sets("", sets, 5).shape == (5, 3)
    np.testing.assert_array_equal(coefficient_sets("", sets, 2), sets[-2:])
    assert coefficient_sets("", "polar_express", 12).shape == (12, 3)
    with pytest.raises(ValueError, match="5 sets of coefficients, too few for 6 steps"):
        muon(0.1, sets, ns_steps=6)


def test_products_in_bfloat16():
    x = jnp.asarray(RNG.normal(size=(16, 16)), jnp.float32)
    narrow = scale_by_muon(ns_dtype=jnp.bfloat16)
    u, _ = jax.jit(narrow.update)(x, narrow.init(x))
    wide, _ = scale_by_muon().update(x, scale_by_muon().init(x))
    assert u.dtype == jnp.float32
    assert 1e-4 < jnp.max(jnp.abs(u - wide)) < 0.1
    text = str(jax.make_jaxpr(narrow.update)(x, narrow.init(x)))
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products
    assert all("bf16" in line for line in products)


def test_adaptive_and_shape_factors():
    x = jnp.asarray(RNG.normal(size=(4, 9)), jnp.float32)
    u, _ = scale_by_muon().update(x, scale_by_muon().init(x))
    scaled, _ = scale_by_muon(adaptive=True).update(x, scale_by_muon().init(x))
    ahead = x * (0.95 * 0.05 / (1 - 0.95**2) + 1)
    np.testing.assert_allclose(scaled, jnp.sum(ahead * u) * u, rtol=1e-4)
    for consistent_rms, factor in ((None, 1.5), (0.2, 0.6)):
        optimizer = muon(1.0, consistent_rms=consistent_rms)
        found, _ = optimizer.update(x, optimizer.init(x), x)
        np.testing.assert_allclose(found, -factor * u, rtol=1e-4)


def test_who_gets_what():
    """By default matrices are Muon's; a tree or a function of the tree says otherwise."""
    params = {"embed": jnp.ones((5, 2)), "heads": jnp.ones((2, 3, 2)), "bias": jnp.ones(2)}
    numbers = {"embed": None, "heads": MuonDimensionNumbers((0, 1), 2), "bias": None}
    for given in (numbers, lambda tree: {k: numbers[k] for k in tree}):
        optimizer = muon(0.1, muon_weight_dimension_numbers=given)
        state = optimizer.init(params)
        matrices = state.inner_states["muon"].inner_state[0].mu
        assert jax.tree.map(jnp.shape, matrices)["heads"] == (2, 3, 2)
        assert len(jax.tree.leaves(matrices)) == 1
        updates, _ = jax.jit(optimizer.update)(params, state, params)
        assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)
    plain = muon(0.1)
    assert len(jax.tree.leaves(plain.init(params).inner_states["muon"].inner_state[0].mu)) == 1


@pytest.mark.parametrize(("platform", "loops"), [("cpu", 1), ("tpu", 0)])
def test_programs_do_not_grow_with_the_number_of_matrices(platform, loops):
    """One stack is one set of products; on a CPU the steps are a loop."""

    def text_for(count):
        tree = [jnp.ones((4, 4))] * count
        tx = scale_by_muon()
        traced = jax.jit(tx.update).trace(tree, tx.init(tree))
        return traced.lower(lowering_platforms=(platform,)).as_text()

    few, many = text_for(2), text_for(8)
    assert few.count("dot_general") == many.count("dot_general") > 0
    assert few.count("stablehlo.while") == many.count("stablehlo.while") == loops


@pytest.mark.parametrize(
    ("stacks", "sizes"),
    [
        (_Stacks(3, 2**24, unroll=True), [6, 4]),
        (_Stacks(8, 70, unroll=True), [4, 4, 2]),
        (_Stacks(8, 1, unroll=True), [2] * 5),
    ],
)
def test_stacks_hold_so_many(stacks, sizes):
    """Of arrays, here of two matrices each, and of elements."""
    form, seen = AsMatrices.of((2, 3, 4), MuonDimensionNumbers(1, 2)), []

    def steps(x):
        seen.append(len(x))
        return -x

    arrays = list(jnp.asarray(RNG.normal(size=(5, 2, 3, 4))))
    made = _in_stacks(arrays, [form] * 5, stacks, steps)
    assert seen == sizes
    for x, y in zip(arrays, made, strict=True):
        np.testing.assert_array_equal(y, -x)


@pytest.mark.parametrize("unroll", [False, True])
@pytest.mark.parametrize("sets", [STANDARD, (STANDARD, (2.0, -1.5, 0.5))])
def test_the_first_step_rescales(sets, unroll):
    x = RNG.normal(size=(3, 5))
    gram = x @ x.T
    scales = {
        "aol": np.sum(np.abs(gram), axis=1, keepdims=True) ** -0.5,
        "schatten": np.sum(gram**2) ** -0.25,
    }
    for preconditioning, scale in scales.items():
        wanted = scale * x
        for a, b, c in np.broadcast_to(sets, (2, 3)):
            gram = wanted @ wanted.T
            wanted = a * wanted + (b * gram + c * gram @ gram) @ wanted
        how = NewtonSchulz(2, preconditioning)
        stack = jnp.asarray(x, jnp.float32)[None]
        found = newton_schulz(stack, jnp.asarray(sets), 1e-8, how, unroll)
        np.testing.assert_allclose(found[0], wanted, atol=1e-5)


def test_a_zero_matrix_has_a_derivative():
    tx = scale_by_muon(eps=0.1)
    slope = jax.grad(lambda x: tx.update(x, tx.init(x))[0][0, 0])(jnp.zeros((2, 3)))
    first = 0.95 * 0.05 / (1 - 0.95**2) + 1
    np.testing.assert_allclose(slope, [[first * 3.4445**5 / 0.1, 0, 0], [0, 0, 0]], rtol=1e-4)


def test_users_functions_compile_once():
    """The updates that call them run outside of `jit`, the steps do not."""
    tx = scale_by_muon(weight_dimension_numbers=lambda tree: MuonDimensionNumbers())
    x = jnp.ones((7, 5))
    _, state = tx.update(x, tx.init(x))
    before = _orthogonalized._cache_size()
    tx.update(x, state)
    assert _orthogonalized._cache_size() == before


@pytest.mark.parametrize("size", [1e-30, 1e30])
@pytest.mark.parametrize("preconditioning", ["frobenius", "spectral"])
def test_sizes_do_not_matter(size, preconditioning):
    """Of squares, that is, which vanish or overflow."""
    x = jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32)
    tx = scale_by_muon(eps=0.0, preconditioning=preconditioning)
    wanted, found = (tx.update(g, tx.init(x))[0] for g in (x, jnp.float32(size) * x))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("axes", ["data", "model", ("data", "model"), None])
def test_sharded_is_local(mesh, axes):
    """Batches that all devices share, and such that they cannot."""
    spec = jax.sharding.PartitionSpec(axes)
    tree = [jnp.asarray(RNG.normal(size=(8, 16)), jnp.float32) for _ in range(9)]
    tx = scale_by_muon()
    for part in (tree[:8], tree):
        wanted, _ = jax.jit(tx.update)(part, tx.init(part))
        with jax.set_mesh(mesh):
            placed = jax.device_put(part, jax.sharding.NamedSharding(mesh, spec))
            found, _ = jax.jit(tx.update)(placed, jax.jit(tx.init)(placed))
        for x, y in zip(jax.device_get(found), wanted, strict=True):
            np.testing.assert_allclose(x, y, atol=2e-5)


def test_trains():
    target = jnp.asarray(RNG.normal(size=(6, 6)), jnp.float32)
    params = {"w": jnp.zeros((6, 6)), "b": jnp.zeros(6)}
    optimizer = muon(0.05)

    def loss(p):
        return jnp.mean((p["w"] - target) ** 2) + jnp.mean((p["b"] - 1) ** 2)

    @jax.jit
    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), length=200)
    assert loss(params) < 0.02


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: muon(0.1, ns_steps=0), "ns_steps must be at least 1"),
        (lambda: muon(0.1, "polar"), "'polar' is none of 'standard', 'dion'"),
        (lambda: muon(0.1, (1.0, 2.0)), "three numbers"),
        (
            lambda: scale_by_muon().init({"b": jnp.zeros(3)}),
            r"\['b'\] has shape \(3,\), which is no",
        ),
        (lambda: scale_by_muon().init(jnp.zeros((2, 3, 4))), "MuonDimensionNumbers"),
        (
            lambda: scale_by_muon(weight_dimension_numbers=MuonDimensionNumbers(0, -2)).init(
                jnp.zeros((2, 3))
            ),
            "not distinct axes",
        ),
        (
            lambda: scale_by_muon(weight_dimension_numbers=[MuonDimensionNumbers()] * 2).init(
                [jnp.zeros((2, 3))]
            ),
            "no prefix",
        ),
        (
            lambda: muon(0.1, preconditioning="none"),
            "preconditioning must be one of frobenius, spectral, aol, schatten",
        ),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call()
