"""Tissues of the lumbar spine at 1.5 T and the signal that a sequence makes of them.

A tissue is a triple (T1 ms, T2 ms, proton density in percent of water) plus two facts: whether
its protons are fat (they are shifted along the frequency-encoding axis and decay more slowly in
a long echo train) and which part of its signal survives flow.  Values are those of the
literature where there is one (quantitative MR of discs, CSF and cord; proton-density fat
fraction of marrow); the rest is inferred and therefore varied widely from subject to subject.
"""

from dataclasses import dataclass

import numpy as np

# name: (T1 ms, T2 ms, PD %, is fat, share of the signal left by flow).
TABLE = {
    "air": (1000.0, 1.0, 0.0, False, 1.0),
    "fat": (235.0, 63.0, 100.0, True, 1.0),
    "muscle": (856.0, 32.0, 80.0, False, 1.0),
    "organ": (800.0, 55.0, 82.0, False, 1.0),
    "fluid": (2500.0, 500.0, 95.0, False, 1.0),
    "vessel": (1400.0, 180.0, 90.0, False, 0.12),
    "skin": (900.0, 35.0, 60.0, False, 1.0),
    "ligament": (600.0, 12.0, 32.0, False, 1.0),
    "csf": (4273.0, 1578.0, 107.0, False, 1.0),
    "cord": (780.0, 102.0, 62.0, False, 1.0),
    "root": (850.0, 90.0, 65.0, False, 1.0),
    "vein": (1300.0, 160.0, 90.0, False, 1.0),
    "nucleus": (1200.0, 125.0, 88.0, False, 1.0),
    "annulus": (700.0, 42.0, 55.0, False, 1.0),
    "dry_disc": (560.0, 46.0, 48.0, False, 1.0),
    "cortical": (250.0, 1.0, 4.0, False, 1.0),
    "marrow_water": (950.0, 46.0, 72.0, False, 1.0),
    "marrow_fat": (242.0, 66.0, 92.0, True, 1.0),
    "oedema": (1050.0, 105.0, 92.0, False, 1.0),
    "sclerosis": (500.0, 20.0, 24.0, False, 1.0),
    "angioma": (1000.0, 140.0, 90.0, False, 1.0),
}
NAMES = tuple(TABLE)
INDEX = {name: i for i, name in enumerate(NAMES)}
COUNT = len(NAMES)

# J-coupling is refocused by the close pulses of a long train, so fat fades more slowly than its
# T2 says: this factor on T2 is what makes fat bright on a T2-weighted turbo spin echo.
FAT_TRAIN_GAIN = 2.1


@dataclass(frozen=True)
class Protocol:
    """What the console says about one series; times in ms, lengths in mm."""

    contrast: str
    tr: float
    te: float
    ti: float | None
    train: int
    flip: float
    bandwidth_hz: float
    acquired_rows: int
    acquired_columns: int
    averages: int
    description: str

    @property
    def inversion(self):
        return self.ti is not None


def sample_values(rng, spread=0.10):
    """Tissue values of one subject: array (COUNT, 3) of T1, T2, PD, varied log-normally."""
    base = np.array([TABLE[n][:3] for n in NAMES])
    factors = np.exp(rng.normal(0.0, spread, base.shape) * np.array([0.7, 1.0, 0.4]))
    values = base * np.clip(factors, 0.7, 1.4)
    for name in ("fat", "marrow_fat"):  # a STIR must null fat: its T1 varies little at one field
        values[INDEX[name], 0] = np.clip(values[INDEX[name], 0], 0.9 * TABLE[name][0],
                                         1.1 * TABLE[name][0])
    return values


def standard_values():
    """Tissue values straight from the table, array (COUNT, 3)."""
    return np.array([TABLE[n][:3] for n in NAMES])


def signal(protocol, t1, t2, pd):
    """Signed transverse magnetisation of a (turbo) spin echo, with inversion when TI is given.

    S = PD (1 - e^(-TR/T1)) e^(-TE/T2), and for inversion recovery
    S = PD (1 - 2 e^(-TI/T1) + e^(-TR/T1)) e^(-TE/T2).  The magnitude is taken only after voxels
    have been summed, because that is where a scanner takes it.
    """
    recovery = np.exp(-protocol.tr / t1)
    if protocol.inversion:
        longitudinal = 1.0 - 2.0 * np.exp(-protocol.ti / t1) + recovery
    else:
        longitudinal = 1.0 - recovery
    return pd / 100.0 * longitudinal * np.exp(-protocol.te / t2)


def signals(protocol, values, flow=None):
    """Signals of every tissue: (water, fat), each of COUNT numbers, zero where not that kind."""
    t1, t2, pd = values.T
    is_fat = np.array([TABLE[n][3] for n in NAMES])
    left = np.array([TABLE[n][4] for n in NAMES])
    if flow is not None:
        left = np.where(left < 1.0, flow, left)
    gain = FAT_TRAIN_GAIN if protocol.train >= 8 else 1.0 + 0.1 * (protocol.train - 1)
    all_signals = signal(protocol, t1, np.where(is_fat, t2 * gain, t2), pd) * left
    return np.where(is_fat, 0.0, all_signals), np.where(is_fat, all_signals, 0.0)


def sample_protocol(contrast, rng, size=512):
    """Draw a protocol for "t1", "t2", "t2-fast", "stir" or "tirm" from the ranges in clinical use."""
    u = rng.uniform
    rows = int(rng.integers(300, 421))
    share = u(0.72, 1.0)
    if contrast == "t1":
        tr, te, ti, train, bandwidth = u(500, 700), u(9, 14), None, int(rng.integers(3, 6)), u(150, 230)
    elif contrast in ("t2", "t2-fast"):
        tr, te, ti, train, bandwidth = u(3000, 5200), u(90, 120), None, int(rng.integers(14, 24)), u(150, 260)
    elif contrast == "stir":
        tr, te, ti, train, bandwidth = u(3500, 5500), u(30, 48), u(150, 165), int(rng.integers(8, 14)), u(150, 230)
        rows = int(rng.integers(230, 321))
    elif contrast == "tirm":
        tr, te, ti, train, bandwidth = u(4000, 6000), u(55, 72), u(145, 162), int(rng.integers(9, 16)), u(150, 230)
        rows = int(rng.integers(230, 321))
    else:
        raise ValueError(f"unknown contrast {contrast!r}: one of t1, t2, t2-fast, stir, tirm")
    if contrast == "t2-fast":
        rows, share = 128, u(0.85, 1.0)
    rows = min(rows, size)
    flip = float(rng.choice([150.0, 160.0, 180.0]))
    names = {"t1": "t1_tse_sag", "t2": "t2_tse_sag", "t2-fast": "t2_tse_sag_fast",
             "stir": "stir_sag", "tirm": "t2_tirm_sag"}
    return Protocol(contrast, round(tr), round(te), None if ti is None else round(ti), train, flip,
                    round(bandwidth), rows, max(64, int(rows * share) // 2 * 2),
                    1 if contrast == "t2-fast" else int(rng.integers(1, 4)), names[contrast])
