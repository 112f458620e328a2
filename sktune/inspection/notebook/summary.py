"""What a notebook shows, as texts and pictures without markup."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Picture:
    """A picture, and what is to be read beside it.

    Parameters
    ----------
    svg : str
        Safe markup.
    caption : str
    key : list of (str, str)
        Of each kind of line its CSS class and its meaning.
    notes : list of str
        What the picture leaves out.
    """

    svg: str
    caption: str
    key: list
    notes: list


@dataclass(frozen=True)
class Summary:
    """What a notebook shows of a fitted search or network.

    Parameters
    ----------
    title : str
    facts : list of (str, str)
        Label and text.
    parameters : list of (str, str, str)
        Of each parameter of the chosen candidate its name, how people call it, and its value.
    picture : Picture or None
        None where no losses were recorded.
    findings : list of Finding, default=[]
        The most serious ones.
    n_more : int, default=0
        How many findings are left out.
    """

    title: str
    facts: list
    parameters: list
    picture: Picture | None
    findings: list = field(default_factory=list)
    n_more: int = 0


# Findings beyond this many are counted only.
_MOST_FINDINGS = 3


def choose_findings(findings):
    """Return the first findings that are more than notes, and how many others there are."""
    important = [finding for finding in findings if finding.severity != "note"][:_MOST_FINDINGS]
    return important, len(findings) - len(important)
