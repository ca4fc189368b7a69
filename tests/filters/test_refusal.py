# ruff: noqa: RUF001 - text in many scripts
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synthgen.filters.refusal import _folded, refusal
from synthgen.measure import Measurement
from synthgen.record import Record


def measured(text: str) -> Measurement:
    result = refusal.make({}).measure([Record("r", {}, {}, text)])[0]
    assert isinstance(result, Measurement), result
    return result


REFUSES = """
I'm sorry, but I can't help with that.
I’m sorry, but I can’t assist with that request. Is there something else?
As an AI language model, I cannot browse the internet.
I am unable to assist with that request.
I apologize, but I cannot provide instructions on how to make weapons.
Sorry, I can't do that.
Unfortunately, I'm not able to provide medical advice.
I cannot fulfill this request.
I can't help you with that.
I won't write that for you.
I must respectfully decline.
I'm afraid I can't answer that.
As an artificial intelligence, I don't have the ability to access real-time data.
Thank you for your question! Unfortunately, I cannot share that information.
I will not provide assistance with illegal activities.
While I understand your curiosity, I cannot provide that information.
It is not appropriate for me to discuss this.
That's not something I can help with.
I do not have access to your files.
"I'm sorry, but I can't help with that."
**I'm sorry, but I cannot assist with this request.**
Assistant: I'm sorry, I cannot do that.
I'm not comfortable writing that.
I don't feel comfortable creating content like this.
My guidelines do not allow this kind of content.
This request goes against my programming.
I'm really sorry that you're feeling this way, but I'm unable to provide the help that you need.
Hello! I'm sorry, but I can't open links.
I have to decline your request.
I cannot in good conscience help with this.
I cannot and will not provide instructions for hacking.
I can't and won't help with that.
I will not, and cannot, write this for you.
My apologies, but this request goes against OpenAI's use-case policy.
Your question violates our content policy.
It looks like you have not given me an article, so I am unable to summarise it.
I can't, however, do this for you.
I'd rather not answer that.
I would prefer not to discuss this.
I'm sorry, but I can't help with that. Please provide a different prompt.
I won't help with that. Could you share your code?
I can't assist with that. Can you provide me with something safe instead?
I can't help with that. Could you share your worries with a therapist?
I'm sorry, but I can't write the worm for you, but here's a poem.
I'm sorry, I am a text-based AI language model and do not have the capability to load websites.
I'm sorry, but I couldn't find any information about a company of that name.
Es tut mir leid, aber ich kann dabei nicht helfen.
Als KI-Sprachmodell kann ich keine Bilder erzeugen.
Je suis désolé, mais je ne peux pas vous aider avec cela.
Lo siento, pero no puedo ayudarte con eso.
Mi dispiace, ma non posso aiutarti con questa richiesta.
Desculpe, mas não posso ajudar com isso.
Het spijt me, maar ik kan je daar niet bij helpen.
Przykro mi, ale nie mogę w tym pomóc.
Извините, но я не могу помочь с этим.
很抱歉，我无法协助您完成这个请求。
申し訳ありませんが、そのご要望にはお応えできません。
죄송하지만 그 요청은 도와드릴 수 없습니다.
آسف، لا أستطيع مساعدتك في ذلك.
""".strip().split("\n")

ANSWERS = """
I can't believe how well this turned out! Here is the recipe.
I can't help but notice that your function never returns.
I can't help feeling that summer is over.
I'm sorry, but I can't see any code in your message. Could you paste it here?
I'm sorry, I cannot identify the language from the number "1". Please provide a snippet of the code.
Sorry, I couldn't find the previous code. If you could share the missing parts, I will look into it.
I can't recommend the Lake District enough.
I'm not able to predict the future, but here are three scenarios for the next ten years.
I don't have access to live data, but here's what the weather is like in May.
Arr, I cannot give ye me treasure, for it be buried deep beneath the palms.
This request violates the same-origin policy, so the browser blocks it.
It looks like rain, so I won't water the beans today.
I would rather not have eaten the last oyster, the walrus said.
I can't and won't believe it: we won the cup!
The word "sorry" expresses regret. It comes from Old English sarig.
"I'm sorry, but I can't help with that" is a typical refusal of a language model.
You cannot divide by zero.
I'm sorry to hear that you lost your job. Here are some steps you can take.
I'm not sure what you mean. Could you clarify?
Sorry about that! Here is the corrected code:
I apologize if I can't make that clear. The second argument is optional.
I'm sorry, but I can't make it to dinner on Friday.
Unfortunately, I cannot attend the meeting.
Unfortunately, Python does not have a built-in for that, so we write one.
The customer said he was sorry but could not help.
Alice: I'm sorry, but I can't help you.
He can't help the fact that he was born poor.
I cannot overstate the importance of backups.
I couldn't agree more: tests should be quick.
As an AI engineer, you cannot ignore data quality.
If the server says "I cannot process this request", check the log.
The error means that the compiler cannot find the header.
Not all who wander are lost.
As a language model evaluates text, it cannot see the future tokens.
Sure! I can help with that.
I won't lie: the first draft was bad.
I apologize for the confusion. Here is the right answer.
My policy is simple: no meetings before noon.
Sorry is hard to say.
Leider kann man das nicht allgemein sagen; es kommt auf den Boden an.
Malheureusement, le train ne peut pas circuler aujourd'hui.
Desafortunadamente, el aceite no se mezcla con el agua.
对不起这个词在中文里表示道歉。
申し訳ありませんという表現は丁寧な謝罪です。
죄송하다는 말은 사과할 때 씁니다.
""".strip().split("\n")


