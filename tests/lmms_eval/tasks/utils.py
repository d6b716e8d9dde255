"""What lmms-eval asks of the clip tasks."""

ROOT = "/no/such/cache/clips/data"
LETTERS = "ABCD"


def to_visual(doc):
    """The path a benchmark would have downloaded the video to; nothing is there."""
    return [f"{ROOT}/{doc['video']}"] if doc["video"] else []


def to_text(doc, lmms_eval_specific_kwargs=None):
    options = "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, doc["options"], strict=True))
    return f"{doc['question']}\n{options}\nAnswer with the letter of the right option."


def to_choice(doc):
    return doc["options"]


def to_target(doc):
    return LETTERS.index(doc["answer"])


def to_rounds(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    """The first question, then those in `more`, each with the answer before it."""
    if round_idx is None:
        return doc["question"]
    if round_idx > len(doc["more"]):
        return None, None, True, previous_output, previous_round_info
    text = f"You said: {previous_output[-1]}\n{doc['more'][round_idx - 1]}"
    return to_visual(doc), text, False, previous_output, (previous_round_info or 0) + 1


def score_letter(doc, results):
    return {"right": float(results[0].strip()[:1] == doc["answer"])}


def score_rounds(doc, results):
    return {"rounds": float(len(results[0]))}
