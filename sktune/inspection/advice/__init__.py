"""What can be read from a search, and what to do about it."""

from sktune.inspection.advice.diagnose import diagnose
from sktune.inspection.advice.finding import Finding
from sktune.inspection.advice.findings import Findings, list_important

__all__ = ["Finding", "Findings", "diagnose", "list_important"]
