"""Which words count as verbs where the caller does not say: forms of common verbs of motion and action.

This is a list of words and not a tagger. It knows no sentence: "walk" counts in "a walk", too, and a verb that is not
among them never counts. Words that are nouns as often as verbs (hand, cross, circle, point, step) are left out, and so
are be, have, do and the modal verbs.
"""

from __future__ import annotations

import re
from functools import cache

_REGULAR = """
accept add adjust allow appear apply approach arrange arrive ask attach attempt avoid bake bounce brush carry
celebrate change chase chop clean climb close collect combine compete complete continue cook crawl create cry cycle
dance decorate demonstrate descend describe dip disappear display dive drag drape drop dunk emerge enter examine
explain fasten fill finish flip float fold follow gather gaze glide grab happen hop hug hurl ignite inflate insert
inspect interact jog join juggle jump kick kneel knit laugh lean learn lick lift listen look lower mix move nod
observe open operate paddle pass pause peel perform pick pour practice prepare press proceed pull push raise reach
receive release remove repair repeat return reveal roll rotate rub sail scatter scoop scramble scrub seem serve shave
show shuffle skate skip slip smile spill splash squat squeeze stay stir stop stretch stroll stumble talk tap taste tie
toss touch trim try tumble turn twist unwrap use vanish wait walk wander wash wave weld whisk wipe wrap yawn
"""
_IRREGULAR = """
become becomes becoming became begin begins beginning began begun bend bends bending bent bring brings bringing
brought build builds building built catch catches catching caught choose chooses choosing chose chosen come comes
coming came dig digs digging dug draw draws drawing drew drawn drink drinks drinking drank drunk drive drives driving
drove driven eat eats eating ate eaten fall falls falling fell fallen feed feeds feeding fed fight fights fighting
fought fly flies flying flew flown get gets getting got gotten give gives giving gave given go goes going went gone
grow grows growing grew grown hang hangs hanging hung hide hides hiding hid hidden hit hits hitting hold holds holding
held keep keeps keeping kept lay lays laying laid lead leads leading led leap leaps leaping leapt leave leaving lie
lies lying lain lose loses losing lost make makes making made meet meets meeting met put puts putting read reads
reading ride rides riding rode ridden rise rises rising risen run runs running ran say says saying said see sees
seeing saw seen send sends sending sent shake shakes shaking shook shaken shoot shoots shooting shot sing sings
singing sang sung sit sits sitting sat slide slides sliding slid speak speaks speaking spoke spoken spin spins
spinning spun spread spreads spreading stand stands standing stood start starts starting started sweep sweeps sweeping
swept swim swims swimming swam swum swing swings swinging swung take takes taking took taken tell tells telling told
throw throws throwing threw thrown wake wakes waking woke woken wear wears wearing wore worn win wins winning won
write writes writing wrote written
"""


def is_verb(word: str) -> bool:
    """Whether a word, in upper or lower case, is a form of a verb on the list."""
    return word.lower() in _forms()


@cache
def _forms() -> frozenset[str]:
    return frozenset(_IRREGULAR.split()) | {form for base in _REGULAR.split() for form in _regular_forms(base)}


def _regular_forms(base: str) -> tuple[str, str, str, str]:
    """Of a regular verb: "stop", "stops", "stopping", "stopped"."""
    if re.search(r"[^aeiou]y$", base):
        return base, f"{base[:-1]}ies", f"{base}ing", f"{base[:-1]}ied"
    third = base + ("es" if re.search(r"(s|x|z|ch|sh|o)$", base) else "s")
    if base.endswith("ie"):
        return base, third, f"{base[:-2]}ying", f"{base}d"
    if base.endswith("e"):
        return base, third, f"{base[:-1]}ing", f"{base}d"
    # one syllable that ends in consonant, vowel, consonant: the last is doubled
    short = re.fullmatch(r"(qu|[^aeiou])*(qu|[^aeiou])[aeiou][^aeiouwxy]", base.replace("squ", "sq", 1))
    stem = base + base[-1] if short else base
    return base, third, f"{stem}ing", f"{stem}ed"
