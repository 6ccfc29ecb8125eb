"""Vocabularies as people write them: a YAML file of actions, or the name of a published set."""

from __future__ import annotations

import yaml

from microg import storage
from microg.config import read_recipe
from microg.data.label_space import LABEL_SPACES
from microg.data.vocabulary import Vocabulary, read_vocabulary, vocabulary_of
from microg.errors import ConfigError, DatasetError

# What `data export` puts beside the files of another format, for `data import --vocabulary`.
FILE_NAME = "vocabulary.yaml"


def load_vocabulary(source: str) -> Vocabulary:
    """Return the vocabulary that a user names.

    Args:
        source: A YAML file with `name` and `actions`, a `dataset.json`, or `microg50`, `ava80`, `jhmdb21`.

    Raises:
        DatasetError: It is not there, or no vocabulary; the error says what is wrong with it.
    """
    if source in LABEL_SPACES:
        return vocabulary_of(LABEL_SPACES[source])
    if not storage.exists(source):
        raise DatasetError(
            f"vocabulary {source} is not there", f"give a YAML file, or one of {', '.join(LABEL_SPACES)}"
        )
    try:
        document = read_recipe(source)  # JSON is YAML, too
    except ConfigError as error:
        raise DatasetError(error.what, error.fix) from error
    return read_vocabulary(document.get("vocabulary", document), source)


def vocabulary_text(vocabulary: Vocabulary) -> str:
    """Return a vocabulary as a YAML file that `load_vocabulary` reads."""
    return yaml.safe_dump(vocabulary.to_dict(), sort_keys=False, allow_unicode=True, width=100)
