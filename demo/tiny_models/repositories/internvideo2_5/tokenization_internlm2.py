"""The tokenizer: SentencePiece, `<s>` before every text."""

from __future__ import annotations

from typing import Any

import sentencepiece
from transformers.tokenization_utils import PreTrainedTokenizer


class InternLM2Tokenizer(PreTrainedTokenizer):
    """Pieces of `tokenizer.model`, and the tokens added to them."""

    vocab_files_names = {"vocab_file": "./tokenizer.model"}  # noqa: RUF012
    model_input_names = ("input_ids", "attention_mask")

    def __init__(self, vocab_file: str, add_bos_token: bool = True, **kwargs: Any) -> None:
        self.vocab_file, self.add_bos_token = vocab_file, add_bos_token
        self.sp_model: Any = sentencepiece.SentencePieceProcessor(model_file=vocab_file)
        super().__init__(**kwargs)

    @property
    def vocab_size(self) -> int:
        return self.sp_model.get_piece_size()

    def get_vocab(self) -> dict[str, int]:
        return {self.sp_model.id_to_piece(at): at for at in range(self.vocab_size)} | self.added_tokens_encoder

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return self.sp_model.encode(text, out_type=str)

    def _convert_token_to_id(self, token: str) -> int:
        return self.sp_model.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.sp_model.id_to_piece(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        text, pieces = "", []
        for token in tokens:
            if token in self.all_special_tokens:
                text += self.sp_model.decode(pieces) + token
                pieces = []
            else:
                pieces.append(token)
        return text + self.sp_model.decode(pieces)

    def build_inputs_with_special_tokens(self, token_ids_0: list[int], token_ids_1: Any = None) -> list[int]:
        begin = [self.bos_token_id] if self.add_bos_token else []
        return [*begin, *token_ids_0, *(token_ids_1 or [])]
