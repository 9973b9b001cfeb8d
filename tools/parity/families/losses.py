"""Losses: their values, and gradients by all their arrays of reals."""

from collections.abc import Iterable
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from parity.cases import Bound, Call, Case, Family, call
from parity.cases import case as case_of
from parity.coverage import public
from parity.problem import compiled_quickly

Array = np.ndarray[Any, Any]


def names() -> Iterable[str]:
    """The losses of grad-losses, but those that align sequences."""
    import grad_losses

    return public(
        grad_losses,
        lambda name, x: callable(x) and not name.startswith("ctc_"),
        prefix="losses.",
    )


# Rows of docs/differences.md.
ZERO = "`cosine_similarity`, `cosine_distance`, `ntxent` of vectors of zeros"
PAIRS = "`ntxent` without positive pairs"
ODD = "`triplet_margin_loss` with an odd or fractional `norm_degree`"
SAME = "`triplet_margin_loss` of coincident points with `eps=0`"
EMPTY = "Kullback-Leibler divergences at targets of 0 or predictions of -inf"
MASKED = "gradients by labels and weights of what `where` leaves out"
HARD = "gradients of `sigmoid_focal_loss` by labels of 0 and 1"


def case(name: str, /, *args: object, **kwargs: object) -> Case:
    """A case of a loss."""
    return case_of(f"losses.{name}", *args, **kwargs)


def three(name: str, *arguments: tuple[object, ...]) -> list[Case]:
    """Cases of a loss, one for each of the arguments."""
    return [case(name, *each) for each in arguments]


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> Array:
    """Normal numbers, none near 0."""
    rng = np.random.default_rng([seed, *shape])
    x = rng.normal(size=shape)
    return scale * (x + np.copysign(0.05, x)).astype(np.float32)


def shares(*shape: int, seed: int = 0) -> Array:
    """Probabilities that sum to 1 along the last axis."""
    rng = np.random.default_rng([seed, *shape])
    return rng.dirichlet(np.ones(shape[-1]), size=shape[:-1]).astype(np.float32)


def logs(*shape: int, seed: int = 0) -> Array:
    """The logarithms of such probabilities."""
    return np.log(shares(*shape, seed=seed))


def signs(*shape: int) -> Array:
    """Numbers of which each is -1 or 1."""
    return np.sign(numbers(*shape, seed=7))


def classes(*shape: int, below: int = 3) -> Array:
    """Integers from 0 on, as many of each as there can be."""
    shuffled = np.random.default_rng([7, *shape]).permutation(np.prod(shape))
    return (shuffled % below).reshape(shape)


def one_hot(*shape: int) -> Array:
    """Labels of which one is 1 along the last axis."""
    return np.eye(shape[-1], dtype=np.float32)[classes(*shape[:-1], below=shape[-1])]


def mask(*shape: int) -> Array:
    """Booleans, of which the first along the last axis is true."""
    found = np.random.default_rng([7, *shape]).random(shape) < 0.6
    found[..., 0] = True
    return found


def zeros(*shape: int) -> Array:
    """Zeros."""
    return np.zeros(shape, np.float32)


def ones(*shape: int) -> Array:
    """Ones."""
    return np.ones(shape, np.float32)


def row(*items: float) -> Array:
    """An array of these numbers."""
    return np.array(items, np.float32)


def half_square(scores: Any) -> Any:
    """A convex function of scores."""
    return jnp.sum(scores**2) / 2


def values(
    bound: Bound, dtype: str, *, compiled: bool = True, arguments: tuple[Call, ...] = ()
) -> Any:
    """The value of a loss, and the gradients of a weighted sum of it.

    Args:
      bound: The call of the loss; or of what makes one, to be called with `arguments`.
      dtype: The dtype of all arrays of reals.
      compiled: Whether to compile; what looks at the values of arrays cannot be.
      arguments: What the loss that was made is called with.
    """
    if arguments:
        bound = Bound(bound(), tuple(each.bind()() for each in arguments), {})
    given = {**{str(i): x for i, x in enumerate(bound.args)}, **bound.kwargs}
    reals = {
        name: jnp.asarray(x, dtype)
        for name, x in given.items()
        if isinstance(x, np.ndarray) and x.dtype == np.float32
    }

    def total(reals: dict[str, Any]) -> Any:
        now = {**given, **reals}
        args = [now.pop(str(i)) for i in range(len(bound.args))]
        value = bound.function(*args, **now)
        weights = 1 + 0.5 * jnp.cos(jnp.arange(value.size, dtype=dtype)).reshape(value.shape)
        return jnp.sum(weights * value), value

    run = jax.value_and_grad(total, has_aux=True)
    if compiled:
        run = jax.jit(run, compiler_options=compiled_quickly())
    (_, value), gradients = run(reals)
    return {"value": value, "gradient": gradients}


