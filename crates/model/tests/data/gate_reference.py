#!/usr/bin/env python3
"""Writes gate_reference.tsv, the values that crates/model/tests/gate_reference.rs compares ours with.

    python3 -m venv venv && venv/bin/pip install scipy mpmath
    venv/bin/python gate_reference.py > gate_reference.tsv

The values are SciPy's. Where an mpmath computation with 40 digits is possible it is made too; where the two differ by
more than 1e-12 the mpmath value is written, and the largest difference of each function is in the header.
Evidence has no counterpart in SciPy: it is integrated by mpmath from its definition.
"""

import platform
import sys

import mpmath
import scipy
from scipy import special, stats

mpmath.mp.dps = 40

SAMPLES = [1, 2, 3, 5, 10, 30, 100, 598, 1_000, 10_000, 100_000, 1_000_000]
RATES = [0.0001, 0.0025, 0.005, 0.01, 0.1, 0.5, 0.9]
CONFIDENCES = [0.8, 0.9, 0.95, 0.99, 0.999]
SHAPES = [0.1, 0.5, 1.5, 7.25, 100.5, 5_000.5, 250_000.25]
POINTS = [0.001, 0.005, 0.1, 0.5, 0.9, 0.999]
SMALLEST = 1e-290

differences = {}
rows = []


def add(function, arguments, value, exact=None):
    value = float(value)
    if exact is not None:
        exact = float(exact)
        if exact != 0.0:
            difference = abs(value - exact) / abs(exact)
            differences[function] = max(differences.get(function, 0.0), difference)
            if difference > 1e-12:
                value = exact
    if value == 0.0 or abs(value) > SMALLEST:
        rows.append((function, *map(repr, arguments), repr(value)))


def failures_of(sample):
    return sorted({0, 1, 2, 5, sample // 200, sample // 100, sample // 10, sample // 2, sample - 1, sample} & set(range(sample + 1)))


def exact_tail(failures, sample, rate, lower):
    """A binomial tail as a sum with 40 digits: the terms fall, so it ends where they no longer count."""
    p = mpmath.mpf(rate)
    k = failures
    term = mpmath.binomial(sample, k) * p**k * (1 - p) ** (sample - k)
    total = mpmath.mpf(0)
    while 0 <= k <= sample:
        total += term
        if term < total * mpmath.mpf(10) ** -30:
            break
        if lower:
            if k == 0:
                break
            term *= mpmath.mpf(k) / (sample - k + 1) * (1 - p) / p
            k -= 1
        else:
            if k == sample:
                break
            term *= mpmath.mpf(sample - k) / (k + 1) * p / (1 - p)
            k += 1
    return total


def tails():
    for sample in SAMPLES:
        for failures in failures_of(sample):
            for rate in RATES:
                mean = sample * rate
                below, above = (exact_tail(failures, sample, rate, True) if failures <= mean else None,
                                exact_tail(failures, sample, rate, False) if failures >= mean else None)
                add("at_most", (failures, sample, rate), stats.binom.cdf(failures, sample, rate), below)
                add("at_least", (failures, sample, rate), stats.binom.sf(failures - 1, sample, rate), above)


def solved(start, wanted, tail):
    """SciPy's bound, made exact by the secant method with 40 digits."""
    function = lambda rate: mpmath.log(tail(rate)) - mpmath.log(mpmath.mpf(wanted))
    return mpmath.findroot(function, (mpmath.mpf(start), mpmath.mpf(start) * (1 + mpmath.mpf(10) ** -7)), tol=1e-40, verify=False)


def bounds():
    for sample in SAMPLES:
        for failures in failures_of(sample):
            for confidence in CONFIDENCES:
                alpha = round(1 - confidence, 6)
                upper = 1.0 if failures == sample else special.betaincinv(failures + 1, sample - failures, 1 - alpha)
                lower = 0.0 if failures == 0 else special.betaincinv(failures, sample - failures + 1, alpha)
                exact_upper = exact_lower = None
                if failures <= 100:
                    if failures < sample:
                        exact_upper = solved(upper, alpha, lambda rate: exact_tail(failures, sample, rate, True))
                    if failures > 0:
                        exact_lower = solved(lower, alpha, lambda rate: exact_tail(failures, sample, rate, False))
                add("upper", (failures, sample, confidence), upper, exact_upper)
                add("lower", (failures, sample, confidence), lower, exact_lower)


def functions():
    for value in [1e-9, 0.001, 0.1, 0.5, 0.9, 1.1, 1.5, 1.9, 2.1, 3.0, 7.25, 15.5, 16.5, 100.0, 598.5, 1e4 + 0.5, 1e6, 1e9 + 0.5, 1e15, 1e19]:
        add("ln_gamma", (value,), special.gammaln(value), mpmath.loggamma(mpmath.mpf(value)))
    for a in SHAPES:
        for b in SHAPES:
            for point in POINTS:
                exact = None
                if a + b < 300:
                    exact = mpmath.betainc(mpmath.mpf(a), mpmath.mpf(b), 0, mpmath.mpf(point), regularized=True)
                add("beta_regularized", (point, a, b), special.betainc(a, b, point), exact)
            for probability in [1e-6, 0.05, 0.5, 0.95]:
                add("beta_quantile", (probability, a, b), special.betaincinv(a, b, probability))


def samples():
    for limit in [0.001, 0.005, 0.01, 0.05]:
        for confidence in CONFIDENCES:
            alpha = round(1 - confidence, 6)
            for failures in [0, 1, 2, 3, 5, 10]:
                sample = failures + 1
                while stats.binom.cdf(failures, sample, limit) >= alpha:
                    sample += max(1, sample // 4096)
                while stats.binom.cdf(failures, sample - 1, limit) < alpha:
                    sample -= 1
                rows.append(("sample_needed", str(failures), repr(limit), repr(confidence), str(sample)))


def evidence():
    """The averages of the module `anytime`, integrated from their definition."""
    for limit in [0.001, 0.005, 0.05]:
        for failures, sample in [(0, 1), (0, 100), (0, 760), (1, 10), (1, 1000), (3, 100), (5, 1000), (8, 1000), (20, 1000), (40, 10_000), (70, 10_000)]:
            theta = mpmath.mpf(limit)
            at_limit = theta**failures * (1 - theta) ** (sample - failures)
            likelihood = lambda q: q**failures * (1 - q) ** (sample - failures) / at_limit
            marks = [theta * mpmath.mpf(n) / 8 for n in range(9)]
            below = mpmath.quad(lambda q: likelihood(q) / (2 * mpmath.sqrt(q * theta)), marks)
            add("evidence_below", (failures, sample, limit), mpmath.log(below))
            if failures > 0:
                marks = [theta * mpmath.power(1 / theta, mpmath.mpf(n) / 24) for n in range(25)]
                above = mpmath.quad(lambda q: likelihood(q) / (q * mpmath.log(1 / theta)), marks)
                add("evidence_above", (failures, sample, limit), mpmath.log(above))


if __name__ == "__main__":
    tails()
    bounds()
    functions()
    samples()
    evidence()
    print(f"# Written by gate_reference.py with SciPy {scipy.__version__}, mpmath {mpmath.__version__}, Python {platform.python_version()}.")
    print("# Largest relative difference between SciPy and mpmath, where both were computed:")
    for function, difference in sorted(differences.items()):
        print(f"#   {function}: {difference:.1e}")
    print("# function, arguments, value")
    for row in rows:
        print("\t".join(row))
    print(f"{len(rows)} rows", file=sys.stderr)
