"""Does the answer refuse?"""
# ruff: noqa: RUF001 - the patterns of other languages are in their own letters

from __future__ import annotations

import re
from itertools import islice

from synthgen import Measurement, Record, filter

OPENING_SENTENCES = 3
OPENING_CHARACTERS = 600
ASKED_WITHIN = 5  # sentences, if it asks back


def _one_of(*alternatives: str) -> str:
    return "(?:" + "|".join(alternatives) + ")"


AI = r"(?:an?|your) (?:[\w-]+ ){0,3}?" + _one_of(
    "ai",
    r"a\.i\.",
    "artificial intelligence",
    "(?:large )?language model",
    "llm",
    "(?:chat)?bot",
    "(?:text|computer)-based (?:model|program|assistant)",
    "machine learning model",
    "computer program",
    "(?:virtual |digital )?assistant",
)
AS_AI = rf"(?:as|(?:since |because )?(?:i'm|i am)(?: just| only| simply| merely)?|being) {AI}\b"
SORRY = (
    _one_of(
        r"(?:i'm|i am)(?: \w+){0,2} (?:sorry|afraid)",
        "(?:my |sincere )*apologies",
        r"i(?: \w+)? apologi[sz]e",
        "i regret",
        "sorry",
        "unfortunately",
        "regrettably",
        "sadly",
        "forgive me",
        "pardon me",
    )
    + r"\b(?! if\b)"
)
PERHAPS_SORRY = rf"(?:{SORRY}[ ,]*(?:but |that )?)?"
# Possessive, so that no text makes the matching look at a lead-in in more than one way.
LEAD = (
    "(?:"
    + _one_of(
        "oh|well|hi|hello|hey|ok|okay|yes|no|however|but|and|so|hmm|honestly|to be honest",
        "at this time|at the moment|for now",
        "(?:thank you|thanks|while|although|though|i understand|i appreciate|i know)"
        r"[^,.!?]{0,120}?(?=,| but\b)",
        r"i (?:must|have to|need to|should|want to) (?:\w+ )?"
        "(?:emphasi[sz]e|stress|inform you|clarify|say|admit|note)(?: that)?",
    )
    + "[,!:;—–-]* +)*+"
)
NOT_ABLE = (
    _one_of(
        "unable to",
        "not (?:able|allowed|permitted|programmed|designed|equipped|authori[sz]ed|willing|going) to",
        "not (?:fully |currently |really )?(?:able to|capable of|comfortable)",
        "not in a position to",
    )
    + r"\b"
)
NOT_EQUIPPED = (
    "(?: (?:the|any|an|direct|real-time|physical|current|specific|personal|enough|sufficient)){0,3} "
    + _one_of(
        "abilit(?:y|ies)",
        "capabilit(?:y|ies)",
        "capacity",
        "access",
        "means",
        "permission",
        "information",
        "context",
        "data",
        "knowledge",
    )
    + r"\b"
)
WILL_NOT = r"(?:cannot|can not|can't|won't|will not|shall not|should not|shouldn't)"
# As in "I can't, however, do that".
INSERTED = (
    r"(?:, (?:however|though|unfortunately|sadly|regrettably|therefore|of course|i'm afraid|i am afraid),)?"
)
I_CANNOT = (
    "i(?: (?:really|simply|just|still|also|currently|do|would|honestly|must|respectfully|politely))*"
    + _one_of(
        r" (?:cannot|can not|can't|won't|will not|shall not|refuse to|decline)\b"
        rf"(?:,? (?:and|or|nor) {WILL_NOT}\b,?)?",
        r"(?:'d| would)? (?:rather|prefer) not\b(?: to\b)?",
        " (?:could not|couldn't) find",
        " have to (?:respectfully |politely )?(?:decline|refuse)",
        rf"(?:'m| am)(?: \w+)? {NOT_ABLE}",
        r" (?:do not|don't|did not) (?:\w+ )?feel comfortable",
        rf"(?: (?:do not|don't)|'ve no| have no| lack)(?: (?:currently|yet))?(?: have)?{NOT_EQUIPPED}",
    )
    + INSERTED
)
HELP = (
    "(?: (?:to|directly|fully|really|currently|with|in good conscience|provide|be|you|or|any|and)){0,4}? "
    + (
        _one_of(
            r"help(?! (?:but|it|myself|how|the feeling|\w+ing)\b)",
            "(?:assist|fulfil|comply|answer|respond|discuss|support|offer|process|access|translate|predict)",
            # "I can't recommend it enough" praises.
            r"recommend(?![^.!?]{0,100}\benough\b)",
            "(?:provid|generat|creat|writ|produc|engag|participat|brows|condon|encourag|promot|facilitat|shar|advis)"
            "(?:e|ing)",
            r"do (?:that|this)\b",
            "give (?:you|advice|instructions|information)",
            "continue with|complete|perform|view|display|(?:assist|answer|discuss)ing",
        )
    )
)
# What people, not assistants, are sorry to be unable to do.
NOT_SOCIAL = (
    r"(?![\w ]{0,12}\b(?:attend|make it|come|join|be (?:there|with you|at)|meet|imagine|believe|take back|"
    r"undo|stress|wait|thank)\b)"
)
OF_A_PERSON = _one_of(
    "feelings?",
    "emotions?",
    "opinions?",
    "beliefs?",
    "preferences?",
    "experiences?",
    "consciousness",
    "desires?",
    "thoughts",
    "(?:physical )?body",
    "gender",
    "favou?rites?",
)

