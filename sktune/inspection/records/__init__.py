"""A search as tables of numbers, whatever search it was: what displays and checks read."""

from sktune.inspection.records.curves import CurveTable
from sktune.inspection.records.metrics import find_main_metric, list_metrics, read_scorer
from sktune.inspection.records.parameters import Parameter, known_parameter, label_of
from sktune.inspection.records.reading import read_search
from sktune.inspection.records.regimes import name_regimes
from sktune.inspection.records.search_record import SearchRecord
from sktune.inspection.records.searches import find_search

__all__ = [
    "CurveTable",
    "Parameter",
    "SearchRecord",
    "find_main_metric",
    "find_search",
    "known_parameter",
    "label_of",
    "list_metrics",
    "name_regimes",
    "read_scorer",
    "read_search",
]
