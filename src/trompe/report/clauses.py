"""Which part of a report speaks to which clause of a standard or a law: an aid, no legal advice."""

from __future__ import annotations

NOTE = (
    "An aid for finding the evidence, and no legal advice: whether a clause is met is for the "
    "auditor to say. Read the clauses in the editions named here; dates of application change."
)

CLAUSES: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("ISO/IEC TR 24029-1:2021", "assessment of robustness", "empirical methods: attacks, counted",
     ("sample", "worst_case", "threat_model")),
    ("ISO/IEC TR 24029-1:2021", "assessment of robustness", "statistical methods: intervals",
     ("sample", "worst_case")),
    ("ISO/IEC 24029-2:2023", "formal methods", "stability within a stated domain", ("certified",)),
    ("ISO/IEC DIS 24029-3:2025", "statistical methods", "response to a targeted perturbation",
     ("worst_case", "floor")),
    ("NIST AI RMF 1.0", "MEASURE 1.1", "what cannot be measured is written down",
     ("not_tested",)),
    ("NIST AI RMF 1.0", "MEASURE 2.1", "test sets, metrics and tools are documented",
     ("sample", "reproduction")),
    ("NIST AI RMF 1.0", "MEASURE 2.7", "security and resilience are evaluated",
     ("threat_model", "worst_case", "floor")),
    ("NIST AI RMF 1.0", "MEASURE 2.9", "the model is explained, the explanation validated",
     ("system", "worst_case", "functional_equivalence", "model_side")),
    ("Regulation (EU) 2024/1689", "Article 9", "risk management: risks known and foreseeable",
     ("threat_model", "worst_case")),
    ("Regulation (EU) 2024/1689", "Article 11 and Annex IV", "technical documentation",
     ("system", "sample", "reproduction")),
    ("Regulation (EU) 2024/1689", "Article 13(3)", "information for deployers: limits, accuracy",
     ("system", "worst_case", "not_tested")),
    ("Regulation (EU) 2024/1689", "Article 14(4)(c)", "outputs interpreted correctly by overseers",
     ("system", "worst_case", "functional_equivalence")),
    ("Regulation (EU) 2024/1689", "Article 15(4) and (5)", "robustness and cybersecurity",
     ("threat_model", "worst_case", "certified")),
    ("Regulation (EU) 2024/1689", "Article 86", "right to an explanation of a decision",
     ("system", "worst_case", "not_tested")),
)  # fmt: skip
"""Source, clause, what it is about, and the sections of the report that speak to it."""


def clause_map() -> list[dict[str, object]]:
    """The clauses as entries ready for JSON: source, clause, about, sections."""
    names = ("source", "clause", "about", "sections")
    return [dict(zip(names, (*row[:3], list(row[3])), strict=True)) for row in CLAUSES]
