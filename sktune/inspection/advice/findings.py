"""What was noticed about a search, the most serious first."""

from html import escape

from sktune.inspection.advice.finding import SEVERITIES
from sktune.runtime.optional import import_pandas


class Findings:
    """A sequence of :class:`Finding`, sorted by severity, with a readable text.

    Parameters
    ----------
    findings : iterable of Finding
    skipped : dict of str to str, default=None
        The rules that were not checked, by code, and why.

    Attributes
    ----------
    skipped : dict of str to str

    Examples
    --------
    >>> from sktune.inspection import Finding, Findings
    >>> finding = Finding("few-candidates", "note", "Few candidates", "4 for 3.", "Try 30.")
    >>> print(Findings([finding]))
    note: Few candidates. 4 for 3. Try 30.
    """

    def __init__(self, findings, skipped=None):
        self._findings = sorted(findings, key=lambda found: SEVERITIES.index(found.severity))
        self.skipped = dict(skipped or {})

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Findings(self._findings[index], self.skipped)
        return self._findings[index]

    def __len__(self):
        return len(self._findings)

    def __iter__(self):
        return iter(self._findings)

    def __str__(self):
        lines = [str(finding) for finding in self._findings] or ["Nothing was found."]
        if self.skipped:
            lines.append(f"Not checked: {self._describe_skipped()}.")
        return "\n".join(lines)

    def __repr__(self):
        codes = [f"{finding.severity}: {finding.code}" for finding in self._findings]
        return f"Findings({codes}, {len(self.skipped)} rules not checked)"

    def _repr_html_(self):
        if not self._findings:
            items = "<p>Nothing was found.</p>"
        else:
            items = "".join(_to_html(finding) for finding in self._findings)
            items = f"<ul>{items}</ul>"
        if self.skipped:
            items += f"<p>Not checked: {escape(self._describe_skipped())}.</p>"
        return f"<div class='sktune-findings'>{items}</div>"

    def to_frame(self):
        """Return a DataFrame with a row for each finding.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("Findings.to_frame")
        columns = ["code", "severity", "title", "text", "action", "reference", "numbers"]
        rows = [[getattr(finding, name) for name in columns] for finding in self._findings]
        return pd.DataFrame(rows, columns=columns)

    def _describe_skipped(self):
        by_reason = {}
        for code, reason in self.skipped.items():
            by_reason.setdefault(reason, []).append(code)
        return "; ".join(f"{', '.join(codes)} ({reason})" for reason, codes in by_reason.items())


def _to_html(finding):
    """Return a finding as an item of a list."""
    head = f"<b>{escape(finding.severity)}: {escape(finding.title)}.</b>"
    body = f"{escape(finding.text)} <i>{escape(finding.action)}</i>"
    source = f" <small>{escape(finding.reference)}</small>" if finding.reference else ""
    return f"<li>{head} {body}{source}</li>"


def list_important(findings, most=3):
    """Return a short line for each of the first findings that are more than notes.

    Parameters
    ----------
    findings : Findings
    most : int, default=3
        How many lines there are at most.

    Returns
    -------
    lines : list of str

    Raises
    ------
    ValueError
        If `most` is negative.

    Examples
    --------
    >>> from sktune.inspection import Finding, Findings, list_important
    >>> finding = Finding("failed-fits", "warning", "Fits failed", "3 of 9.", "Look at lr.")
    >>> list_important(Findings([finding]))
    ['warning: Fits failed. Look at lr.']
    """
    if most < 0:
        raise ValueError(f"most must be at least 0, got most={most}")
    lines = [f"{f.severity}: {f.title}. {f.action}" for f in findings if f.severity != "note"]
    return lines[:most]
