"""Distilled sets on the Hugging Face hub: pushed with a card that says what they are, pulled and checked."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attar.core.arguments import check_fields, checked
from attar.core.errors import AttarError
from attar.core.hub_ids import check_id
from attar.core.progress import Say, quiet
from attar.sets.distilled import PROTOTYPES, STATISTICS, DistilledSet
from attar.sets.hub_card import Score, hub_card
from attar.sets.near_copies import read_nearest
from attar.sets.own_labels import LABELS
from attar.sets.transfer import arriving, check_departing

CARD = "attar-card.md"
"""The set's own README.md on the hub, where README.md says more: the manifest has its digest."""
PARTS = ("images/*", f"{PROTOTYPES}/*", STATISTICS, f"{LABELS}/*")
"""The files of a set besides its manifest and cards; another set of the same repository replaces them."""


@dataclass(frozen=True)
class Publication:
    """Where a set goes on the hub, and what only its owner can say of it."""

    repository: str
    """The data set's id: owner/name."""
    licence: str | None = None
    """The licence of the images that it was distilled from, as the hub names it: cc-by-4.0, mit, other ..."""
    private: bool = False
    """Make a new repository private."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", self.licence):
            raise AttarError(f"`licence` {self.licence!r}: give its name on the hub, such as cc-by-4.0, mit or other")


@checked
def push(
    distilled: DistilledSet,
    publication: Publication,
    scores: Sequence[Score] = (),
    *,
    say: Say = quiet,
    dry_run: bool = False,
) -> str:
    """Uploads a set with its dataset card as one commit; the repository is made if it is not there.

    Returns:
        Its address; nothing in a dry run.

    Raises:
        AttarError: the set is damaged, the repository holds something else, or the hub refuses or cannot be reached.
    """
    repository = publication.repository
    check_id(repository)
    what = check_departing(distilled, say)
    text = hub_card(distilled, publication.licence, scores, read_nearest(distilled))
    if dry_run:
        say(f"{what} would be pushed to {repository} with this card:\n\n{text}")
        return ""
    address = _uploaded(distilled, publication, text)
    say(f"pushed {what} to {address}")
    return address


@checked
def pull(repository: str, out: Path, revision: str | None = None, *, say: Say = quiet) -> None:
    """Downloads a set; `out` appears, whole, once every file of it has the digest that its manifest states.

    Raises:
        AttarError: something stands at `out`, the hub has no such set, cannot be reached, or the set is damaged.
    """
    check_id(repository)
    from huggingface_hub import HfApi

    with arriving(repository, out, say) as partial:
        with _spoken(repository, "pulled"):
            HfApi().snapshot_download(
                repository,
                repo_type="dataset",
                revision=revision,
                local_dir=partial,
                allow_patterns=["manifest.json", CARD, *PARTS],
            )
        shutil.rmtree(partial / ".cache", ignore_errors=True)
        if not (partial / "manifest.json").is_file():
            raise AttarError(f"{repository}: is no set that `attar push` wrote (no manifest.json)")
        if (partial / CARD).is_file():
            (partial / CARD).rename(partial / "README.md")


def _uploaded(distilled: DistilledSet, publication: Publication, text: str) -> str:
    """Uploads a set with the text of a card; the repository's address."""
    from huggingface_hub import HfApi

    api, repository = HfApi(), publication.repository
    with _spoken(repository, "pushed"), tempfile.TemporaryDirectory() as scratch:
        address = api.create_repo(repository, repo_type="dataset", private=publication.private, exist_ok=True)
        _check_ours(api.list_repo_files(repository, repo_type="dataset"), repository)
        staged = Path(scratch) / "set"
        shutil.copytree(distilled.folder, staged)
        (staged / "README.md").rename(staged / CARD)
        (staged / "README.md").write_text(text, encoding="utf-8")
        api.upload_folder(
            repo_id=repository,
            folder_path=staged,
            repo_type="dataset",
            commit_message=f"{distilled.manifest['method']['name']}, {distilled.manifest['ipc']} images per class",
            delete_patterns=list(PARTS),
        )
    return str(address)


def _check_ours(files: Sequence[str], repository: str) -> None:
    """Raises AttarError for a repository that holds something else than a set."""
    others = [name for name in files if name not in (".gitattributes", "README.md")]
    if others and "manifest.json" not in others:
        raise AttarError(f"`repository` {repository}: holds {others[0]} and no distilled set; name another one")


@contextmanager
def _spoken(repository: str, done: str) -> Iterator[None]:
    """What goes wrong at the hub, as an error that names the repository."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, RepositoryNotFoundError

    try:
        yield
    except AttarError:
        raise
    except RepositoryNotFoundError as error:
        raise AttarError(
            f"{repository}: the hub has no data set of this name, or it is private (`hf auth login`)"
        ) from error
    except LocalTokenNotFoundError as error:
        raise AttarError(f"{repository}: cannot be {done} without a token: `hf auth login`") from error
    except HfHubHTTPError as error:
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise AttarError(f"{repository}: cannot be {done}: {why} (`hf auth login` with a token that may?)") from error
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise AttarError(f"{repository}: cannot be {done}: {why}") from error
