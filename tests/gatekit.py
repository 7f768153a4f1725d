"""Limits of a quality gate, made up for tests, in the format that model/quality.h gives."""

SHAPE, FEATURES = 32, 100
CALM = 1e5  # a limit that nothing passes


def gate(towards="PF", field="10 1000", version=1, **limits) -> str:
    """Limits that every series keeps, but for those given: name=(mark, refuse)."""
    names = ("unlike", "downsampled", "downsampled-block", "structure", "structure-block", "moved", "disagreement", "disagreement-block")
    chosen = {name: limits.get(name.replace("-", "_"), (CALM, CALM)) for name in names}
    eye = " ".join(str(int(i == k)) for i in range(SHAPE) for k in range(i + 1))
    return "\n".join([
        "gate 1", f"features {version} {FEATURES}", "refusal 0.01 60", f"field_mm {field}", f"towards {towards}",
        f"mean {FEATURES} " + "0 " * FEATURES, f"scale {FEATURES} " + "1 " * FEATURES, f"whiten {eye}",
        *[f"limit {name} {mark} {refuse}" for name, (mark, refuse) in chosen.items()]])
