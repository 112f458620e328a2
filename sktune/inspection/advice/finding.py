"""One thing that was noticed about a search or a network."""

from dataclasses import dataclass, field

# From what makes results wrong to what is merely good to know.
SEVERITIES = ("problem", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed, with the numbers that show it and what to do about it.

    Parameters
    ----------
    code : str
        Names the kind of finding, such as ``"lr-too-small"``; the same in all versions.
    severity : {"problem", "warning", "note"}
        A problem makes results wrong or wastes the search, a warning costs some quality, and a
        note is good to know.
    title : str
        A few words, such as ``"The learning rate is too small"``.
    text : str
        One sentence with the numbers.
    action : str
        What to do, in one sentence.
    reference : str, default=""
        Where to read more: a paper, or a page of the documentation.
    numbers : dict, default={}
        The numbers that the sentence has, by name.

    Examples
    --------
    >>> from sktune.inspection import Finding
    >>> finding = Finding(
    ...     code="few-candidates",
    ...     severity="note",
    ...     title="Few candidates",
    ...     text="4 candidates were tried for 3 parameters.",
    ...     action="Try at least 30.",
    ... )
    >>> print(finding)
    note: Few candidates. 4 candidates were tried for 3 parameters. Try at least 30.
    """

    code: str
    severity: str
    title: str
    text: str
    action: str
    reference: str = ""
    numbers: dict = field(default_factory=dict)

    def __str__(self):
        return f"{self.severity}: {self.title}. {self.text} {self.action}"
