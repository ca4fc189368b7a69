"""NeMo Data Designer: one text column over a seed file, in its batches of 1,000 records kept as Parquet."""

from __future__ import annotations

from work import MODEL, PROMPT, TOKENS, given


def main() -> None:
    work = given()
    import data_designer.config as dd
    import pyarrow.parquet
    from data_designer.interface import DataDesigner

    model = dd.ModelConfig(
        alias="model",
        model=MODEL,
        provider="here",
        inference_parameters=dd.ChatCompletionInferenceParams(
            max_tokens=TOKENS, max_parallel_requests=work.concurrency
        ),
    )
    config = dd.DataDesignerConfigBuilder(model_configs=[model])
    config.with_seed_dataset(dd.LocalFileSeedSource(path=str(work.docs)))
    prompt = PROMPT + "{{ text }}"
    config.add_column(dd.LLMTextColumnConfig(name="answer", prompt=prompt, model_alias="model"))
    here = dd.ModelProvider(name="here", endpoint=work.url, api_key="none")
    designer = DataDesigner(artifact_path=work.out, model_providers=[here])
    designer.set_run_config(dd.RunConfig(otel_metrics_port=None))  # telemetry
    results = designer.create(config, num_records=work.rows, dataset_name="answers")
    results.export(work.out / "answers.parquet")

    work.check(pyarrow.parquet.read_table(work.out / "answers.parquet")["answer"].to_pylist())


if __name__ == "__main__":
    main()