# Each with what it means: 1 refuses, 0.5 only disclaims being a person.
ENGLISH = [
    (
        0.5,
        rf"{LEAD}{PERHAPS_SORRY}(?:{AS_AI}[^.!?]{{0,60}}?)?\bi (?:do not|don't|cannot|can't|lack|have no)"
        "(?: (?:have|hold|possess|experience|feel|form|express|any|a|the|actually|really|personal|own|my|"
        rf"human|ability|to)){{0,5}} {OF_A_PERSON}\b",
    ),
    (1.0, rf"{LEAD}{SORRY}[^.!?]{{0,100}}?\b{I_CANNOT}{NOT_SOCIAL}"),
    (
        1.0,
        rf"{LEAD}{PERHAPS_SORRY}{AS_AI}[^.!?]{{0,100}}?\b(?:{I_CANNOT}|(?:and|but|so) (?:cannot|can't|"
        rf"am {NOT_ABLE}|(?:do not|don't) have (?:the ability|the capability|access)))",
    ),
    (1.0, rf"{LEAD}{I_CANNOT}{HELP}"),
    (1.0, rf"{LEAD}{I_CANNOT}(?<=decline)(?! (?:in|of)\b)"),
    (
        1.0,
        rf"{LEAD}{PERHAPS_SORRY}(?:it (?:looks|seems|appears)\b[^.!?]{{0,20}}? you\b|"
        r"you (?:haven't|have not|didn't|did not)\b)"
        rf"[^.!?]{{0,140}}?,? (?:so|therefore) {I_CANNOT}{NOT_SOCIAL}",
    ),
    (
        1.0,
        rf"{LEAD}{PERHAPS_SORRY}(?:this|that|your|the) "
        "(?:request|question|prompt|query|topic|content)[^.!?]{0,60}? (?:against|violates?|in violation of) "
        r"(?:our|the|[\w.]+'s) (?:\w+ )?(?:use|usage|use-case|safety|ethical|content) (?:case )?"
        r"(?:polic(?:y|ies)|guidelines)\b",
    ),
    (1.0, rf"{LEAD}i (?:do not|don't)(?: currently)? have (?:\w+ )?access to\b"),
    (
        1.0,
        rf"{LEAD}{PERHAPS_SORRY}(?:it is|it's|it would be|that is|that's|this is) (?:\w+ )?"
        r"(?:not possible|impossible|inappropriate|not appropriate|unethical|not ethical) for me to\b",
    ),
    (
        1.0,
        rf"{LEAD}{PERHAPS_SORRY}(?:that's|that is|this is)(?: just| really)? not something (?:that )?"
        r"i(?:'m| am| can| will| could| feel)\b",
    ),
    (
        1.0,
        r"[^.!?]{0,120}\b(?:against|violates?|goes beyond|beyond) my (?:\w+ )?"
        r"(?:programming|guidelines|polic(?:y|ies)|capabilities|principles)\b",
    ),
    (
        1.0,
        rf"{LEAD}{PERHAPS_SORRY}my (?:programming|guidelines|polic(?:y|ies)|safety \w+) "
        r"(?:does not|do not|doesn't|don't|prohibits?|forbids?|prevents?)\b",
    ),
]
# An apology, or a word about being a machine, and then an inability, in the same sentence. Before them stands
# a piece that every such inability has, as it is quickly looked for.
OTHERS = [
    (
        "ich",
        r"(?:es tut mir|tut mir|leider|entschuldig\w+|als (?:eine? )?(?:ki|künstliche|sprachmodell))\b",
        r"\b(?:ich (?:kann|darf|werde|bin|habe)|(?:kann|darf|werde|bin|habe) ich)\b[^.!?]{0,80}"
        r"\b(?:nicht|keine?n?)\b(?! kommen)",
    ),
    (
        "je n",
        r"(?:désolée?|malheureusement|je regrette|en tant (?:que|qu'une?) (?:ia|intelligence|modèle))\b",
        r"\bje (?:ne |n')(?:peux|suis pas|dispose|ai pas|saurais|puis)\b",
    ),
    (
        "no ",
        r"(?:lo siento|lo lamento|disculp\w+|perdón|lamentablemente|desafortunadamente|"
        r"como (?:una? )?(?:ia|inteligencia|modelo))\b",
        r"\bno (?:puedo|podré|tengo (?:acceso|la capacidad|información)|soy capaz|estoy capacitad)",
    ),
    (
        "non ",
        r"(?:mi (?:di)?spiace|spiacente|purtroppo|come (?:ia|intelligenza|modello))\b",
        r"\bnon (?:posso|potrò|sono in grado|ho (?:accesso|la capacità))\b",
    ),
    (
        "não ",
        r"(?:desculp\w+|sinto muito|lamento|infelizmente|como (?:uma? )?(?:ia|inteligência|modelo))\b",
        r"\bnão (?:posso|poderei|consigo|tenho (?:acesso|a capacidade)|sou capaz)\b",
    ),
    (
        "ik",
        r"(?:het spijt me|sorry|helaas|als (?:ai|taalmodel))\b",
        r"\b(?:kan ik|ik kan|mag ik|ik mag|ik ben|ben ik)\b[^.!?]{0,60}\b(?:niet|geen)\b",
    ),
    (
        "nie ",
        r"(?:przykro mi|przepraszam|niestety|jako (?:model|sztuczna|ai))\b",
        r"\bnie (?:mogę|jestem w stanie|mam (?:dostępu|możliwości))\b",
    ),
    (
        "не ",
        r"(?:извините|простите|к сожалению|прошу прощения|мне жаль|как (?:ии|языковая модель))\b",
        r"\bне (?:могу|смогу|в состоянии|имею (?:доступа|возможности)|располагаю)\b",
    ),
    (
        "",
        "(?:抱歉|对不起|對不起|很遗憾|很遺憾|作为(?:一个|一名)?(?:人工智能|ai|语言模型))",
        "(?:无法|無法|不能|没有办法|沒有辦法|不便)",
    ),
    (
        "",
        "(?:申し訳|すみません|ごめんなさい|恐れ入り|残念ながら|aiとして|言語モデルとして)",
        "(?:できません|できかね|いたしかね|致しかね|お断り)",
    ),
    ("", "(?:죄송|미안|유감|안타깝)", "(?:수 없|수는 없|못합니다|어렵습니다|불가능)"),
    ("", "(?:آسف|عذرا|عذرًا|للأسف|أعتذر)", "(?:لا أستطيع|لا يمكنني|لن أتمكن|لا أملك)"),
]
PATTERNS = [(value, "", re.compile(pattern, re.I)) for value, pattern in ENGLISH] + [
    (1.0, mark, re.compile(rf"[\w\s]{{0,20}}{sorry}[^.!?。！？]{{0,80}}?{cannot}", re.I))
    for mark, sorry, cannot in OTHERS
]
# Few sentences have any of these, and only those are looked at more closely. It is for folded sentences, and
# each piece begins with a letter, as re skips to the next of these letters where it need not mind their case.
HINT = re.compile(
    r"can't|cannot|won't|don't|couldn't|n(?<=\bn)ot\b|l(?<=pol)ic|g(?<=\bg)uideline|unable|declin|refuse|n(?<=\bn)o\b|l(?<=\bl)ack\b|"
    r"impossible|inappropriate|unethical|m(?<=\bm)y \w|nicht|kein|n(?<=\bn)e\b|n(?<=\bn)'|non\b|não|niet|"
    r"geen|nie\b|не\b|无|無|不|没|沒|ません|かね|断|없|못|어렵|불가|لا|لن"
)