X, Y, Z = (call(numbers, 3, 4, seed=i) for i in range(3))
FAR, ROW = call(numbers, 3, 4, scale=30.0), call(numbers, 4)
P, Q, P_ROW = call(shares, 3, 4, seed=1), call(shares, 3, 4, seed=2), call(shares, 4)
LOG_P, LOG_Q, LOG_ROW = call(logs, 3, 4, seed=1), call(logs, 3, 4, seed=2), call(logs, 4)
SIGNS, CLASSES, FIRST = call(signs, 3, 4), call(classes, 3, below=4), call(classes, 3, below=1)
ONE_HOT, MASK = call(one_hot, 3, 4), call(mask, 3, 4)
PIXELS, REGIONS, SOFT = call(numbers, 2, 5, 3), call(one_hot, 2, 5, 3), call(shares, 2, 5, 3)
POINTS = call(numbers, 6, 4)

ELEMENTWISE = [
    *three("squared_error", (X,), (X, Y), (FAR, Y)),
    *three("l2_loss", (X,), (X, Y), (FAR, Y)),
    *three("log_cosh", (X,), (X, ROW), (FAR, Y)),
    case("huber_loss", X, delta=0.7),
    case("huber_loss", X, Y),
    case("huber_loss", FAR, ROW, delta=3.0),
    *three("hinge_loss", (X, SIGNS), (FAR, SIGNS), (X, call(signs, 4))),
    *three("perceptron_loss", (X, SIGNS), (FAR, SIGNS), (X, Y)),
    *three("sparsemax_loss", (X, MASK), (FAR, ONE_HOT), (X, call(classes, 4, below=2))),
    *three("sigmoid_binary_cross_entropy", (X, P), (FAR, ONE_HOT), (X, MASK)),
    case("sigmoid_focal_loss", X, P),
    case("sigmoid_focal_loss", FAR, P, alpha=0.25),
    case("sigmoid_focal_loss", FAR, ONE_HOT).differs(HARD, float32=1e-3, float64=1e-3),
    case("sigmoid_focal_loss", X, P_ROW, alpha=0.6, gamma=1.5),
    case("sigmoid_focal_loss", X, MASK, gamma=0.0),
]
VECTORS = [
    *(
        each
        for name in ("cosine_similarity", "cosine_distance")
        for each in (
            case(name, X, Y),
            case(name, X, ROW, epsilon=3.0),
            case(name, X, Y, epsilon=0.5, axis=0, where=MASK),
            case(name, X, Y, axis=None, where=MASK),
            case(name, X, call(zeros, 4)).differs(ZERO, float32=inf, float64=inf),
        )
    ),
    case("ntxent", POINTS, call(classes, 6)),
    case("ntxent", POINTS, call(classes, 6, below=2), temperature=0.5),
    case("ntxent", call(numbers, 6, 4, scale=30.0), call(classes, 6, below=2), 3.0),
    case("ntxent", POINTS, call(classes, 6, below=6)).differs(PAIRS, float32=inf, float64=inf),
    case("triplet_margin_loss", X, Y, Z),
    case("triplet_margin_loss", X, Y, Z, axis=0, norm_degree=4, margin=0.3, eps=0.1),
    case("triplet_margin_loss", X, ROW, FAR, margin=50.0),
    case("triplet_margin_loss", X, Y, Z, norm_degree=3).differs(ODD, float32=inf, float64=inf),
    case("triplet_margin_loss", X, X, Z, eps=0.0).differs(SAME, float32=inf, float64=inf),
]
SOFTMAXES = [
    case("softmax_cross_entropy", X, P),
    case("softmax_cross_entropy", FAR, ONE_HOT, axis=0),
    case("softmax_cross_entropy", X, P, axis=None),
    case("softmax_cross_entropy", X, P_ROW, axis=None, where=MASK).differs(
        MASKED, float32=inf, float64=inf
    ),
    case("softmax_cross_entropy_with_integer_labels", X, CLASSES),
    case("softmax_cross_entropy_with_integer_labels", FAR, call(classes, 4), axis=0),
    case("softmax_cross_entropy_with_integer_labels", X, FIRST, where=MASK),
    *three("safe_softmax_cross_entropy", (X, P), (FAR, ONE_HOT), (X, P_ROW)),
    case("poly_loss_cross_entropy", X, P),
    case("poly_loss_cross_entropy", FAR, ONE_HOT, epsilon=-0.5, axis=0),
    case("poly_loss_cross_entropy", X, P_ROW, epsilon=1.0, axis=None),
    case("poly_loss_cross_entropy", X, P_ROW, where=MASK).differs(MASKED, float32=inf, float64=inf),
    case("smooth_labels", P, 0.1),
    case("smooth_labels", P, 0.3, axis=0, where=MASK),
    case("smooth_labels", ONE_HOT, alpha=1.0, axis=None),
    case("ranking_softmax_loss", X, P),
    case("ranking_softmax_loss", X, P_ROW, where=MASK, weights=Q).differs(
        MASKED, float32=inf, float64=inf
    ),
    case("ranking_softmax_loss", FAR, call(classes, 3, 4), where=MASK, reduce_fn=jnp.sum),
    case("ranking_softmax_loss", X, P, weights=ROW, reduce_fn=None),
]
SCORES = [
    each
    for name in ("multiclass_hinge", "multiclass_perceptron", "multiclass_sparsemax")
    for each in three(
        f"{name}_loss",
        (X, CLASSES),
        (FAR, CLASSES),
        (call(numbers, 6, 3, scale=0.4), call(classes, 6)),
    )
] + [
    case("make_fenchel_young_loss", max_fun).using(arguments=(X, P))
    for max_fun in (jax.nn.logsumexp, jnp.max, half_square)
]
DIVERGENCES = [
    *(
        each
        for name in ("kl_divergence", "generalized_kl_divergence", "convex_kl_divergence")
        for each in (
            case(name, LOG_P, Q),
            case(name, X, Q, axis=0, where=MASK),
            case(name, LOG_P, P_ROW, axis=None),
            case(name, LOG_P, ONE_HOT).differs(EMPTY, float32=inf, float64=inf),
        )
    ),
    case("kl_divergence_with_log_targets", LOG_P, LOG_Q),
    case("kl_divergence_with_log_targets", X, LOG_Q, axis=0, where=MASK),
    case("kl_divergence_with_log_targets", LOG_P, LOG_ROW, axis=None),
]
REGION_LOSSES = [
    case("dice_loss", PIXELS, REGIONS),
    case("dice_loss", PIXELS, SOFT, smooth=0.1, alpha=0.3, beta=0.8, reduction="sum"),
    case(
        "dice_loss",
        PIXELS,
        REGIONS,
        class_weights=call(row, 0.5, 1.0, 2.0),
        reduction="none",
        ignore_background=True,
        axis=(0, 1),
    ),
    case("dice_loss", PIXELS, SOFT, axis=1, ignore_background=True),
    case("dice_loss", SOFT, REGIONS, apply_softmax=False).using(compiled=False),
    case("binary_dice_loss", X, MASK),
    case("binary_dice_loss", PIXELS, SOFT, smooth=0.1),
    case("binary_dice_loss", call(ones, 3, 4), P, apply_sigmoid=False).using(compiled=False),
    case("multiclass_generalized_dice_loss", PIXELS, REGIONS),
    case("multiclass_generalized_dice_loss", PIXELS, SOFT, smooth=0.1, ignore_background=True),
    case("multiclass_generalized_dice_loss", SOFT, SOFT, apply_softmax=False).using(compiled=False),
]

CASES = [*ELEMENTWISE, *VECTORS, *SOFTMAXES, *SCORES, *DIVERGENCES, *REGION_LOSSES]
FAMILY = Family(names, CASES, values)
