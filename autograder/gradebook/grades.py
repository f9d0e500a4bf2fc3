"""What a student gets in the end, and every step that leads there from what the grader said."""

from dataclasses import dataclass

from autograder.batch.records import Entry, Row


@dataclass(frozen=True)
class FinalGrade:
    """One line of the gradebook: an entry, or a student of the roster who handed nothing in.

    `letter` and `points` are what is entered; None where there is no grade (yet). `steps` says in order why they
    differ from what the grader gave: lateness, decisions, an override. `open_items` of the review wait for a person.
    """

    student_id: str  # the roster's, where it matched
    student_name: str
    entry: Entry | None
    row: Row | None
    letter: str | None
    points: float | None
    max_points: float | None
    days_late: float | None  # after grace and extensions; None if the platform marks it as late without a time
    steps: tuple[str, ...] = ()
    open_items: tuple[str, ...] = ()
    matched: bool = True  # whether the roster knows the student; True without a roster
    section: str = ""
    withheld: str = ""  # why nothing is entered, whatever `letter` and `points` are: a person has to say more