# Begins with the set of signs that matches begin with, as re skips to the next of those.
ASIDE = re.compile(
    r'[`">“«](?:(?<=`)``.*?(?:```|\Z)|(?<=`)[^`\n]*`|(?<=^>).*$|(?<=")[^"\n]{1,300}"|'
    r"(?<=“)[^“”\n]{1,300}”|(?<=«)[^«»\n]{1,300}»)",
    re.MULTILINE | re.DOTALL,
)
WRAPPED = re.compile(r'"([^"]+)"\Z|“([^”]+)”\Z|«([^»]+)»\Z')
LETTER = re.compile(
    r"(?:\W{0,4}subject\W|to whom\b|dear\b|(?:hi|hello|hey|good morning)\s[^,.!?\n]{1,40},\s*\n)", re.I
)
LABEL = re.compile(r"^(?:assistant|ai|bot|chatbot|chatgpt|answer|response|a)\s*:\s*", re.I)
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？؟])\s*|\n+")
WIDE_STOPS = "。！？؟"
# Without wide stops the same, and quicker, as each match begins with a space.
SPACED_SENTENCE_END = re.compile(r"\s(?:(?<=[.!?]\s)\s*|(?<=\n)\n*)")
MARKUP = re.compile(r"^[\s*_#>\-–—•]+")
THOUGHT = re.compile(r"\s*<(think|thinking|thought|reasoning)>")
# What is said to whoever is to give what is missing; another request is asked for where this one is refused.
ASKS_BACK = re.compile(
    r"\b(?:(?:could|can|would|will) you|please|if you(?: could| can| would)?)(?: please| kindly)? "
    r"(?:paste|provide|share|send|upload|attach|include|specify|clarify|copy|give me|tell me|show me|type)\b"
    r"(?![^.!?\n]*\b(?:another|different|else|other|new|appropriate|safe|instead|someone|professional|therapist|doctor)\b)",
    re.I,
)
# What one will not do, whatever is given.
WILL = re.compile(r"\b(?:won't|(?:will|shall|rather|prefer) not|refuse|decline)\b", re.I)
# What one lacks, rather than will not do, and the answer that is given all the same.
LACKS = re.compile(
    r"(?:predict|access(?: to)?|browse|view|information|data|knowledge|abilit(?:y|ies)|capabilit(?:y|ies))\Z",
    re.I,
)
ANSWERS_STILL = re.compile(r"[^.!?\n]{0,120}[,;] but (?:here (?:is|are)|here's|below (?:is|are))\b", re.I)