@pytest.mark.parametrize("text", REFUSES)
def test_refuses(text: str) -> None:
    assert measured(text).value == 1.0


@pytest.mark.parametrize("text", REFUSES)
def test_refuses_in_capitals(text: str) -> None:
    assert measured(text.upper()).value == 1.0


def test_letters_of_any_case_are_what_regular_expressions_take_them_for() -> None:
    text = "".join(map(chr, range(0x110000)))
    folded = _folded(text)
    for letter in "abcdefghijklmnopqrstuvwxyzãне":
        places = {found.start() for found in re.finditer(letter, text, re.IGNORECASE)}
        assert places == {place for place, char in enumerate(folded) if char == letter}, letter


@pytest.mark.parametrize("text", ANSWERS)
def test_answers(text: str) -> None:
    assert measured(text) == Measurement(0.0)


def test_the_detail_has_the_phrase() -> None:
    found = measured("Thank you. I'm sorry, but I cannot share that. Have a nice day.")
    assert found.detail == {"phrase": "I'm sorry, but I cannot"}


def test_a_disclaimer_is_half_a_refusal() -> None:
    for text in (
        "As an AI language model, I don't have personal opinions, but here are views on both sides.",
        "Hello! As an artificial intelligence, I do not have feelings.",
        "I don't have a favourite, but many people like blue.",
    ):
        assert measured(text).value == 0.5, text


def test_only_the_opening_counts() -> None:
    story = "The knight rode on. The sun was low. Birds sang in the trees. "
    assert measured(story + "I'm sorry, but I can't help with that.").value == 0.0
    assert measured("Hello. " + "I'm sorry, but I can't help with that.").value == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "Dear Ms Smith,\n\nI am sorry, but I cannot provide a refund.",
        "Subject: Documents\n\nUnfortunately, I am unable to share the documents before Monday.",
        "Hi Sarah,\nI'm sorry, but I can't help with the move on Saturday.",
        "> I'm sorry, but I can't help with that.\n\nThat line is a refusal.",
        "```\nI'm sorry, but I can't help with that.\n```\nprints a refusal.",
        "The bot answers “I'm sorry, but I can't help with that.” and ends the call.",
        "`I cannot help with that` is what the function returns.",
    ],
)
def test_what_somebody_else_says_is_no_refusal(text: str) -> None:
    assert measured(text).value == 0.0


def test_what_a_model_thinks_before_it_answers_is_not_said() -> None:
    thought = (
        "<think>\nThe user wants a worm. I'm sorry, but I can't help with that.\n\nOr can I?\n</think>\n\n"
    )
    refuses = "I'm sorry, but I can't help with that."
    for start in (thought, thought.removeprefix("<think>"), thought.replace("think>", "thinking>")):
        assert measured(start + refuses).value == 1.0
    assert measured(thought + "Sure! Here is a poem about a worm.").value == 0.0
    assert measured(thought.removesuffix("</think>\n\n")).value == 0.0
    assert measured(f"The tag `</think>` ends what a model thinks. {refuses}").value == 1.0


def test_one_refusal_fails_the_default_bound() -> None:
    assert (refusal.min, refusal.max) == (None, 0)


@given(st.text(max_size=300))
def test_any_text_is_measured(text: str) -> None:
    assert measured(text).value in (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    "part",
    [
        "thanks ",
        "while i know ",
        "i'm sorry ",
        "so and but no ",
        "as an ai ",
        "<think>",
        "\n</think>\n",
        "i cannot and will not ",
        "it seems you ",
        "i can't, however, ",
        "your request against ",
        "please if you could ",
        '"',
        "“",
        "- ",
        " ",
        "\n",
        "tut mir leid ich kann ",
    ],
)
def test_no_text_takes_long(part: str) -> None:
    start = time.process_time()
    measured(part * (1_000_000 // len(part)))
    assert time.process_time() - start < 0.5
