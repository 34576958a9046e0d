"""Every reducer there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fedmq.rules.reduce import Mean
from fedmq.rules.robust.centers import CentredClipping, GeometricMedian, NormFiltered
from fedmq.rules.robust.coordinatewise import CoordinateMedian, MeanAroundMedian, SignMajority, TrimmedMean
from fedmq.rules.robust.diameter import MinimumDiameter
from fedmq.rules.robust.mixing import Bucketing, NearestMixing
from fedmq.rules.robust.selection import Bulyan, Krum, MultiKrum

if TYPE_CHECKING:
    from fedmq.rules.reduce import Reducer

REDUCERS: dict[str, type[Reducer[Any]]] = {
    "mean": Mean,
    "median": CoordinateMedian,
    "trimmed_mean": TrimmedMean,
    "mean_around_median": MeanAroundMedian,
    "sign_majority": SignMajority,
    "geometric_median": GeometricMedian,
    "krum": Krum,
    "multi_krum": MultiKrum,
    "bulyan": Bulyan,
    "minimum_diameter": MinimumDiameter,
    "centred_clipping": CentredClipping,
    "norm_filtered": NormFiltered,
    "bucketing": Bucketing,
    "nnm": NearestMixing,
}
"""Every reducer by the `kind` that configuration names it with."""
