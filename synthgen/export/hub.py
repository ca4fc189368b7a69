"""Uploading a dataset to the Hugging Face Hub, in one commit."""

from __future__ import annotations

from pathlib import Path

from synthgen.errors import RunError, UsageError


def upload(dataset: Path, repository: str, *, private: bool) -> str:
    """Upload the files of a dataset to a repository, made if it is not there; gives the commit's address.

    What is in the repository and not in the dataset any more is removed. Raises UsageError where
    huggingface_hub is not installed or the repository's name is none, and RunError where the Hub refuses.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError:
        raise UsageError(
            "huggingface_hub is not installed in this environment", hint="pip install 'synthgen-data[hub]'"
        ) from None
    # What it raises where nothing answers is of the HTTP library that it uses, as its own error is.
    of_http = next(each for each in HfHubHTTPError.__bases__ if issubclass(each, Exception))
    hub = HfApi()
    try:
        hub.create_repo(repository, repo_type="dataset", private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=dataset,
            commit_message="A dataset of synthgen",
            delete_patterns=["data/*", "provenance/*", "*.jsonl", "*.json"],
        )
    except HFValidationError as error:
        raise UsageError(f"{repository!r} is no repository: {error}") from None
    except (HfHubHTTPError, of_http, OSError, ValueError) as error:
        said = str(error).strip().splitlines()
        hint = "see that the token may write there (`hf auth login`, or HF_TOKEN), and push again"
        if isinstance(error, of_http) and not isinstance(error, HfHubHTTPError):
            hint = "nothing answered: see that the Hub can be reached from here, and push again"
        raise RunError(
            f"the Hub did not take {repository}: {said[0] if said else type(error).__name__}", hint=hint
        ) from None
    return str(commit.commit_url)
