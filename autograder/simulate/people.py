"""Who is in a made-up class? Names from many places, and the numbers that platforms give people."""

import unicodedata
from dataclasses import dataclass
from random import Random

_FIRST = """
Ada Amira Ana Anh Aoife Ayo Björn Carmen Chen Dara Dmitri Elif Emeka Eva Farid Femi Grace Hana Hugo Ines Ivan Jamal José
Kofi Lena Liam Linh Malik Maria Mei Mina Nadia Noor Olga Omar Pablo Priya Quinn Ravi Rosa Sami Sofía Tariq Thuy Uma Vera
Wei Yara Yusuf Zoë
"""
_LAST = """
Abe Adeyemi Ali Andersson Baker Bianchi Castro Chowdhury Cohen Diaz Dubois Evans Fischer García Haddad Hoang Ito Ivanova
Jansen Kaya Khan Kim Kowalski Kumar Lee Lopez Mbeki Mehta Moreau Müller Nguyen Novak Nowak Okafor Ortiz Park Patel
Petrov Quispe Rossi Sato Schmidt Silva Singh Smith Suzuki Tanaka Torres Wang Zhang
"""


@dataclass(frozen=True)
class Person:
    """A student. `user` is Canvas' number, `number` that of the university."""

    student_id: str
    first: str
    last: str
    user: int
    number: str

    @property
    def name(self) -> str:
        """The name as Gradescope writes it."""
        return f"{self.first} {self.last}"

    @property
    def run_together(self) -> str:
        """The name as Canvas writes it into the names of files."""
        return _plain(self.last + self.first)

    @property
    def email(self) -> str:
        """The address at the university."""
        return f"{self.student_id}@university.example"


def make_people(number: int, rng: Random) -> list[Person]:
    """Return so many different people."""
    users = rng.sample(range(100_000, 1_000_000), number)
    numbers = rng.sample(range(10_000_000), number)
    people = []
    for index in range(number):
        first, last = rng.choice(_FIRST.split()), rng.choice(_LAST.split())
        student_id = f"{_plain(first)[0]}{_plain(last)}{index + 1}"
        people.append(Person(student_id, first, last, users[index], f"{numbers[index]:07d}"))
    return people


def _plain(text: str) -> str:
    """Return the lower-case letters of a text, without accents."""
    return "".join(char for char in unicodedata.normalize("NFKD", text).lower() if "a" <= char <= "z")
