"""Put a trained model into a repository of the Hugging Face Hub, with a model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from poise.api.card import model_card
from poise.models.files import find_model_file, load_model, save_model
from poise.recipes import Recipe, load_recipe, save_recipe, with_settings
from poise.storage import write_text_atomically
from poise.storage.hub import MODEL_FILE, HubError, hub_endpoint, is_hub_address, split_address, why_refused

RECIPE, METRICS = "recipe.yaml", "metrics.json"


def push(
    run: str | os.PathLike[str],
    address: str,
    *,
    license: str = "",
    private: bool = False,
    folder: str | os.PathLike[str] | None = None,
) -> str:
    """Upload the model of a run to ``hf://owner/name``; a repository that does not exist is created.

    The repository receives ``model.safetensors``, which ``poise.load`` reads, a model card (``README.md``), and the
    recipe and metrics of the run. Of paths in the recipe only the last part is published.

    Args:
        run: a run folder (its best weights) or a model file.
        address: ``hf://owner/name``, with ``@branch`` to write to a branch that exists.
        license: identifier of the license of the weights, such as ``apache-2.0``; empty: the card says that none is
            stated.
        private: create the repository as a private one.
        folder: write the files to this folder and upload nothing.

    Returns:
        The address of the commit, or the folder.

    Raises:
        FileNotFoundError: there is no model at ``run``.
        HubError: the upload is refused.
    """
    if not is_hub_address(address):
        raise ValueError(f"'{address}': write hf://owner/name")
    repository, revision = split_address(address)
    if folder is not None:
        write_repository(run, address, license, Path(folder))
        return str(folder)
    from huggingface_hub import HfApi
    from huggingface_hub import errors as hub

    with tempfile.TemporaryDirectory() as temporary:
        write_repository(run, address, license, Path(temporary))
        api = HfApi(endpoint=hub_endpoint(), library_name="poise")
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=repository, folder_path=temporary, revision=revision, commit_message="Upload with poise push"
            )
        except hub.HFValidationError as error:
            raise ValueError(f"'{address}': {str(error).splitlines()[0]}") from error
        except hub.RevisionNotFoundError as error:
            raise HubError(f"{address}: the repository has no branch '{revision}'") from error
        except (hub.HfHubHTTPError, hub.LocalTokenNotFoundError) as error:
            raise HubError(f"{address}: {why_refused(error)}") from error
        except Exception as error:
            if not type(error).__module__.startswith("httpx"):  # the HTTP library of huggingface_hub
                raise
            raise HubError(f"{address}: it could not be reached ({error})") from error
    return commit.commit_url


def write_repository(run: str | os.PathLike[str], address: str, license: str, folder: Path) -> None:
    """Write the files of the repository to a folder, which must be empty or missing."""
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a folder that does not exist")
    file = find_model_file(run)
    model = load_model(file)
    folder.mkdir(parents=True, exist_ok=True)
    save_model(model, folder / MODEL_FILE)
    recipe = None
    if (file.parent / RECIPE).is_file():
        recipe = _without_folders(load_recipe(file.parent / RECIPE))
        save_recipe(recipe, folder / RECIPE)
    with_metrics = file.name == "best.pt" and (file.parent / METRICS).is_file()  # the metrics of a run are its best
    if with_metrics:
        shutil.copyfile(file.parent / METRICS, folder / METRICS)
    card = model_card(model, address, license, recipe, folder=folder)
    write_text_atomically(folder / "README.md", card)


def _without_folders(recipe: Recipe) -> Recipe:
    """Return the recipe with the names of files and folders instead of their paths."""
    data, model = recipe.data, recipe.model
    paths = {"data.proposals": data.proposals, "data.val_proposals": data.val_proposals}
    paths |= {"model.weights": model.weights, "model.backbone_weights": model.backbone_weights}
    names = {name: Path(one).name for name, one in paths.items() if not is_hub_address(one)}
    return with_settings(recipe, {**names, "data.path": tuple(Path(one).name for one in data.paths)})