@filter(max=0)
def refusal(record: Record) -> Measurement:
    """1 where the answer refuses, 0.5 where it only disclaims being a person, else 0.

    To refuse is to say, in one of the first three sentences, that one cannot or will not do what was asked,
    or has no access to what it takes ("I'm sorry, but I can't help with that"). To disclaim is to say that a
    machine has no opinions or feelings of its own; `max: 0.5` keeps such answers. The detail has the phrase.

    What is quoted is not said: quotations, code and block quotes are passed over, and so are letters
    ("Dear ..."), dialogues and stories, whose "I" is somebody else, and what a model thinks (`<think>`)
    first. An answer that asks back for what is missing does not refuse ("I'm sorry, but I can't see any code.
    Could you paste it?"), nor one that names what it lacks and goes on ("but here are three guesses").

    Parameters: none.

    Source: phrases read off refusals of several models. English in depth; in German, French, Spanish,
    Italian, Portuguese, Dutch, Polish, Russian, Chinese, Japanese, Korean and Arabic an apology followed by
    an inability.

    Weak at: refusals that come late, that lecture without saying no, or that are in other languages; a
    message to send on that begins with an apology of its own; a part that is played, whose "I" refuses.
    An answer that cannot open a link and asks for its text counts as one that asks back.
    """
    for number, sentence in enumerate(_opening(record.text, OPENING_SENTENCES)):
        folded = _folded(sentence)
        if HINT.search(folded):
            for value, mark, pattern in PATTERNS:
                if mark in folded and (found := pattern.match(sentence)):
                    later = _opening(record.text, ASKED_WITHIN)[number + 1 :]
                    rest = [sentence[found.end() :], *later]
                    if value == 1 and _answers_still(found[0], rest):
                        return Measurement(0.0)
                    return Measurement(value, {"phrase": found[0].encode(errors="replace").decode()})
    return Measurement(0.0)


def _answers_still(phrase: str, rest: list[str]) -> bool:
    """Whether it asks for what is missing, or goes on to answer."""
    if any(ASKS_BACK.search(sentence) for sentence in rest):
        return WILL.search(phrase) is None
    return LACKS.search(phrase) is not None and ANSWERS_STILL.match(rest[0]) is not None


def _opening(text: str, sentences: int) -> list[str]:
    text = _answer(text).strip()
    if wrapped := WRAPPED.match(text):
        text = next(group for group in wrapped.groups() if group)
    text = text[: 4 * OPENING_CHARACTERS]
    if LETTER.match(text):
        return []
    text = text.replace("’", "'").replace("‘", "'")
    text = ASIDE.sub(" … ", text).strip()[:OPENING_CHARACTERS]
    end = SENTENCE_END if any(stop in text for stop in WIDE_STOPS) else SPACED_SENTENCE_END
    parts = (" ".join(MARKUP.sub("", part).split()) for part in end.split(text))
    said = islice((part for part in parts if part), sentences)
    return [LABEL.sub("", part, count=1) for part in said]


def _answer(text: str) -> str:
    """The text without what it thinks first. A prompt may have opened the block that it only closes."""
    if thought := THOUGHT.match(text):
        return text.partition(f"</{thought[1]}>")[2]
    before, closed, after = text.partition("\n</think>\n")
    return after if closed else before


def _folded(text: str) -> str:
    """Lower case, letter for letter as re.IGNORECASE compares them."""
    if text.isascii():
        return text.lower()
    return text.replace("İ", "i").lower().replace("ı", "i").replace("ſ", "s")
