"""distilabel: a pipeline of one `TextGeneration` with `OpenAILLM`, with its cache, into Parquet.

It asks for a batch at a time and waits for all of it, so a batch has as many rows as there may be requests.
"""

from __future__ import annotations

from work import MODEL, PROMPT, TOKENS, given


def main() -> None:
    work = given()
    import pyarrow.parquet
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    llm = OpenAILLM(model=MODEL, base_url=work.url, generation_kwargs={"max_new_tokens": TOKENS})
    with Pipeline("bench") as pipeline:
        load = LoadDataFromDicts(data=[{"text": text} for text in work.texts()], batch_size=work.concurrency)
        explain = TextGeneration(
            llm=llm, template=PROMPT + "{{ text }}", columns=["text"], input_batch_size=work.concurrency
        )
        load >> explain
    dataset = pipeline.run()["default"]["train"]
    dataset.to_parquet(work.out / "answers.parquet")

    work.check(pyarrow.parquet.read_table(work.out / "answers.parquet")["generation"].to_pylist())


if __name__ == "__main__":
    main()
